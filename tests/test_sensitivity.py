"""Two levels of events, each by its expected alarms a week: what a preview tells is what is raised on those rows."""

import json
import re
import shutil
from pathlib import Path

import fleets
import numpy as np
import pyarrow.parquet as pq
import pytest
from fleets import TINY, WEB, read_table, refused, run_here, succeeded

NAMES = ("db-1", "web-1")
NUM_ROWS, WEEK_ROWS = 1200, 168  # one an hour
FAULTS = {"db-1": ((1070, 3, 25.0), (1140, 1, 60.0)), "web-1": ((1050, 2, 20.0), (1056, 2, 45.0), (1185, 15, 30.0))}
COUNTS = r"(\d+) events \((\d+) critical, (\d+) warning\)"
SHAPES = {
  "plain": (),
  "shaped": ("--alarm_checks=2", "--alarm_window_checks=4", "--release_ratio=0.6", "--cooldown_rows=8"),
  "merged": ("--merge_gap_rows=3", "--min_event_rows=2"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A run of two machines with faults in their held-out rows, which its thresholds have seen too."""
  root = tmp_path_factory.mktemp("sensitivity")
  hours = np.datetime64(fleets.START, "ms") + np.arange(NUM_ROWS + 40) * np.timedelta64(1, "h")
  for name in NAMES:
    values = fleets.series(WEB, NUM_ROWS + 40, seed=len(name))
    for start, length, change in FAULTS[name]:
      values[start : start + length, 0] += change
    for split, rows in (("train", slice(0, NUM_ROWS)), ("test", slice(NUM_ROWS, None))):
      fleets.write_csv(root / "fleet" / split / f"{name}.csv", WEB, values[rows], hours[rows])
  steps = ("--config.train.num_train_steps=10", "--config.detect.min_calibration_rows=100")
  succeeded(run_here("train.py", *TINY, *steps, f"--source={root / 'fleet'}", f"--workdir={root / 'run'}"))
  return root / "run"


def told(stdout: str) -> dict[str, list[tuple[str, int, int]]]:
  """Returns a preview's events by machine, (level, first row, last row), after holding them against its counts."""
  found: dict[str, list[tuple[str, int, int]]] = {}
  name = ""
  for line in stdout.splitlines():
    if head := re.match(rf"^(\S+): {COUNTS} in its last 7\.0 held-out days$", line):
      name, *counts = head.groups()
      found[name] = []
    elif event := re.match(r"^  (critical|warning), rows (\d+) to (\d+) \(\S+ to \S+\), .+ times the thr", line):
      found[name].append((event[1], int(event[2]), int(event[3])))
    elif total := re.match(rf"^2 machines: {COUNTS}$", line):
      levels = [level for events in found.values() for level, *_ in events]
      wanted = (len(levels), levels.count("critical"), levels.count("warning"))
      assert tuple(map(int, total.groups())) == wanted
      return found
    if name:
      levels = [level for level, *_ in found[name]]
      done = (len(levels), levels.count("critical"), levels.count("warning"))
      assert all(have <= int(count) for have, count in zip(done, counts, strict=True))
  raise AssertionError(f"no sum in {stdout}")


@pytest.mark.parametrize("shape", ["plain", "shaped", pytest.param("merged", marks=pytest.mark.slow)])
def test_a_preview_tells_the_events_that_are_then_raised(run: Path, tmp_path: Path, shape: str) -> None:
  workdir = Path(shutil.copytree(run, tmp_path / "run"))
  before = fleets.files_of(workdir)
  flags = (f"--workdir={workdir}", "--sensitivity=normal", "--warning=sensitive", *SHAPES[shape])
  preview = succeeded(run_here("calibrate.py", *flags, "--preview", "--verbose"))
  assert fleets.files_of(workdir) == before
  previewed = told(preview.stdout)
  succeeded(run_here("calibrate.py", *flags))
  scoring = succeeded(run_here("score.py", f"--workdir={workdir}", "--split=train", "--verbose"))
  assert re.search(rf"^web-1: 1200 rows, \d+ scored, {COUNTS},", scoring.stdout, re.MULTILINE)
  events = read_table(workdir / "scores" / "train" / "events.parquet")
  raised: dict[str, list[tuple[str, int, int]]] = {name: [] for name in NAMES}
  columns = [events[name] for name in ("machine", "level", "start_row", "end_row")]
  for machine, level, start, end in zip(*columns, strict=True):
    if start >= NUM_ROWS - WEEK_ROWS:
      raised[machine].append((level, start, end - 1))
  assert previewed == raised
  levels = [level for own in raised.values() for level, *_ in own]
  assert min(levels.count("critical"), levels.count("warning")) > 0


def test_levels_follow_the_two_thresholds(run: Path, tmp_path: Path) -> None:
  workdir = Path(shutil.copytree(run, tmp_path / "run"))
  succeeded(run_here("calibrate.py", f"--workdir={workdir}", "--sensitivity=normal", "--warning=sensitive"))
  stored = json.loads((workdir / "calibration.json").read_text())
  assert (stored["detect"]["sensitivity"], stored["detect"]["warning"]) == ("normal", "sensitive")
  for entry in stored["machines"].values():
    assert entry["warning"]["threshold"] < entry["threshold"]
    assert entry["pot"]["expected_alarms_per_week"] == pytest.approx(0.25)
    assert entry["warning"]["pot"]["expected_alarms_per_week"] == pytest.approx(7.0)
    assert entry["warning"]["check"]["num_alarm_rows"] >= entry["check"]["num_alarm_rows"]
  shown = succeeded(run_here("inspect_checkpoint.py", f"--workdir={workdir}")).stdout
  assert all(f"{name}: warning above " in shown for name in NAMES)
  succeeded(run_here("score.py", f"--workdir={workdir}", "--split=train"))
  folder = workdir / "scores" / "train"
  scores, events = read_table(folder / "scores.parquet"), read_table(folder / "events.parquet")
  assert pq.read_schema(folder / "scores.parquet").names[-1] == "threshold_warning"
  covered = np.zeros(len(scores["row"]), bool)
  for i, name in enumerate(events["machine"]):
    rows = (scores["machine"] == name) & (scores["row"] >= events["start_row"][i])
    rows &= scores["row"] < events["end_row"][i]
    covered |= rows
    assert events["level"][i] == ("critical" if scores["is_anomaly"][rows].any() else "warning")
    assert (events["severity"][i] > 0) == (events["level"][i] == "critical")
  above = scores["valid"] & (scores["score"] > scores["threshold_warning"])
  assert above.sum() > scores["is_anomaly"].sum() > 0
  assert not (above & ~covered).any()
  np.testing.assert_array_equal(scores["is_anomaly"], scores["valid"] & (scores["score"] > scores["threshold"]))
  lines, text = tmp_path / "events.jsonl", tmp_path / "mtad.prom"
  outlets = (f"--scores={folder}", f"--jsonl={lines}", f"--prometheus={text}")
  succeeded(run_here("alert.py", f"--workdir={workdir}", *outlets))
  told = [json.loads(line) for line in lines.read_text().splitlines()]
  assert sorted(event["event_id"] for event in told) == sorted(events["event_id"])
  assert {event["run_id"] for event in told} == {json.loads((workdir / "run.json").read_text())["run_id"]}
  assert f'mtad_valid{{machine="{NAMES[0]}"}} 1.0' in text.read_text().splitlines()


def test_without_warnings_every_event_is_critical_and_a_given_rate_goes_before_a_sensitivity(
  run: Path, tmp_path: Path
) -> None:
  succeeded(run_here("score.py", f"--workdir={run}", "--split=train", f"--output={tmp_path / 'plain'}"))
  events = read_table(tmp_path / "plain" / "events.parquet")
  assert set(events["level"]) == {"critical"}
  assert np.isnan(np.array(read_table(tmp_path / "plain" / "scores.parquet")["threshold_warning"], float)).all()
  assert "warning" not in json.loads((run / "calibration.json").read_text())["machines"]["web-1"]
  workdir = Path(shutil.copytree(run, tmp_path / "run"))
  succeeded(run_here("calibrate.py", f"--workdir={workdir}", "--sensitivity=insensitive"))
  high = json.loads((workdir / "calibration.json").read_text())
  succeeded(run_here("calibrate.py", f"--workdir={workdir}", "--alarms_per_week=2"))
  given = json.loads((workdir / "calibration.json").read_text())
  assert given["detect"]["sensitivity"] == "given"
  for name in NAMES:
    assert given["machines"][name]["pot"]["expected_alarms_per_week"] == pytest.approx(2.0)
    assert given["machines"][name]["threshold"] < high["machines"][name]["threshold"]
  wrong = {
    "--warning=loud": "config.detect.warning: 'loud' is not allowed; choose one of off, sensitive",
    "--release_ratio=1.5": "config.detect.release_ratio: 1.5 is out of range",
    "--alarm_checks=2": "config.detect.alarm_checks: 2 of alarm_window_checks 1",
  }
  for flag, message in wrong.items():
    refused(run_here("calibrate.py", f"--workdir={workdir}", flag), 2, message)


def test_a_warning_threshold_is_never_above_the_critical_one_and_says_so(run: Path) -> None:
  """Half of all rows are promised to be critical, which no rate of warnings reaches."""
  flags = ("--pot_q=0.5", "--warning=insensitive", "--preview", "--verbose")
  done = succeeded(run_here("calibrate.py", f"--workdir={run}", *flags))
  lines = done.stdout.splitlines()
  held = [line for line in lines if "HELD DOWN to the critical threshold" in line]
  for kind in ("  warning: ", *(f"{name} " for name in NAMES)):  # in full, and among the table's remarks
    assert any(line.startswith(kind) for line in held), kind
  assert all(level == "critical" for events in told(done.stdout).values() for level, *_ in events)
