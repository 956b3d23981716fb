"""SIGTERM and SIGINT at every moment of training: code 75, in seconds, the state saved, and the same bits later."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fleets
import jax
import pytest
from fleets import TINY, files_of, refused, run_here, succeeded

from mtad_jax.train.checkpoints import Checkpoints

LAST = 600
SETTINGS = (
  *TINY,
  f"--config.train.num_train_steps={LAST}",
  "--config.train.validate_every_steps=200",
  "--config.train.checkpoint_every_steps=200",
  "--config.train.log_every_steps=100",
  "--config.train.max_dispatch_s=2",  # so that a dispatch lasts from one row of the log to the next
)
BOTH = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
  return fleets.write_fleet(tmp_path_factory.mktemp("fleet"))


def train(fleet: Path, workdir: Path):
  return run_here("train.py", *SETTINGS, f"--source={fleet}", f"--workdir={workdir}")


@pytest.fixture(scope="module")
def whole(fleet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A run that no signal was sent to."""
  workdir = tmp_path_factory.mktemp("whole") / "run"
  succeeded(train(fleet, workdir))
  return workdir


class Training:
  """train.py in a process of its own, waited for until it does what a signal shall meet."""

  def __init__(self, fleet: Path, workdir: Path):
    self.workdir = workdir
    command = [sys.executable, str(fleets.SCRIPTS / "train.py"), *SETTINGS, f"--source={fleet}"]
    self.process = subprocess.Popen(
      [*command, f"--workdir={workdir}"],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )

  def until(self, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
      assert self.process.poll() is None, "training ended before its moment came"
      assert time.monotonic() < deadline
      time.sleep(0.0005)

  def num_rows(self) -> int:
    log = self.workdir / "metrics.jsonl"
    return log.read_text().count("\n") if log.exists() else 0

  def saving(self) -> list[str]:
    """Returns the half-made checkpoints that stand there now."""
    folder = self.workdir / "checkpoints" / "group-0"
    return [path.name for path in folder.iterdir() if not path.name.isdigit()] if folder.exists() else []

  def until_compiling(self) -> None:
    assert self.process.stdout is not None
    while "steps of 16 windows" not in (line := self.process.stdout.readline()):
      assert line, "training did not begin"
    time.sleep(0.5)

  def until_dispatch(self) -> None:
    self.until(lambda: self.num_rows() > 2)  # a header and rows; the next dispatch lasts long
    time.sleep(0.05)

  def until_saving(self) -> None:
    self.until(lambda: bool(self.saving()))

  def left(self, number: signal.Signals, since: float) -> tuple[str, str]:
    """Returns what it wrote, after asserting that it left with code 75 and wrote no traceback."""
    out, err = self.process.communicate(timeout=120)
    print(f"{number.name}: left after {time.monotonic() - since:.2f} s")
    assert self.process.returncode == 75, f"exit code {self.process.returncode}\n{out}\n{err}"
    assert "Traceback" not in err
    return out, err


def assert_resumed_as_never_stopped(fleet: Path, workdir: Path, whole: Path) -> int:
  """Returns the step it went on from; no litter before, and the same state, log and thresholds after."""
  assert [path.name for path in workdir.rglob("*") if path.name.startswith(".") or "tmp" in path.name] == []
  trees = []
  with Checkpoints(workdir / "checkpoints" / "group-0", read_only=True) as checkpoints:
    step = checkpoints.steps()[-1]
  assert f"resumed at step {step} of {LAST}" in succeeded(train(fleet, workdir)).stdout
  for folder in (workdir, whole):
    with Checkpoints(folder / "checkpoints" / "group-0", read_only=True) as checkpoints:
      assert checkpoints.steps()[-1] == LAST
      trees.append(checkpoints.read_tree(LAST))
  for a, b in zip(*map(jax.tree.leaves, trees), strict=True):
    assert a.tobytes() == b.tobytes()
  assert (workdir / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
  ends = [json.loads((folder / "calibration.json").read_text())["machines"] for folder in (workdir, whole)]
  assert ends[0] == ends[1]
  return step


def storm(training: Training, number: signal.Signals) -> None:
  """Sends the signal again and again until the process is gone, as impatient people and schedulers do."""
  deadline = time.monotonic() + 120
  while training.process.poll() is None and time.monotonic() < deadline:
    training.process.send_signal(number)
    time.sleep(0.003)


@pytest.mark.parametrize(
  "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=lambda n: n.name
)
def test_two_signals_while_the_first_step_compiles(
  fleet: Path, whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
  training = Training(fleet, tmp_path / "run")
  training.until_compiling()
  since = time.monotonic()
  training.process.send_signal(number)
  time.sleep(0.1)
  training.process.send_signal(number)
  training.left(number, since)
  assert_resumed_as_never_stopped(fleet, tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", BOTH, ids=lambda n: n.name)
@pytest.mark.parametrize("moment", [Training.until_dispatch, Training.until_saving], ids=lambda m: m.__name__)
@pytest.mark.parametrize("second", ["none", "while_it_saves", "without_end"])
def test_a_signal_in_the_middle(
  fleet: Path,
  whole: Path,
  tmp_path: Path,
  number: signal.Signals,
  moment: Callable[[Training], None],
  second: str,
) -> None:
  training = Training(fleet, tmp_path / "run")
  moment(training)
  since = time.monotonic()
  training.process.send_signal(number)
  if second == "while_it_saves":
    training.until_saving()
    training.process.send_signal(number)
  elif second == "without_end":
    storm(training, number)
  out, err = training.left(number, since)
  if second == "none":
    assert err == ""
    assert "stopped by a signal; run the same command again to go on" in out
  assert assert_resumed_as_never_stopped(fleet, tmp_path / "run", whole) >= 200


@pytest.mark.slow
def test_a_second_writer_is_refused_by_a_training_that_is_held_in_its_middle(
  fleet: Path, whole: Path, tmp_path: Path
) -> None:
  run = tmp_path / "run"
  training = Training(fleet, run)
  training.until_dispatch()
  training.process.send_signal(signal.SIGSTOP)
  try:
    before = files_of(run)
    told = f"train.py (process {training.process.pid} on "
    refused(train(fleet, run), 1, str(run), told, "is writing here; wait for it or stop it")
    for command in ("calibrate.py", "score.py"):
      done = run_here(command, f"--workdir={run}")
      assert done.code == 1
      assert len(done.stderr.splitlines()) == 1
    assert files_of(run) == before
  finally:
    since = time.monotonic()
    training.process.send_signal(signal.SIGTERM)
    training.process.send_signal(signal.SIGCONT)
  training.left(signal.SIGTERM, since)
  assert_resumed_as_never_stopped(fleet, run, whole)
