"""Every command's --help shows examples, and the examples run: as they stand, one after the other, on tiny data.

They are taken from the docstrings in the order of a day's work, in one folder with the names that they use.
"""

import ast
import shlex
from pathlib import Path
from typing import NamedTuple

import fleets
import numpy as np
import pytest
from fleets import ROOT, SCRIPTS, Done, run_here

COMMANDS = sorted(path.name for path in SCRIPTS.glob("*.py") if '__name__ == "__main__"' in path.read_text())
DAY = ("prepare", "floors", "rehearse", "train", "calibrate", "score", "evaluate", "report", "annotate", "alert")
DAY += ("inspect_checkpoint", "retrain")  # in the order in which each finds what it needs
TINY = (
  "--config.model.window_size=8",
  "--config.model.kernel_size=3",
  *(f"--config.model.{part}_size=4" for part in ("hidden", "forecast", "decoder", "latent")),
  "--config.train.window_budget=0",
  "--config.train.num_train_steps=4",
  "--config.train.batch_size=8",
  "--config.train.validate_every_steps=2",
  "--config.train.checkpoint_every_steps=2",
  "--config.train.log_every_steps=2",
  "--config.detect.min_calibration_rows=30",
)
MAPPED = {  # to what is there on a test's small folder
  "--step=200": "--step=2",
  "--compare_step=100": "--compare_step=2",
  "--prometheus=/var/lib/node_exporter/textfile_collector/mtad.prom": "--prometheus=mtad.prom",
}
NOT_RUN = {  # what stands in the example, and why it is not run here
  "--download": "fetches from the publishers; test_prepare.py fetches from a server of its own",
  "--webhook=": "needs somebody who listens; test_alert_output.py has a server",
  "--coordinator=": "several processes; test_processes.py starts them",
  "scripts/benchmark.py": "minutes of measuring; test_benchmark.py and test_benchmark_speed.py measure tiny ones",
  "scripts/reproduce.py": "whole runs of public data; test_reproduce.py runs it on two machines",
  "scripts/ablate.py": "whole runs of public data; test_ablate.py runs it on two machines",
}
SLOW = ("retrain", "runs/next", "--exclude", "--train_from", "newhosts", "roles", "smd", "--output=floors.json")


class Example(NamedTuple):
  """One line of a docstring: the script's file name, its arguments, the line itself."""

  script: str
  arguments: tuple[str, ...]
  line: str


def examples_of(script: str) -> list[Example]:
  """Returns the examples of a command's docstring, without those of other commands."""
  docstring = ast.get_docstring(ast.parse((SCRIPTS / script).read_text())) or ""
  found = []
  for line in docstring.splitlines():
    if line.startswith(f"python scripts/{script} "):
      found.append(Example(script, tuple(shlex.split(line, comments=True)[2:]), line))
  return found


def why_not(example: Example) -> str:
  """Returns why an example is not run here, nothing where it is."""
  return next((reason for part, reason in NOT_RUN.items() if part in example.line), "")


def make_folder(place: Path) -> None:
  """Makes what the examples take for given: myfleet, newdata, newhosts, ServerMachineDataset, configs, runs/live."""
  (place / "configs").symlink_to(ROOT / "configs")
  (place / "runs").mkdir()
  (place / "runs" / "live").symlink_to("mine")
  fleets.write_fleet(place / "myfleet")
  for folder, names in (("newdata", ("web-1", "web-2")), ("newhosts", ("web-1", "web-3"))):
    for name in names:
      fleets.write_csv(place / folder / "test" / f"{name}.csv", *fleets.test_split(name))
    roles = "".join(f"{name},web\n" for name in names)
    (place / folder / "roles.csv").write_text("machine,role\n" + roles)
  rng, smd = np.random.default_rng(0), place / "ServerMachineDataset"
  labels = np.zeros(300, int)
  labels[200:220] = 1
  for split, num_rows in (("train", 400), ("test", 300)):
    (smd / split).mkdir(parents=True)
    values = rng.random((num_rows, 38))
    values[num_rows - 100 : num_rows - 80] += split == "test"
    np.savetxt(smd / split / "machine-1-1.txt", values, delimiter=",", fmt="%.4f")
  (smd / "test_label").mkdir()
  np.savetxt(smd / "test_label" / "machine-1-1.txt", labels, fmt="%d")


def run_example(example: Example, *more: str) -> Done:
  """Runs an example in this process, in the folder at hand."""
  arguments = [MAPPED.get(argument, argument) for argument in example.arguments]
  return run_here(example.script, *arguments, *more, *(TINY if example.script == "train.py" else ()))


def run_in_order(examples: list[Example]) -> list[str]:
  """Returns what went wrong: a line on each example that failed."""
  failed = []
  for example in examples:
    done = run_example(example)
    if done.code or "Traceback" in done.stderr:
      failed.append(f"{example.line}\n  exit code {done.code}: {done.stderr.strip()}")
  return failed


def the_day(*, slow: bool) -> list[Example]:
  """Returns the examples that are run, in order; slow: those too that take long."""
  found = [example for name in DAY for example in examples_of(f"{name}.py") if not why_not(example)]
  return [example for example in found if slow or not any(part in example.line for part in SLOW)]


@pytest.mark.parametrize("script", COMMANDS)
def test_help_begins_with_what_it_does_and_examples(script: str) -> None:
  """No library's flags stand in the way of the command's own; those needed come first."""
  done = run_here(script, "--help")
  assert (done.code, done.stderr) == (0, "")
  text, flags = done.stdout.split("\nFlags:\n")
  lines = text.splitlines()
  assert lines[0].endswith(".")
  assert lines[1] == ""
  assert lines[2] == examples_of(script)[0].line
  assert "--log_dir" not in flags
  assert "--[no]quiet" in flags
  needed = ["(needed)" in entry for entry in flags.split("\n  --")]
  assert needed == sorted(needed, reverse=True)


def test_every_example_is_run_or_has_a_reason() -> None:
  """Nor is a reason left standing whose example has gone."""
  every = [example for script in COMMANDS for example in examples_of(script)]
  assert {example.script for example in every} == set(COMMANDS)
  assert sorted([*(e.line for e in every if why_not(e)), *(e.line for e in the_day(slow=True))]) == sorted(
    example.line for example in every
  )
  for part in [*NOT_RUN, *MAPPED, *SLOW]:
    assert any(part in example.line for example in every), part


def say_nothing(examples: list[Example]) -> list[str]:
  """Returns what was said all the same, of examples that are run again with --quiet."""
  told = []
  for example in examples:
    done = run_example(example, "--quiet")
    if (done.code, done.stdout, done.stderr) != (0, "", ""):
      told.append(f"{example.line}\n{done}")
  return told


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.chdir(tmp_path)
  make_folder(tmp_path)
  assert run_in_order(the_day(slow=False)) == []


@pytest.mark.slow
def test_the_examples_are_silent_when_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.chdir(tmp_path)
  make_folder(tmp_path)
  day = the_day(slow=False)
  assert run_in_order(day) == []
  again = [[example for example in day if example.script == f"{name}.py"] for name in DAY]
  once = [examples[0] for examples in again if examples and examples[0].script != "floors.py"]
  (tmp_path / "runs" / "mine" / "calibration.json").unlink()  # training is taken up where nothing is left but this
  assert say_nothing(once) == []
  assert (tmp_path / "runs" / "mine" / "calibration.json").exists()


@pytest.mark.slow
def test_all_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.chdir(tmp_path)
  make_folder(tmp_path)
  assert run_in_order(the_day(slow=True)) == []
