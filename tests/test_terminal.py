"""What a person sees: bars and colour on a terminal alone, tables of one screen, --quiet and --verbose."""

import contextlib
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import machine_summary
import numpy as np
import pytest
import score_summary
import terminal
import tiny
from absl import flags
from fleets import SCRIPTS
from terminal import Row, aligned, first_lines, table_lines

from mtad_jax.data.fleet import prepare_groups
from mtad_jax.detect.alive import KINDS, Alive
from mtad_jax.detect.calibrate_run import CalibratedRun
from mtad_jax.detect.calibration import Check, MachineCalibration, WarningLevel
from mtad_jax.detect.pot import PotFit
from mtad_jax.train.loop import Outcome

SCREEN = 20  # lines
COMMAND = f'''
"""A command that takes its time."""
import sys, time
PAUSE_S = 0.05 if sys.stderr.isatty() else 0  # longer in all than a bar waits before it is shown
sys.path.insert(0, {str(SCRIPTS)!r})
from absl import flags
from program import run
from terminal import Row, meter, notice, say, table_lines, track

FAIL = flags.DEFINE_bool("fail", False, "in the middle")

def main():
  for item in track(range(30), "counting"):
    time.sleep(PAUSE_S)
    if FAIL.value and item == 28:
      raise ValueError("row 28: no number")
  with meter("elsewhere") as tell:
    for done in range(0, 31, 10):
      time.sleep(7 * PAUSE_S)
      tell(done, 30)
  rows = [Row((f"machine-{{i}}", str(i), "why " * 12), i == 0) for i in range(40)]
  print("\\n".join(table_lines(("machine", "loss", "remarks"), rows, "FILE")))
  say("the end")
  notice("look here")

if __name__ == "__main__":
  run(main)
'''


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
  path = tmp_path_factory.mktemp("command") / "command.py"
  path.write_text(COMMAND)
  return path


@pytest.fixture
def parsed() -> Iterator[None]:
  """The flags at their defaults, as in a command that was given none."""
  flags.FLAGS.mark_as_parsed()
  yield
  flags.FLAGS.unparse_flags()


def in_pipes(command: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
  whole = [sys.executable, str(command), *arguments]
  return subprocess.run(whole, capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "60"})


def on_a_terminal(command: Path, *arguments: str, columns: int = 60, **environment: str) -> tuple[int, str]:
  """Returns (exit code, all that a terminal of so many columns is sent)."""
  here, there = pty.openpty()
  termios.tcsetwinsize(there, (24, columns))
  kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
  process = subprocess.Popen(
    [sys.executable, str(command), *arguments],
    stdin=there,
    stdout=there,
    stderr=there,
    env={**kept, "TERM": "xterm", **environment},
  )
  os.close(there)
  sent = b""
  with contextlib.suppress(OSError):  # Linux' way to say that the other end is closed
    while part := os.read(here, 65536):
      sent += part
  os.close(here)
  return process.wait(60), sent.decode()


def test_on_a_terminal_there_are_bars_with_the_time_left_and_colour(command: Path) -> None:
  code, sent = on_a_terminal(command)
  assert code == 0
  assert re.search(r"counting: +\d+%\|.*\| 2\d/30 \[00:01<00:00\]", sent)
  assert re.search(r"elsewhere: +67%\|.*\| 20/30 \[", sent)
  assert "\x1b[1mmachine" in sent
  assert len(re.findall(r"\x1b\[31mmachine-0 ", sent)) == sent.count("\x1b[31m") == 1
  plain = re.sub(r"\x1b\[[0-9;]*m", "", sent).split("machine ", 1)[1]
  lines = ("machine " + plain).splitlines()
  assert max(map(len, lines)) <= 60
  assert lines[1].endswith("…")
  assert len(lines) <= SCREEN
  assert "and 26 more; FILE has them all" in plain


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_where_none_is_wanted(command: Path, environment: dict[str, str]) -> None:
  code, sent = on_a_terminal(command, **environment)
  assert code == 0
  assert "counting: " in sent
  assert not re.search(r"\x1b\[[0-9;]*m", sent)


def test_pipes_get_lines_and_no_bars(command: Path) -> None:
  done = in_pipes(command)
  assert (done.returncode, done.stderr) == (0, "")
  lines = done.stdout.splitlines()
  assert lines[0].split() == ["machine", "loss", "remarks"]
  assert lines[1] == "machine-0      0  " + ("why " * 12).strip()
  assert lines[-3:] == ["and 26 more; FILE has them all (--verbose prints them)", "the end", "look here"]
  assert "\x1b" not in done.stdout
  assert len(in_pipes(command, "--verbose").stdout.splitlines()) == 43


def test_quiet_leaves_errors_and_warnings(command: Path) -> None:
  done = in_pipes(command, "--quiet")
  assert (done.returncode, done.stdout, done.stderr) == (0, "", "warning: look here\n")
  assert on_a_terminal(command, "--quiet") == (0, "warning: look here\r\n")
  done = in_pipes(command, "--quiet", "--fail")
  assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: row 28: no number\n")
  done = in_pipes(command, "--quiet", "--verbose")
  assert (done.returncode, done.stderr) == (2, "error: --quiet and --verbose: one of them, not both\n")


def test_a_failure_stands_on_a_line_of_its_own(command: Path) -> None:
  """The bar that ran is wiped out before it."""
  code, sent = on_a_terminal(command, "--fail")
  assert code == 1
  assert "counting: " in sent
  last = sent.rstrip("\r\n").split("\r")[-1].lstrip("\n")
  assert last == "error: row 28: no number"


def test_tables_are_aligned_by_what_their_columns_hold() -> None:
  rows = [("name", "share", "why"), ("a", "5.00%", "x"), ("bcd", "12.50%", "-"), ("e", "-", "long")]
  assert aligned(rows) == ["name   share  why", "a      5.00%  x", "bcd   12.50%  -", "e          -  long"]


@pytest.mark.usefixtures("parsed")
@pytest.mark.parametrize("num", [0, 1, 14, 15, 200])
def test_a_table_is_one_screen_whatever_the_fleet(num: int) -> None:
  lines = table_lines(("machine", "x"), [Row((f"m{i}", str(i))) for i in range(num)], "FILE")
  shown = min(num, terminal.MOST_ROWS)
  assert [line.split()[0] for line in lines[1 : 1 + shown]] == [f"m{i}" for i in range(shown)]
  told = [f"and {num - shown} more; FILE has them all (--verbose prints them)"] if num > shown else []
  assert lines[1 + shown :] == told
  assert first_lines([str(i) for i in range(num)], "FILE") == [*map(str, range(shown)), *told]


def calibrated(names: list[str], dead: str, alarms: dict[str, int]) -> CalibratedRun:
  """Returns the calibrations of machines that promise 2 alarms each; fields that no summary reads are empty."""
  fit = PotFit(5.0, 4.0, 100, 8, 4, 0.1, 1.0, 4.5, 5.5, 10.0, 5.0, "likelihood", "ok", 0.01)
  none: Any = None
  injected = dict.fromkeys(KINDS, 3)
  machines, alive = {}, {}
  for name in names:
    check = Check(200, alarms.get(name, 2), alarms.get(name, 2), 2.0, 2.0)
    held = WarningLevel(5.0, fit, check) if name == "held" else None
    fields = (none, none, none, none, 4.0, 5.0, fit, 100, "", check, held)
    machines[name] = MachineCalibration(*fields)
    alive[name] = Alive(injected, dict.fromkeys(KINDS, 0 if name == dead else 2))
  return CalibratedRun(machines, alive, {}, [])


@pytest.mark.usefixtures("parsed")
def test_the_summary_of_training_puts_the_worst_first() -> None:
  names = [f"m{i}" for i in range(40)] + ["held"]
  run = calibrated(names, dead="m7", alarms={"m9": 30})
  skipped, back = {**dict.fromkeys(names, 0), "m5": 4, "m6": 3}, {**dict.fromkeys(names, 0), "m6": 1}
  loss = {**{name: 1 + i / 100 for i, name in enumerate(names)}, "m3": float("inf")}
  retired = {name: name == "m3" for name in names}
  outcome = Outcome(100, True, skipped, back, retired, loss, dict.fromkeys(names, 50))
  lines = machine_summary.summary_lines(run, "runs/mine", [outcome])
  assert [line.split()[0] for line in lines[1:7]] == ["m3", "m6", "m5", "m7", "m9", "held"]
  assert "not finite" in lines[1]
  assert "RETIRED" in lines[1]
  assert "NO FAULT" in lines[4]
  assert "HELD DOWN" in lines[6]
  assert lines[5].split()[-2:] == ["30", "2"]
  assert "and 27 more; runs/mine/calibration.json has them all" in "\n".join(lines)
  assert any("NOT ONE on m7" in line for line in lines)
  assert len(lines) <= SCREEN
  alone = machine_summary.summary_lines(run, "runs/mine")
  assert [line.split()[0] for line in alone[1:3]] == ["m7", "m9"]
  assert "best loss" not in alone[0]


@pytest.mark.usefixtures("parsed")
def test_the_summary_of_scoring_puts_the_worst_first() -> None:
  far = (("cpu", 0.2), ("disk", 0.1))
  lines = [score_summary.Line(f"m{i}", 50, 40, i / 10, 0.01, f"{i} events", "cpu 60%", far) for i in range(30)]
  lines.append(score_summary.Line("empty", 5, 0, float("nan"), 0.0, "0 events", "-", ()))
  told = score_summary.summary_lines(lines, "scores.parquet")
  assert told[1].split() == ["m29", "50", "40", "29", "2.90", "1.00%", "cpu", "60%", "cpu", "20%,", "disk", "10%"]
  assert told[-1].startswith("and 17 more; scores.parquet has them all")
  assert len(told) <= SCREEN
  assert score_summary.summary_lines(lines[-1:], "x")[1].split() == ["empty", "5", "0", "0", "-", "0.00%", "-"]
  assert score_summary.full_line(lines[3]) == (
    "m3: 50 rows, 40 scored, 3 events, 1.00% of rows above the threshold;"
    " outside the training range: cpu 20%, disk 10%"
  )


def test_a_stage_is_the_same_watched_or_not() -> None:
  """Who watches sees every machine once, in order."""
  seen: list[tuple[str, list[Any]]] = []

  def watch(items: Collection[Any], what: str) -> Iterable[Any]:
    seen.append((what, []))
    for item in items:
      seen[-1][1].append(item.name)
      yield item

  machines = [tiny.make_machine(f"machine-{i}", 200, seed=i) for i in range(3)]
  config = tiny.make_config()
  (watched,), (alone,) = prepare_groups(machines, config, watch), prepare_groups(machines, config)
  assert seen == [("preparing", ["machine-0", "machine-1", "machine-2"])]
  for here, there in zip(watched.machines, alone.machines, strict=True):
    np.testing.assert_array_equal(here.train.values, there.train.values)
