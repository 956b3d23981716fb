"""Damage as a user meets it: what the commands say of it, with which code, and that the run goes on bit-equal."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import fleets
import jax
import pytest
from fleets import TINY, files_of, refused, run_here, succeeded

from mtad_jax.train.checkpoints import Checkpoints
from mtad_jax.train.writer_lock import writer_lock

LAST, BEFORE = 60, 40
SETTINGS = (*TINY, f"--config.train.num_train_steps={LAST}", "--config.train.checkpoint_every_steps=20")


def train(fleet: Path, workdir: Path, *more: str):
  return run_here("train.py", *SETTINGS, f"--source={fleet}", f"--workdir={workdir}", *more)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
  return fleets.write_fleet(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="module")
def whole(fleet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A run that nothing ever happened to."""
  workdir = tmp_path_factory.mktemp("whole") / "run"
  succeeded(train(fleet, workdir))
  return workdir


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
  return Path(shutil.copytree(whole, tmp_path / "run"))


def newest(run: Path) -> Path:
  return run / "checkpoints" / "group-0" / str(LAST)


def array_files(run: Path) -> list[Path]:
  return [path for path in (newest(run) / "state").glob("*/d/*") if path.stat().st_size > 1000]


def truncate(run: Path) -> None:
  for path in array_files(run):
    path.write_bytes(path.read_bytes()[:100])


def flip(run: Path) -> None:
  for path in array_files(run):
    content = bytearray(path.read_bytes())
    for place in range(500, len(content), 1000):
      content[place] ^= 0x10
    path.write_bytes(content)


def drop_manifest(run: Path) -> None:
  (newest(run) / "state" / "manifest.ocdbt").unlink()


def drop_about(run: Path) -> None:
  shutil.rmtree(newest(run) / "about")


def empty(run: Path) -> None:
  for path in newest(run).rglob("*"):
    if path.is_file():
      path.write_bytes(b"")


def delete_half(run: Path) -> None:
  for path in (newest(run) / "state").iterdir():
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def assert_as_never_damaged(run: Path, whole: Path) -> None:
  """The newest state, the log and the thresholds are those of the run that nothing happened to; no litter."""
  trees = []
  for workdir in (run, whole):
    with Checkpoints(workdir / "checkpoints" / "group-0", read_only=True) as checkpoints:
      assert checkpoints.steps()[-1] == LAST
      trees.append(checkpoints.read_tree(LAST))
  for a, b in zip(*map(jax.tree.leaves, trees), strict=True):
    assert a.tobytes() == b.tobytes()
  assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
  ends = [json.loads((workdir / "calibration.json").read_text())["machines"] for workdir in (run, whole)]
  assert ends[0] == ends[1]
  assert litter(run) == []


def litter(run: Path) -> list[str]:
  """Returns hidden and temporary files."""
  return [str(path) for path in run.rglob("*") if path.name.startswith(".") or "tmp" in path.name]


@pytest.mark.parametrize("damage", [truncate, flip, empty, drop_manifest, drop_about, delete_half])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
  run: Path, whole: Path, fleet: Path, damage: Callable[[Path], None]
) -> None:
  damage(run)
  before = files_of(run)
  refused(run_here("score.py", f"--workdir={run}"), 1, "group-0", f"step {LAST}")
  shown = run_here("inspect_checkpoint.py", f"--workdir={run}", "--verify")
  assert f"{LAST}" in shown.stdout
  assert "DAMAGED" in shown.stdout
  assert files_of(run) == before
  done = succeeded(train(fleet, run))
  (told,) = [line for line in done.stdout.splitlines() if "set aside" in line]
  assert f"set aside as {LAST}.damaged, step {BEFORE} is used" in told
  assert "group-0: step 60" in told
  assert f"resumed at step {BEFORE} of {LAST}" in done.stdout
  assert (newest(run).parent / f"{LAST}.damaged").is_dir()
  assert_as_never_damaged(run, whole)


METADATA = ("_CHECKPOINT_METADATA", "about/metadata", "state/_METADATA", "state/manifest.ocdbt")


def test_each_missing_file_of_metadata_is_named_by_every_command(run: Path, fleet: Path) -> None:
  for name in METADATA:
    before = files_of(run)
    hidden = (newest(run) / name).rename(run.parent / "hidden")
    told = f"group-0: step {LAST}: {name} is missing"
    refused(run_here("score.py", f"--workdir={run}"), 1, told)
    shown = run_here("inspect_checkpoint.py", f"--workdir={run}").stdout
    assert "DAMAGED: " in shown
    assert told in shown
    hidden.rename(newest(run) / name)
    assert files_of(run) == before


def test_calibrating_with_the_step_before_a_damaged_one_warns_and_can_be_scored(run: Path) -> None:
  drop_manifest(run)
  before = files_of(run)
  done = run_here("calibrate.py", f"--workdir={run}")
  assert done.code == 0
  (line,) = done.stderr.splitlines()
  assert line.startswith(f"warning: step {LAST} is passed over: ")
  assert f"group-0: step {LAST}: state/manifest.ocdbt is missing" in line
  after = files_of(run)
  assert [name for name in after if after[name] != before.get(name)] == ["calibration.json"]
  assert set(after) == set(before)
  succeeded(run_here("score.py", f"--workdir={run}"))


def test_an_empty_folder_named_like_a_step_is_none(run: Path, whole: Path, fleet: Path) -> None:
  shutil.rmtree(newest(run))
  newest(run).mkdir()
  done = succeeded(train(fleet, run))
  assert "step 60 is an empty folder; set aside as 60.damaged, step 40 is used" in done.stdout
  assert_as_never_damaged(run, whole)


def test_all_damaged_is_told_and_nothing_is_started_over(run: Path, fleet: Path) -> None:
  for step in (20, BEFORE, LAST):
    shutil.rmtree(newest(run).parent / str(step) / "state")
  before = files_of(run)
  refused(train(fleet, run), 1, "no step is intact", "step 20", f"step {LAST}", "remove the folder to start over")
  assert files_of(run) == before


def rewrite_about(folder: Path, **changes: object) -> None:
  """Changes what a step says of itself, as an editor would."""
  (path,) = [path for path in (folder / "about").iterdir() if '"format"' in path.read_text()]
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_checkpoint_of_a_newer_version(run: Path, fleet: Path) -> None:
  rewrite_about(newest(run), format=99)
  before = files_of(run)
  told = "written by a newer version"
  refused(train(fleet, run), 1, str(newest(run).parent), told, "update mtad_jax")
  refused(run_here("score.py", f"--workdir={run}"), 1, told)
  refused(run_here("calibrate.py", f"--workdir={run}"), 1, told)
  assert files_of(run) == before


@pytest.mark.parametrize("hidden", [8, 9])
def test_a_checkpoint_of_another_run(run: Path, fleet: Path, tmp_path: Path, hidden: int) -> None:
  """Of the same sizes, which fit, and of others."""
  other = tmp_path / "other"
  succeeded(train(fleet, other, f"--config.model.hidden_size={hidden}"))
  shutil.rmtree(run / "checkpoints")
  shutil.copytree(other / "checkpoints", run / "checkpoints")
  before = files_of(run)
  told = "a checkpoint of run" if hidden == 8 else "this config needs"
  refused(train(fleet, run), 1, str(newest(run)), told)
  assert files_of(run) == before


def test_a_work_directory_of_another_config(run: Path, fleet: Path) -> None:
  before = files_of(run)
  refused(train(fleet, run, "--config.model.hidden_size=9"), 1, "model.hidden_size is 9, there 8", "--workdir")
  assert files_of(run) == before


def test_a_second_writer_is_refused(run: Path, fleet: Path) -> None:
  with writer_lock(run, "train.py"):
    before = files_of(run)
    told = f"train.py (process {os.getpid()} on "
    refused(train(fleet, run), 1, str(run), told, "is writing here; wait for it or stop it")
    refused(run_here("calibrate.py", f"--workdir={run}"), 1, told)
    refused(run_here("score.py", f"--workdir={run}"), 1, told)
    assert files_of(run) == before
    succeeded(run_here("score.py", f"--workdir={run}", f"--output={run.parent / 'elsewhere'}"))
    succeeded(run_here("inspect_checkpoint.py", f"--workdir={run}"))
  succeeded(run_here("score.py", f"--workdir={run}"))


def test_what_killed_programs_leave_is_swept(run: Path, whole: Path, fleet: Path) -> None:
  (run / ".config.json.0123abcd").write_text("{")
  (run / ".scores.0123abcd.parquet").write_bytes(b"PAR1")
  half = newest(run).parent / "80.orbax-checkpoint-tmp"
  half.mkdir()
  (half / "d").write_bytes(b"x")
  done = succeeded(train(fleet, run))
  assert "removed .config.json.0123abcd, left by a program that was killed" in done.stdout
  assert_as_never_damaged(run, whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[str], None]]]:
  """A disk of 1 MiB in memory and what remounts it with other options."""
  place = tmp_path / "disk"
  place.mkdir()
  command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
  try:
    subprocess.run(command, check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError):
    pytest.skip("mounting a file system is not permitted here")
  try:
    yield place, lambda options: (
      subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True),
      None,
    )[1]
  finally:
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
  small_disk: tuple[Path, Callable[[str], None]], fleet: Path, whole: Path
) -> None:
  place, remount = small_disk
  needed = sum(len(content) for content in files_of(whole / "checkpoints").values()) // 3
  remount(f"size={(2 * needed + 500_000) // 4096 * 4}k")  # two fit, the third does not
  told = refused(train(fleet, place / "run"), 1, "group-0: step ", "was not written: no space left on device")
  assert "stays the newest" in told
  assert litter(place) == []
  with Checkpoints(place / "run" / "checkpoints" / "group-0", read_only=True) as checkpoints:
    checkpoints.read_tree(checkpoints.steps()[-1])
  remount("size=20m")
  done = succeeded(train(fleet, place / "run"))
  assert "resumed at step " in done.stdout
  assert_as_never_damaged(place / "run", whole)


def test_a_read_only_disk_is_one_line(
  small_disk: tuple[Path, Callable[[str], None]], fleet: Path, whole: Path
) -> None:
  place, remount = small_disk
  remount("size=20m")
  shutil.copytree(whole, place / "run")
  before = files_of(place / "run")
  remount("ro")
  refused(train(fleet, place / "run"), 1, str(place / "run"), "Read-only file system")
  refused(run_here("score.py", f"--workdir={place / 'run'}"), 1, str(place / "run"), "Read-only file system")
  succeeded(run_here("inspect_checkpoint.py", f"--workdir={place / 'run'}"))
  assert files_of(place / "run") == before


def test_every_machine_retired_is_code_3_and_scored_all_the_same(fleet: Path, tmp_path: Path) -> None:
  bad = ("--config.train.learning_rate=1e30", "--config.train.clip_gradients=0", "--config.train.max_rollbacks=0")
  done = train(fleet, tmp_path / "run", *bad)
  assert (done.code, done.stderr) == (3, "")
  for name in ("db-1", "web-1", "web-2"):
    assert f"{name}: 5 steps skipped, retired at step " in done.stdout
  assert "every machine is retired" in done.stdout
  scored = succeeded(run_here("score.py", f"--workdir={tmp_path / 'run'}"))
  assert "web-1: retired at its state of step " in scored.stdout
  shown = succeeded(run_here("report.py", f"--workdir={tmp_path / 'run'}"))
  assert "report.html" in shown.stdout
  page = (tmp_path / "run" / "report.html").read_text()
  assert "etired" in page
