"""The commands end to end on a fleet folder made by hand: train, score, evaluate, report, inspect; resuming."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fleets
import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from fleets import (
  GAP_SLOTS,
  GAP_START,
  NUM_STEPS,
  NUM_TEST,
  TINY,
  WEB,
  WINDOW,
  Trained,
  of_machine,
  read_table,
  refused,
  run_here,
  run_process,
  succeeded,
)

from mtad_jax.train.checkpoints import Checkpoints
from mtad_jax.train.metrics_log import read_metrics

NAMES = ("db-1", "web-1", "web-2")  # the reader's order
MAX_FILLED = 0.5  # config.data.max_filled_share
COMMANDS = sorted(path.name for path in fleets.SCRIPTS.glob("*.py") if "__main__" in path.read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
  """Trained in a process of its own that says nothing on stderr, and scored with every metric's scores."""
  root = tmp_path_factory.mktemp("trained")
  fleet = fleets.write_fleet(root / "fleet")
  arguments = (*TINY, "--verbose", f"--source={fleet}", f"--workdir={root / 'run'}")
  done = succeeded(run_process("train.py", *arguments))
  succeeded(run_process("score.py", f"--workdir={root / 'run'}", "--all_metric_scores", "--export=original"))
  return Trained(fleet, root / "run", done.stdout)


def last_state(workdir: Path) -> tuple[int, dict]:
  """Returns the newest checkpoint's step and tree."""
  checkpoints = Checkpoints(workdir / "checkpoints" / "group-0", read_only=True)
  try:
    step = checkpoints.steps()[-1]
    return step, checkpoints.read_tree(step)
  finally:
    checkpoints.close()


def bit_equal(left: dict, right: dict) -> bool:
  pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
  return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)


def expected_valid(name: str) -> np.ndarray:
  """Returns which test rows must be scored, by the rule on missing values, a slot at a time."""
  split = fleets.test_split(name)
  slots = np.round((split.timestamps - split.timestamps[0]) / np.timedelta64(60, "s")).astype(int)
  seen = np.zeros((slots[-1] + 1, len(split.metrics)), bool)
  seen[slots] = ~np.isnan(split.values)
  valid = [slot >= WINDOW and np.mean(~seen[slot - WINDOW : slot + 1]) <= MAX_FILLED for slot in slots]
  return np.array(valid)


def test_training_says_what_it_found(trained: Trained) -> None:
  assert "3 machines, 5 metrics, 5 scored" in trained.stdout
  assert "web-1 (web): 400 rows; 412 on the grid" in trained.stdout
  assert "1 counters: requests" in trained.stdout
  assert "1 constant: disk_size" in trained.stdout
  assert f"step {NUM_STEPS}; lowest validation loss" in trained.stdout
  assert "web-2: threshold " in trained.stdout
  rows = [row for row in read_metrics(trained.workdir) if not row.get("header")]
  assert [row["step"] for row in rows] == list(range(5, NUM_STEPS + 1, 5))
  assert all(len(row["loss"]) == 3 and np.isfinite(row["loss"]).all() for row in rows)
  assert rows[-1]["validation_loss"][1] < rows[3]["validation_loss"][1]  # it learns


def test_every_row_is_scored_or_says_why(trained: Trained) -> None:
  scores = read_table(trained.workdir / "scores.parquet")
  assert list(scores["machine"]) == [name for name in NAMES for _ in range(NUM_TEST)]
  for name in NAMES:
    rows, split = of_machine(scores, name), fleets.test_split(name)
    np.testing.assert_array_equal(rows["row"], np.arange(NUM_TEST))
    np.testing.assert_array_equal(rows["timestamp"], split.timestamps)
    np.testing.assert_array_equal(rows["label"], split.labels)
    valid = expected_valid(name)
    assert not valid[:WINDOW].any()
    assert valid.sum() == NUM_TEST - WINDOW - (
      4 if name == "web-2" else 0
    )  # 4 rows after the missing stretch
    np.testing.assert_array_equal(rows["valid"], valid)
    for column in (
      "score",
      "score_ratio",
      "score_joint",
      "score_standardised",
      "score_surprise",
      "score_gamma",
      "score_raw",
    ):
      np.testing.assert_array_equal(np.isfinite(rows[column]), valid, err_msg=column)
    assert np.unique(rows["threshold"]).size == 1
    assert rows["threshold"][0] > 0
    np.testing.assert_array_equal(rows["score_ratio"], rows["score"] / rows["threshold"])
    np.testing.assert_array_equal(rows["is_anomaly"], valid & (rows["score"] > rows["threshold"]))
    assert rows["is_anomaly"][fleets.LABELLED].any()  # far outside anything in training


def test_tables_say_where_they_come_from(trained: Trained) -> None:
  run_id = json.loads((trained.workdir / "run.json").read_text())["run_id"]
  for name in ("scores", "metric_scores", "events", "segments"):
    about = pq.read_schema(trained.workdir / f"{name}.parquet").metadata
    assert about[b"run_id"].decode() == run_id
    assert about[b"schema_version"] == b"4"


def test_events_lie_inside_the_rows_and_their_causes_sum_to_one(trained: Trained) -> None:
  scores, events = (read_table(trained.workdir / f"{name}.parquet") for name in ("scores", "events"))
  assert len(events["event_id"]) == len(set(events["event_id"])) > 0
  covered = np.zeros(len(scores["row"]), bool)
  for i, name in enumerate(events["machine"]):
    start, end = int(events["start_row"][i]), int(events["end_row"][i])
    rows = of_machine(scores, name)
    assert 0 <= start < end <= NUM_TEST
    assert rows["is_anomaly"][start]
    assert rows["is_anomaly"][end - 1]
    assert events["peak"][i] == np.nanmax(rows["score"][start:end])
    assert 0 <= events["severity"][i] <= 1
    assert (events["start"][i], events["end"][i]) == (rows["timestamp"][start], rows["timestamp"][end - 1])
    causes = events["contributors"][i]
    assert {cause["metric"] for cause in causes} <= set(WEB)
    assert all(cause["contribution"] > 0 for cause in causes)
    assert not causes or sum(cause["contribution"] for cause in causes) == pytest.approx(1, abs=1e-9)
    changes = events["attention_change"][i]  # of the inputs, all five of them
    assert {change["metric"] for change in changes} == set(WEB)
    sizes = [abs(change["change"]) for change in changes]
    assert np.isfinite(sizes).all()
    assert sizes == sorted(sizes, reverse=True)
    covered |= (scores["machine"] == name) & (scores["row"] >= start) & (scores["row"] < end)
  assert not (scores["is_anomaly"] & ~covered).any()


def mean_of_means(values: np.ndarray, lengths: tuple[int, ...]) -> np.ndarray:
  """Returns [T]: over each length, the mean of what is known of a row and those before it; their mean."""
  found = np.full(len(values), np.nan)
  for row in np.flatnonzero(~np.isnan(values)):
    found[row] = np.mean([np.nanmean(values[max(row - n + 1, 0) : row + 1]) for n in lengths])
  return found


def test_metric_scores_of_every_row_add_up(trained: Trained) -> None:
  scores, metrics = (read_table(trained.workdir / f"{name}.parquet") for name in ("scores", "metric_scores"))
  assert len(metrics["row"]) == len(NAMES) * NUM_TEST * len(WEB)
  assert tuple(metrics["metric"][: len(WEB)]) == WEB
  sums = np.sort(metrics["score"].reshape(-1, len(WEB)), axis=1)[:, -3:].sum(axis=1)
  machines = [sums[scores["machine"] == name] for name in NAMES]
  expected = np.concatenate([mean_of_means(own, (1, 4, 16, 64)) for own in machines])
  # web-2's clock leaves slots out, which stand between its rows there
  whole = (scores["machine"] != "web-2") | (scores["row"] < GAP_START)
  np.testing.assert_allclose(scores["score"][whole], expected[whole], rtol=1e-9)
  web = of_machine(metrics, "web-1")
  latency = web["actual"][web["metric"] == "latency"]
  split = fleets.test_split("web-1")
  valid = expected_valid("web-1") & ~np.isnan(split.values[:, 1])
  np.testing.assert_allclose(latency[valid], split.values[valid, 1], atol=1e-3)  # in its own units


def test_original_export(trained: Trained) -> None:
  rows = of_machine(read_table(trained.workdir / "scores.parquet"), "web-1")
  folder = trained.workdir / "original" / "web-1"
  np.testing.assert_array_equal(np.loadtxt(folder / "inference_score.csv"), rows["score"][rows["valid"]])
  header, *lines = (folder / "Anomaly.csv").read_text().splitlines()
  assert header == ",".join(("row", "score", "threshold", *WEB))
  assert [int(line.split(",")[0]) for line in lines] == np.flatnonzero(rows["is_anomaly"]).tolist()


def test_evaluate_report_and_inspect(trained: Trained) -> None:
  done = succeeded(run_process("evaluate.py", f"--workdir={trained.workdir}"))
  assert all(name in done.stdout for name in NAMES)
  text = (trained.workdir / "evaluation.json").read_text()
  assert "NaN" not in text
  json.loads(text)

  done = succeeded(run_process("report.py", f"--workdir={trained.workdir}"))
  page = (trained.workdir / "report.html").read_text()
  assert all(name in page for name in NAMES)
  assert f"{trained.workdir / 'report.html'}" in done.stdout

  done = succeeded(run_process("inspect_checkpoint.py", f"--workdir={trained.workdir}", "--machine=web-1"))
  assert f"step {NUM_STEPS}, written by " in done.stdout
  assert "web-1: validation loss " in done.stdout
  assert "web-2: " not in done.stdout
  assert "all finite" in done.stdout
  assert "NOT FINITE" not in done.stdout
  missing = run_here("inspect_checkpoint.py", f"--workdir={trained.workdir}", "--step=7")
  refused(missing, 1, "no step 7; there are [")
  missing = run_here("inspect_checkpoint.py", f"--workdir={trained.workdir}", "--machine=web-9")
  refused(missing, 1, "--machine=web-9", "web-1, web-2")


def test_scoring_twice_is_bit_equal(trained: Trained, tmp_path: Path) -> None:
  succeeded(
    run_here("score.py", f"--workdir={trained.workdir}", f"--output={tmp_path}", "--all_metric_scores")
  )
  for name in ("scores", "metric_scores", "events", "segments"):
    here, there = (pq.read_table(folder / f"{name}.parquet") for folder in (tmp_path, trained.workdir))
    assert here.equals(there), name


def test_a_spike_is_scored_where_it_stands(trained: Trained, tmp_path: Path) -> None:
  """Row t's score is row t's, and no row before it knows."""
  row, column = 190, WEB.index("latency")
  for name in NAMES:
    split = fleets.test_split(name)
    if name == "web-1":
      split.values[row, column] = 400.0
    fleets.write_csv(tmp_path / "spiked" / "test" / f"{name}.csv", *split)
  arguments = (f"--source={tmp_path / 'spiked'}", f"--output={tmp_path / 'out'}", "--all_metric_scores")
  succeeded(run_here("score.py", f"--workdir={trained.workdir}", *arguments))
  tables = [read_table(folder / "metric_scores.parquet") for folder in (tmp_path / "out", trained.workdir)]
  spiked, before = (of_machine(table, "web-1")["score"].reshape(NUM_TEST, len(WEB)) for table in tables)
  np.testing.assert_array_equal(spiked[:row], before[:row])
  assert np.nanargmax(spiked[:, column]) == row
  assert np.argmax(spiked[row]) == column
  assert spiked[row, column] > 3 * np.nanmax(before[:, column])
  for name in ("db-1", "web-2"):  # nor does any other machine
    here, there = (of_machine(table, name)["score"] for table in tables)
    np.testing.assert_array_equal(here, there)
  events = of_machine(read_table(tmp_path / "out" / "events.parquet"), "web-1")
  inside = np.flatnonzero((events["start_row"] <= row) & (row < events["end_row"]))
  assert len(inside) == 1
  named = [each["metric"] for each in events["contributors"][inside[0]]]
  assert set(named[:2]) == {"latency", "cpu"}  # the labelled fault of cpu, 40 rows before, is in the same event


def test_a_row_scores_the_same_alone_and_in_a_prefix(trained: Trained, tmp_path: Path) -> None:
  """One machine, half of its rows, columns in another order and one too many: the same scores."""
  split, num_rows = fleets.test_split("web-2"), 130
  order = [3, 0, 4, 1, 2]
  metrics = ("new_metric", *(WEB[i] for i in order))
  values = np.column_stack([np.arange(num_rows), split.values[:num_rows, order]])
  fleets.write_csv(tmp_path / "part" / "test" / "web-2.csv", metrics, values, split.timestamps[:num_rows])
  common = (f"--workdir={trained.workdir}", f"--source={tmp_path / 'part'}")
  refused(run_here("score.py", *common), 1, "machine web-2", "new_metric")
  assert not [*trained.workdir.glob("scores/*/*"), *trained.workdir.glob("scores/*/.*")]
  succeeded(run_here("score.py", *common, "--extra=ignore"))
  part = read_table(trained.workdir / "scores" / "part" / "scores.parquet")  # where --output is not given
  assert "label" not in part
  whole = of_machine(read_table(trained.workdir / "scores.parquet"), "web-2")
  for name in ("score", "score_surprise", "score_gamma", "score_raw"):
    np.testing.assert_allclose(part[name], whole[name][:num_rows], rtol=1e-5, err_msg=name)
  np.testing.assert_array_equal(part["valid"], whole["valid"][:num_rows])


def test_with_context_the_first_rows_have_scores_too(trained: Trained, tmp_path: Path) -> None:
  succeeded(run_here("score.py", f"--workdir={trained.workdir}", "--context", f"--output={tmp_path}"))
  scores = read_table(tmp_path / "scores.parquet")
  plain = read_table(trained.workdir / "scores.parquet")
  gap = (scores["machine"] == "web-2") & (scores["row"] >= GAP_START) & (scores["row"] < GAP_START + 4)
  assert GAP_SLOTS > WINDOW
  np.testing.assert_array_equal(scores["valid"], ~gap)
  np.testing.assert_array_equal(np.isfinite(scores["score"]), ~gap)
  # row W's window holds row 0, whose counter now grows from the last training row
  both = plain["valid"] & (plain["row"] > WINDOW)
  np.testing.assert_allclose(scores["score_raw"][both], plain["score_raw"][both], rtol=1e-5)
  both &= plain["row"] > WINDOW + 64  # from there on its mean is over as many rows in both
  np.testing.assert_allclose(scores["score"][both], plain["score"][both], rtol=1e-5)


def test_the_training_split_is_scored_apart(trained: Trained) -> None:
  succeeded(run_here("score.py", f"--workdir={trained.workdir}", "--split=train"))
  scores = read_table(trained.workdir / "scores" / "train" / "scores.parquet")
  assert len(scores["row"]) == len(NAMES) * fleets.NUM_TRAIN
  assert "label" not in scores
  refused(run_here("score.py", f"--workdir={trained.workdir}", "--split=train", "--context"), 2, "--context")
  both = run_here("score.py", f"--workdir={trained.workdir}", "--split=train", f"--source={trained.fleet}")
  refused(both, 2, "--split=train", "--source")


def test_a_fleet_of_two_formats_and_metric_lists(tmp_path: Path) -> None:
  """Machines of other metrics are a group of their own in the same work directory; txt and npy have no times."""
  for i, (split, num_rows) in enumerate((("train", fleets.NUM_TRAIN), ("test", 60))):
    (tmp_path / "fleet" / split).mkdir(parents=True)
    values = fleets.series(("a", "b"), num_rows, seed=i)
    np.savetxt(tmp_path / "fleet" / split / "old.txt", values, delimiter=",", fmt="%.5f")
    np.save(tmp_path / "fleet" / split / "new.npy", fleets.series(("a", "b", "c"), num_rows, seed=i))
  (tmp_path / "fleet" / "test_label").mkdir()
  (tmp_path / "fleet" / "test_label" / "old.txt").write_text("0\n" * 50 + "1\n" * 10)
  tiny = (*TINY, "--config.train.num_train_steps=5")
  succeeded(run_here("train.py", *tiny, f"--source={tmp_path / 'fleet'}", f"--workdir={tmp_path / 'run'}"))
  succeeded(run_here("score.py", f"--workdir={tmp_path / 'run'}"))
  scores = read_table(tmp_path / "run" / "scores.parquet")
  assert list(scores["machine"]) == ["new"] * 60 + ["old"] * 60
  assert np.isfinite(scores["score"][scores["row"] >= WINDOW]).all()
  assert np.isnat(np.array(scores["timestamp"], "datetime64[ms]")).all()
  assert list(scores["label"][:60]) == [None] * 60
  assert list(scores["label"][60:]) == [False] * 50 + [True] * 10
  assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["group-0", "group-1"]


def stopped(fleet: Path, workdir: Path) -> None:
  """Starts training in a process and stops it with SIGTERM as soon as it has logged its first steps."""
  command = [
    sys.executable,
    str(fleets.SCRIPTS / "train.py"),
    *TINY,
    f"--source={fleet}",
    f"--workdir={workdir}",
  ]
  process = subprocess.Popen(
    command,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
  )
  log, deadline = workdir / "metrics.jsonl", time.monotonic() + 240
  while process.poll() is None and time.monotonic() < deadline:
    if log.exists() and log.read_text().count("\n") > 4:  # a header and rows
      break
    time.sleep(0.002)
  process.send_signal(signal.SIGTERM)
  out, err = process.communicate(timeout=120)
  assert (process.returncode, err) == (75, ""), f"exit code {process.returncode}\n{out}\n{err}"
  assert "stopped by a signal; run the same command again to go on" in out


@pytest.mark.slow
def test_stopped_and_resumed_equals_never_stopped(trained: Trained, tmp_path: Path) -> None:
  stopped(trained.fleet, tmp_path / "run")
  step, _ = last_state(tmp_path / "run")
  assert 0 < step < NUM_STEPS
  refused(run_here("score.py", f"--workdir={tmp_path / 'run'}"), 1, "calibration.json: not found", "train.py")
  arguments = (*TINY, f"--source={trained.fleet}", f"--workdir={tmp_path / 'run'}")
  done = succeeded(run_process("train.py", *arguments))
  assert f"resumed at step {step} of {NUM_STEPS}" in done.stdout
  assert last_state(tmp_path / "run")[0] == NUM_STEPS
  assert bit_equal(last_state(tmp_path / "run")[1], last_state(trained.workdir)[1])
  assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (trained.workdir / "metrics.jsonl").read_bytes()
  ends = [
    json.loads((folder / "calibration.json").read_text()) for folder in (tmp_path / "run", trained.workdir)
  ]
  assert ends[0]["machines"] == ends[1]["machines"]
  assert ends[0]["run_id"] != ends[1]["run_id"]


@pytest.mark.slow
def test_one_seed_one_network(trained: Trained, tmp_path: Path) -> None:
  """In another process, and without a stop; a finished run taken up again trains nothing; another seed differs."""
  _, state = last_state(trained.workdir)
  for seed in (0, 1):
    arguments = (*TINY, f"--config.train.random_seed={seed}", f"--source={trained.fleet}")
    succeeded(run_here("train.py", *arguments, f"--workdir={tmp_path / str(seed)}"))
  assert bit_equal(last_state(tmp_path / "0")[1], state)
  assert (tmp_path / "0" / "metrics.jsonl").read_bytes() == (trained.workdir / "metrics.jsonl").read_bytes()
  _, other = last_state(tmp_path / "1")
  pairs = zip(jax.tree.leaves(other["params"]), jax.tree.leaves(state["params"]), strict=True)
  drawn = [(a, b) for a, b in pairs if np.ptp(b) > 0]
  alike = sum(np.array_equal(a, b) for a, b in drawn)
  assert alike == 2, "the linear skip, which is fitted, and nothing that is drawn"

  log = (tmp_path / "0" / "metrics.jsonl").read_bytes()
  done = succeeded(run_here("train.py", *TINY, f"--source={trained.fleet}", f"--workdir={tmp_path / '0'}"))
  assert f"resumed at step {NUM_STEPS} of {NUM_STEPS}" in done.stdout
  assert bit_equal(last_state(tmp_path / "0")[1], state)
  assert (tmp_path / "0" / "metrics.jsonl").read_bytes() == log


def test_calibrate_again_leaves_the_weights(trained: Trained, tmp_path: Path) -> None:
  """The same settings give the same thresholds to the bit; another quantile moves the alarms' threshold alone."""
  workdir = Path(shutil.copytree(trained.workdir, tmp_path / "run"))
  weights = fleets.files_of(workdir / "checkpoints")
  before = json.loads((workdir / "calibration.json").read_text())
  succeeded(run_here("calibrate.py", f"--workdir={workdir}"))
  assert json.loads((workdir / "calibration.json").read_text()) == before
  succeeded(run_here("calibrate.py", f"--workdir={workdir}", "--pot_q=0.005", "--initial_quantile=0.9"))
  after = json.loads((workdir / "calibration.json").read_text())
  for name in ("web-1", "web-2"):
    assert 0 < after["machines"][name]["threshold"] < before["machines"][name]["threshold"]
    assert after["machines"][name]["errors"] == before["machines"][name]["errors"]
  detect = json.loads((workdir / "config.json").read_text())["detect"]
  assert (detect["pot_q"], detect["initial_quantile"]) == (0.005, 0.9)
  assert fleets.files_of(workdir / "checkpoints") == weights
  config = json.loads((workdir / "config.json").read_text())
  config["detect"]["rule"] = "raw"
  (workdir / "config.json").write_text(json.dumps(config))  # as a training run stopped before its calibration does
  refused(run_here("score.py", f"--workdir={workdir}"), 1, "detect.rule 'joint'", "run calibrate.py")


def test_a_preview_names_events_and_writes_nothing(trained: Trained, tmp_path: Path) -> None:
  workdir = Path(shutil.copytree(trained.workdir, tmp_path / "run"))
  before = fleets.files_of(workdir)
  done = succeeded(run_here("calibrate.py", f"--workdir={workdir}", "--alarms_per_week=60", "--preview", "--verbose"))
  assert fleets.files_of(workdir) == before
  assert re.search(r"^web-1: \d+ events in its last [\d.]+ held-out days$", done.stdout, re.MULTILINE)
  total = int(re.search(r"^\d machines: (\d+) events$", done.stdout, re.MULTILINE).group(1))
  line = r"^  rows \d+ to \d+ \(\S+ to \S+\), (?:check|calibration) part, [\d.]+ times the threshold: \w+"
  named = re.findall(line, done.stdout, re.MULTILINE)
  assert len(named) == total > 0
  assert "alarms) in" in done.stdout
  wrong = {"--smoothed_minutes=1,x": "whole numbers", "--threshold=best": "choose one of pot, conformal, spot, dspot"}
  for flag, told in wrong.items():
    refused(run_here("calibrate.py", f"--workdir={workdir}", flag), 2, told)


def test_settings_of_the_joint_rule_and_conformal_thresholds_are_kept(trained: Trained, tmp_path: Path) -> None:
  workdir = Path(shutil.copytree(trained.workdir, tmp_path / "run"))
  flags = (
    *("--smoothed_minutes=1,3", "--largest_metrics=1", "--level_limit=4"),
    *("--threshold=conformal", "--pot_q=0.02"),
  )
  succeeded(run_here("calibrate.py", f"--workdir={workdir}", *flags))
  stored = json.loads((workdir / "calibration.json").read_text())
  assert (stored["detect"]["smoothed_minutes"], stored["detect"]["largest_metrics"]) == ([1, 3], 1)
  assert all(entry["pot"]["method"] == "conformal" for entry in stored["machines"].values())
  succeeded(run_here("score.py", f"--workdir={workdir}"))
  settings = json.loads((workdir / "config.json").read_text())
  settings["detect"]["smoothed_minutes"] = [1]
  (workdir / "config.json").write_text(json.dumps(settings))
  refused(run_here("score.py", f"--workdir={workdir}"), 1, "detect.smoothed_minutes [1, 3]", "run calibrate.py")


def test_thresholds_that_follow_the_scores_go_through_all_commands(trained: Trained, tmp_path: Path) -> None:
  workdir = Path(shutil.copytree(trained.workdir, tmp_path / "run"))
  flags = ("--threshold=dspot", "--pot_q=0.01", "--level_minutes=60", "--learn_minutes=30")
  succeeded(run_here("calibrate.py", f"--workdir={workdir}", *flags))
  stored = json.loads((workdir / "calibration.json").read_text())
  assert (stored["detect"]["level_minutes"], stored["detect"]["learn_minutes"]) == (60, 30)
  succeeded(run_here("score.py", f"--workdir={workdir}", "--export=original"))
  before, after = (read_table(folder / "scores.parquet") for folder in (trained.workdir, workdir))
  np.testing.assert_array_equal(before["score"], after["score"])
  assert all(np.ptp(of_machine(after, name)["threshold"]) > 0 for name in NAMES)
  np.testing.assert_array_equal(after["score_ratio"], after["score"] / after["threshold"])
  np.testing.assert_array_equal(after["is_anomaly"], after["valid"] & (after["score_ratio"] > 1))
  succeeded(run_here("evaluate.py", f"--workdir={workdir}", "--floors=random"))
  told = json.loads((workdir / "evaluation.json").read_text())["machines"]["web-2"]["thresholds"]["pot"]
  assert told["lowest"] < told["highest"]
  succeeded(run_here("report.py", f"--workdir={workdir}"))
  assert '"moving": true' in (workdir / "report.html").read_text().replace('"moving":true', '"moving": true')


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_an_example(command: str) -> None:
  done = run_here(command, "--help")
  assert done.code == 0
  assert done.stderr == ""
  assert f"python scripts/{command} --" in done.stdout
  assert any(flag in done.stdout for flag in ("--workdir", "--data_dir", "--config"))


def test_newly_scored_files_are_evaluated_against_their_own_labels(trained: Trained, tmp_path: Path) -> None:
  """One machine in a new folder, its columns in another order: the figures it has in the run's own evaluation."""
  split = fleets.test_split("web-2")
  new, out = tmp_path / "new", tmp_path / "out"
  fleets.write_csv(
    new / "test" / "web-2.csv", WEB[::-1], split.values[:, ::-1], split.timestamps, split.labels
  )
  workdir = f"--workdir={trained.workdir}"
  succeeded(run_here("evaluate.py", workdir, f"--scores={shutil.copytree(trained.workdir, tmp_path / 'whole')}"))
  succeeded(run_here("score.py", workdir, f"--source={new}", f"--output={out}"))
  succeeded(run_here("evaluate.py", workdir, f"--source={new}", f"--scores={out}"))
  whole, fresh = (
    json.loads((folder / "evaluation.json").read_text())["machines"] for folder in (tmp_path / "whole", out)
  )
  assert set(fresh) == {"web-2"}
  wanted, found = (part["web-2"]["detector"]["average_precision"] for part in (whole, fresh))
  assert found == pytest.approx(wanted, rel=1e-6)
  wanted, found = (part["web-2"]["floors"]["pca_error"]["average_precision"] for part in (whole, fresh))
  assert found == pytest.approx(wanted, rel=1e-6)
