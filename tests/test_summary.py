"""The whole evaluation: means, pooling, floors on the same rows, what is left out, the table, the command."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtad_jax.config import Config, DetectConfig, EvaluateConfig, dumps
from mtad_jax.data.machine import Interpretation, Machine, Series
from mtad_jax.evaluate import baselines
from mtad_jax.evaluate.figures import flag_as_many, mean_of
from mtad_jax.evaluate.floors import FLOORS
from mtad_jax.evaluate.inputs import ScoreTable, common_scores, read_scores, rows_per_day, scored_machines
from mtad_jax.evaluate.metrics import average_precision
from mtad_jax.evaluate.scored import ScoredMachine
from mtad_jax.evaluate.summary import evaluate_fleet, to_json
from mtad_jax.evaluate.table import align, format_table

ROOT = Path(__file__).resolve().parent.parent
NUM_ROWS, NUM_METRICS = 1500, 4
STARTS = (300, 700, 1100)


def make(name: str, seed: int, shift: float = 3.0, anomalous: bool = True) -> ScoredMachine:
  rng = np.random.default_rng(seed)
  labels = np.zeros(NUM_ROWS, bool)
  for start in STARTS if anomalous else ():
    labels[start : start + 30] = True
  scores = rng.exponential(size=NUM_ROWS) + shift * labels
  scores[:100] = np.nan
  kinds = (("spike", "weak"), ("drift", "weak"), ("spike", "strong"))
  return ScoredMachine(
    name=name,
    role="web",
    labels=labels,
    scores=scores,
    thresholds={"initial": 3.0, "pot": 4.0 + seed},
    other_scores={"raw": rng.normal(size=NUM_ROWS)},
    baselines={
      "random": baselines.random_scores(NUM_ROWS, seed),
      "all_positive": baselines.all_positive(NUM_ROWS),
    },
    interpretation=tuple(
      Interpretation(start, start + 30, (1, 2), *kind) for start, kind in zip(STARTS, kinds) if anomalous
    ),
    cause_ranking=((1, 0, 2, 3), (0, 1, 2, 3), None) if anomalous else (),
    rows_per_day=500.0,
    num_metrics=NUM_METRICS,
  )


def evaluate(machines: list[ScoredMachine], **settings: int) -> dict:
  return evaluate_fleet(machines, EvaluateConfig(**settings), DetectConfig())


@pytest.fixture(scope="module")
def fleet() -> list[ScoredMachine]:
  return [make("a", 0), make("b", 1), make("calm", 2, anomalous=False)]


@pytest.fixture(scope="module")
def result(fleet: list[ScoredMachine]) -> dict:
  return evaluate(fleet)


def test_json_has_no_nan(result: dict) -> None:
  assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_mean_names_its_machines(result: dict) -> None:
  assert result["mean"]["machines"] == ["a", "b"]
  assert result["mean"]["without_an_anomaly"] == ["calm"]
  values = [result["machines"][name]["detector"]["average_precision"] for name in "ab"]
  assert result["mean"]["detector"]["average_precision"] == pytest.approx(np.mean(values))
  assert "threshold" not in result["mean"]["detector"]["oracle"]


def test_figures_are_on_valid_rows_only(fleet: list[ScoredMachine], result: dict) -> None:
  machine, entry = fleet[0], result["machines"]["a"]
  assert (entry["rows"], entry["valid_rows"], entry["anomalous_rows"]) == (1500, 1400, 90)
  expected = average_precision(machine.labels[100:], machine.scores[100:])
  assert entry["detector"]["average_precision"] == pytest.approx(expected)
  floor = average_precision(machine.labels[100:], machine.baselines["random"][100:])
  assert entry["floors"]["random"]["average_precision"] == pytest.approx(floor)
  assert entry["floors"]["all_positive"]["average_precision"] == pytest.approx(90 / 1400)


def test_threshold_figures(fleet: list[ScoredMachine], result: dict) -> None:
  machine = fleet[0]
  flagged = np.nan_to_num(machine.scores) > 4.0
  at = result["machines"]["a"]["detector"]["at_threshold"]["pot"]
  assert at["precision"] == pytest.approx(np.mean(machine.labels[flagged]))
  assert at["recall"] == pytest.approx(np.mean(flagged[machine.labels]))
  assert (at["segments"], at["segments_detected"], at["event_recall"]) == (3, 3, 1.0)
  assert at["false_alarms_per_day"] == pytest.approx(at["false_alarm_events"] / (1400 / 500))
  assert at["false_alarms_per_1000_rows"] == pytest.approx(at["false_alarm_events"] / 1.4)
  floors = result["machines"]["a"]["floors"]
  assert floors["random"]["at_threshold"]["pot"]["flagged_share"] == pytest.approx(at["flagged_share"])
  assert floors["all_positive"]["at_threshold"]["pot"]["flagged_share"] == 1.0


def test_pooled_is_by_ratio(fleet: list[ScoredMachine], result: dict) -> None:
  labels = np.concatenate([m.labels[100:] for m in fleet])
  ratio = np.concatenate([m.scores[100:] / m.thresholds["pot"] for m in fleet])
  assert result["pooled"]["by"] == "score / POT threshold"
  assert result["pooled"]["detector"]["average_precision"] == pytest.approx(average_precision(labels, ratio))
  at = [result["machines"][name]["detector"]["at_threshold"]["pot"] for name in ("a", "b", "calm")]
  pooled = result["pooled"]["detector"]["at_threshold"]["pot"]
  assert pooled["segments_detected"] == sum(entry["segments_detected"] for entry in at)
  assert pooled["false_alarm_events"] == sum(entry["false_alarm_events"] for entry in at)


def test_a_machines_own_unit_does_not_change_pooled_figures(fleet: list[ScoredMachine], result: dict) -> None:
  scaled = fleet[1]._replace(
    scores=1e6 * fleet[1].scores, thresholds={key: 1e6 * x for key, x in fleet[1].thresholds.items()}
  )
  again = evaluate([fleet[0], scaled, fleet[2]])
  own = again["pooled"]["detector"]["average_precision"]
  assert own == pytest.approx(result["pooled"]["detector"]["average_precision"])


def test_machines_without_labels_or_scores_are_listed(fleet: list[ScoredMachine], result: dict) -> None:
  blind = fleet[0]._replace(name="blind", labels=None)
  dead = fleet[0]._replace(name="dead", scores=np.full(NUM_ROWS, np.nan))
  again = evaluate([*fleet, blind, dead])
  assert again["mean"]["left_out"] == {"blind": "no labels", "dead": "no scored row"}
  assert again["mean"]["detector"] == result["mean"]["detector"]
  with pytest.raises(ValueError, match="evaluation: no machine has labels and a scored row"):
    evaluate([blind, dead])


def test_machine_without_a_threshold(fleet: list[ScoredMachine]) -> None:
  nan = float("nan")
  bare = fleet[1]._replace(thresholds={"initial": nan, "pot": nan})
  again = evaluate([fleet[0], bare])
  assert again["pooled"]["left_out"] == ["b"]
  assert again["machines"]["b"]["detector"]["at_threshold"] == {}
  assert again["machines"]["b"]["thresholds"] == {"initial": None, "pot": None}
  # a mean over one machine of two says so
  assert again["mean"]["detector"]["at_threshold"]["machines_with"] == {"initial": 1, "pot": 1}
  only = evaluate([bare])
  assert only["pooled"]["by"].startswith("raw score: no machine")
  assert "no positive POT threshold" in format_table(again)


def test_random_scores_show_what_the_floors_show(fleet: list[ScoredMachine]) -> None:
  rng = np.random.default_rng(5)
  noise = [m._replace(scores=np.where(np.isnan(m.scores), np.nan, rng.uniform(size=NUM_ROWS))) for m in fleet]
  noise = [m._replace(thresholds={"initial": 0.9, "pot": 0.99}) for m in noise]
  mean = evaluate(noise)["mean"]
  assert mean["detector"]["average_precision"] == pytest.approx(90 / 1400, abs=0.02)
  assert mean["best_floor"]["detector_over_floor"] == pytest.approx(1, abs=0.35)
  # and yet point adjustment calls them good
  assert mean["detector"]["point_adjusted_oracle"]["f1"] > 0.5
  assert mean["detector"]["oracle"]["f1"] < 0.2


def test_operating_point_and_causes(result: dict) -> None:
  point = result["operating_point"]
  assert point["detector"]["false_alarms_per_day"] <= 1
  assert point["detector"]["recall"] > 0.8 > point["random"]["recall"]
  assert point["all_positive"]["recall"] == 0
  assert point["detector"]["by_kind"]["spike"]["segments"] == 4
  causes = result["root_cause"]["all_true_segments"]
  assert causes["segments"] == 6
  assert causes["first_named_right"] == pytest.approx(1 / 3)  # right, wrong, none named
  assert causes["first_named_right_random"] == 0.5
  assert causes["hit_rate_100"] == pytest.approx((0.5 + 0.5 + 0) / 3)
  groups = causes["first_named_right_groups"]["by_kind_and_strength"]
  assert {key: entry["mean"] for key, entry in groups.items()} == {
    "drift, weak": 0, "spike, strong": 0, "spike, weak": 1,
  }  # fmt: skip


def test_without_a_clock(fleet: list[ScoredMachine]) -> None:
  again = evaluate([m._replace(rows_per_day=None) for m in fleet])
  at = again["machines"]["a"]["detector"]["at_threshold"]["pot"]
  assert at["false_alarms_per_day"] is None
  assert at["false_alarms_per_1000_rows"] is not None
  assert again["operating_point"]["assumed_rows_per_day"] == dict.fromkeys(("a", "b", "calm"), 1440.0)
  assert "a day is taken as 1,440 rows" in format_table(again)


def test_tolerances_reach_the_figures(fleet: list[ScoredMachine]) -> None:
  late = evaluate(fleet, delay_limit_rows=1)["mean"]["detector"]["at_threshold"]["pot"]
  free = evaluate(fleet)["mean"]["detector"]["at_threshold"]["pot"]
  assert late["event_recall"] < free["event_recall"]
  assert late["f1"] == free["f1"]


def test_bad_columns(fleet: list[ScoredMachine]) -> None:
  short = fleet[0]._replace(labels=np.zeros(3, bool))
  with pytest.raises(ValueError, match="a: 3 labels for 1500 scores; one a row is wanted"):
    evaluate([short])
  holed = fleet[0]._replace(baselines={"random": np.full(NUM_ROWS, np.nan)})
  with pytest.raises(ValueError, match="a: random is NaN in row 100, which has a score"):
    evaluate([holed])
  with pytest.raises(ValueError, match="a: 1 cause rankings for 3 true segments; one each is wanted"):
    evaluate([fleet[0]._replace(cause_ranking=(None,))])


def test_flag_as_many() -> None:
  valid = np.array([True, True, True, True, False])
  scores = np.array([1.0, 3.0, 2.0, 2.0, 9.0])
  assert flag_as_many(scores, valid, 1).tolist() == [False, True, False, False, False]
  assert flag_as_many(scores, valid, 2).sum() == 1  # the tie stays out
  assert flag_as_many(scores, valid, 3).sum() == 3
  assert flag_as_many(scores, valid, 0).sum() == 0
  assert flag_as_many(scores, valid, 9).tolist() == valid.tolist()
  assert flag_as_many(np.ones(5), valid, 1).sum() == 4


def test_mean_of_partial_figures() -> None:
  nan = float("nan")
  found = mean_of([{"x": 1.0, "y": {"z": nan}}, {"x": 3.0, "y": {"z": 4.0}}])
  assert found == {"x": 2.0, "y": {"z": 4.0, "machines_with": {"z": 1}}}


def test_to_json() -> None:
  found = to_json({"a": (np.float64("nan"), np.int64(3)), "b": [np.inf, np.bool_(True)]})
  assert found == {"a": [None, 3], "b": [None, True]}


def test_table_lists_worst_first(result: dict) -> None:
  lines = format_table(result).splitlines()
  own = {name: result["machines"][name]["detector"]["average_precision"] for name in "ab"}
  assert [line.split()[0] for line in lines[1:4]] == [*sorted(own, key=own.__getitem__), "calm"]
  assert lines[4].startswith("mean of 2")
  assert lines[5].startswith("pooled, 3")
  assert "** point_adjusted (printed because papers print them; random scores win)" in lines
  assert align([["a", "bb"], ["ccc", "d"]]) == "a    bb\nccc   d"


def test_a_table_of_the_worst_says_how_many_there_are_beside(result: dict) -> None:
  whole, cut = (format_table(result, most).splitlines() for most in (None, 1))
  assert cut[1].split() == whole[1].split()
  assert cut[2] == "and 2 more; evaluation.json has them all (--verbose prints them)"
  assert [line.split()[0] for line in cut[3:5]] == ["mean", "pooled,"]
  groups = result["operating_point"]["detector"]["by_strength"]
  assert all(any(line.startswith(f"{name} ") for line in whole) for name in groups)
  assert not any(line.startswith(f"{name} ") for line in cut for name in groups)
  assert format_table(result, 3) == format_table(result)


def raw_machine(name: str, labels: np.ndarray) -> Machine:
  rng = np.random.default_rng(len(name))
  test = rng.normal(size=(len(labels), 3))
  test[labels, 1] += 8
  metrics = ("m1", "m2", "m3")
  truth = (Interpretation(60, 70, (1,)),)
  return Machine(name, "r", metrics, Series(rng.normal(size=(300, 3))), Series(test), labels, truth)


def score_columns(machine: Machine) -> dict[str, list]:
  num_rows = len(machine.labels)
  valid = np.arange(num_rows) >= 5
  score = np.where(valid, np.abs(machine.test.values).sum(axis=1), np.nan)
  return {
    "machine": [machine.name] * num_rows,
    "row": list(range(num_rows)),
    "timestamp": [None] * num_rows,
    "score": [None if np.isnan(x) else float(x) for x in score],
    "threshold": [7.0] * num_rows,
    "threshold_initial": [5.0] * num_rows,
    "score_ratio": [None if np.isnan(x) else float(x / 7) for x in score],
    "is_anomaly": (score > 7).tolist(),
    "valid": valid.tolist(),
    "label": machine.labels.tolist(),
    "score_raw": [None if np.isnan(x) else float(x**2) for x in score],
    "score_gamma": [None] * num_rows,
  }


@pytest.fixture
def raw() -> list[Machine]:
  labels = np.zeros(120, bool)
  labels[60:70] = True
  return [raw_machine("one", labels), raw_machine("three", labels)]


def write_scores(folder: Path, raw: list[Machine], **changes: list) -> Path:
  columns: dict[str, list] = {}
  for machine in raw:
    for name, values in score_columns(machine).items():
      columns.setdefault(name, []).extend(values)
  columns.update(changes)
  pq.write_table(pa.table(columns), folder / "scores.parquet")
  return folder / "scores.parquet"


def test_reading_scores(tmp_path: Path, raw: list[Machine]) -> None:
  tables = read_scores(write_scores(tmp_path, raw))
  assert list(tables) == ["one", "three"]
  assert tables["one"].thresholds == {"pot": 7.0, "initial": 5.0}
  assert int(np.sum(np.isnan(tables["one"].scores))) == 5
  assert sorted(tables["one"].other_scores) == ["gamma", "raw"]
  np.testing.assert_array_equal(tables["one"].labels, raw[0].labels)
  scored = scored_machines(tables, raw, {("one", 60, 70): ("m2", "m1")}, Config())
  assert scored[0].cause_ranking == ((1, 0),)
  assert scored[1].cause_ranking == (None,)
  assert list(scored[0].other_scores) == ["raw"]  # gamma is null everywhere: left out, and said
  assert not np.array_equal(scored[0].baselines["random"], scored[1].baselines["random"])


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"row": [*range(119), 118, *range(120)]}, "machine one: row 119 is missing or given twice"),
    ({"valid": [True] * 240}, "machine one, row 0: valid but without a score"),
    ({"threshold": [7.0] * 119 + [None] + [7.0] * 120}, "machine one, column threshold, row 119: null; one a row"),
    ({"threshold": [7.0] * 119 + [0.01] + [7.0] * 120}, "machine one, row 119: is_anomaly False against score"),
    ({"threshold_initial": [5.0] * 239 + [6.0]}, "machine three, column threshold_initial: more than one value"),
    ({"label": [2] + [0] * 239}, "machine one, column label, row 0: 2.0 is no label; 0 or 1 is wanted"),
  ],
)
def test_bad_score_files(tmp_path: Path, raw: list[Machine], changes: dict, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    read_scores(write_scores(tmp_path, raw, **changes))


def test_missing_and_damaged_score_files(tmp_path: Path, raw: list[Machine]) -> None:
  with pytest.raises(ValueError, match=r"scores.parquet: not found; score.py writes it"):
    read_scores(tmp_path / "scores.parquet")
  path = write_scores(tmp_path, raw)
  pq.write_table(pq.read_table(path).drop_columns(["valid"]), path)
  with pytest.raises(ValueError, match="column 'valid' is missing"):
    read_scores(path)
  path.write_bytes(b"not a table")
  with pytest.raises(ValueError, match="not a readable Parquet file"):
    read_scores(path)


def test_scores_of_other_data(tmp_path: Path, raw: list[Machine]) -> None:
  tables = read_scores(write_scores(tmp_path, raw))
  with pytest.raises(ValueError, match="three: scored, but not in the raw data; known there: one"):
    scored_machines(tables, raw[:1], None, Config())
  short = raw[0]._replace(test=Series(raw[0].test.values[:50]), labels=raw[0].labels[:50])
  with pytest.raises(ValueError, match="one: 120 scored rows, but the raw test split has 50"):
    scored_machines(tables, [short, raw[1]], None, Config())
  other = raw[0]._replace(labels=~raw[0].labels)
  with pytest.raises(
    ValueError, match=r"one, row 0: the label in scores.parquet differs from the raw data's"
  ):
    scored_machines(tables, [other, raw[1]], None, Config())
  with pytest.raises(ValueError, match=r"segments.parquet: machine one: cause 'm9' is none of its metrics"):
    scored_machines(tables, raw, {("one", 60, 70): ("m9",)}, Config())


def test_rows_per_day() -> None:
  clock = np.datetime64("2026-01-01", "ms") + np.arange(10) * np.timedelta64(300, "s")
  assert rows_per_day(clock, 0.0) == 288
  assert rows_per_day(None, 60.0) == 1440
  assert rows_per_day(None, 0.0) is None


@pytest.fixture
def workdir(tmp_path: Path, raw: list[Machine]) -> Path:
  for split in ("train", "test", "test_label", "interpretation_label"):
    (tmp_path / "fleet" / split).mkdir(parents=True)
  for machine in raw:
    file = f"{machine.name}.txt"
    for split, values in (("train", machine.train.values), ("test", machine.test.values)):
      np.savetxt(tmp_path / "fleet" / split / file, values, delimiter=",")
    np.savetxt(tmp_path / "fleet" / "test_label" / file, machine.labels, fmt="%d")
    (tmp_path / "fleet" / "interpretation_label" / file).write_text("60-70:2\n")
  folder = tmp_path / "work"
  folder.mkdir()
  write_scores(folder, raw)
  (folder / "config.json").write_text(dumps(Config()))
  run = {"run_id": "r1", "created": "2026-01-01", "commit": None, "data_dir": None, "source": str(tmp_path / "fleet")}
  (folder / "run.json").write_text(json.dumps(run))
  (folder / "fleet.json").write_text(json.dumps({"fingerprint": "", "groups": []}))
  return folder


def evaluate_command(*arguments: str) -> subprocess.CompletedProcess:
  command = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), *arguments]
  return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_command_with_floors_of_ones_choice(workdir: Path) -> None:
  done = evaluate_command(f"--workdir={workdir}", "--floors=random,l2_norm")
  assert done.returncode == 0, done.stderr
  assert list(json.loads((workdir / "evaluation.json").read_text())["pooled"]["floors"]) == ["random", "l2_norm"]
  for wrong, line in (("median", "floor 'median' is unknown; known: random, "), ("random,random", "named twice")):
    done = evaluate_command(f"--workdir={workdir}", f"--floors={wrong}")
    assert done.returncode == 1
    assert line in done.stderr


def test_command(workdir: Path) -> None:
  done = evaluate_command(f"--workdir={workdir}", "--early_hit_rows=3")
  assert done.returncode == 0, done.stderr
  result = json.loads((workdir / "evaluation.json").read_text())
  assert result["run_id"] == "r1"
  assert result["tolerances"]["early_hit_rows"] == 3
  assert result["machines"]["one"]["detector"]["average_precision"] > 0.9
  assert set(result["machines"]["one"]["floors"]) == set(FLOORS)
  assert result["floors_left_out"] == {}
  assert result["root_cause"] is None
  assert "causes not evaluated: no segments.parquet" in done.stdout
  assert "left out" not in done.stdout
  assert [path.name for path in workdir.glob("*evaluation*")] == ["evaluation.json"]


def test_command_without_scores_is_one_line(workdir: Path) -> None:
  (workdir / "scores.parquet").unlink()
  done = evaluate_command(f"--workdir={workdir}")
  assert done.returncode == 1
  assert done.stderr.strip().splitlines()[-1].endswith("scores.parquet: not found; score.py writes it")
  assert not (workdir / "evaluation.json").exists()


def test_thresholds_that_change_from_row_to_row(fleet: list[ScoredMachine]) -> None:
  """As scores over a threshold of 1: the same alarms, pooled ranking and operating point."""
  moving = [np.linspace(2.0, 6.0 + lane, NUM_ROWS) for lane in range(len(fleet))]
  ours = evaluate([m._replace(thresholds={"pot": t}) for m, t in zip(fleet, moving, strict=True)])
  ratios = [m._replace(scores=m.scores / t, thresholds={"pot": 1.0}) for m, t in zip(fleet, moving, strict=True)]
  theirs = evaluate(ratios)
  for name in ("a", "b", "calm"):
    assert ours["machines"][name]["detector"]["at_threshold"] == theirs["machines"][name]["detector"]["at_threshold"]
    assert ours["machines"][name]["floors"]["random"] == theirs["machines"][name]["floors"]["random"]
  assert ours["machines"]["b"]["thresholds"] == {"pot": {"lowest": 2.0, "median": 4.5, "highest": 7.0}}
  for part in ("pooled", "operating_point"):
    assert ours[part] == theirs[part]
  precision = [result["machines"]["a"]["detector"]["average_precision"] for result in (ours, theirs)]
  assert precision[0] != precision[1]  # one machine is ranked by its scores
  one_null = np.where(np.arange(NUM_ROWS) == 700, np.nan, 4.0)
  without = evaluate([fleet[0]._replace(thresholds={"pot": one_null}), fleet[1]])
  assert without["machines"]["a"]["detector"]["at_threshold"] == {}
  assert without["pooled"]["machines"] == ["b"]


def test_reading_thresholds_that_change(tmp_path: Path, raw: list[Machine]) -> None:
  own = [6.0, *[7.0] * 119]
  tables = read_scores(write_scores(tmp_path, raw, threshold=own + [7.0] * 120))
  np.testing.assert_array_equal(tables["one"].thresholds["pot"], own)
  assert tables["three"].thresholds == {"pot": 7.0, "initial": 5.0}


def test_a_score_that_no_row_has_is_no_score_of_the_run() -> None:
  score, none = np.array([1.0, np.nan, 2.0]), np.full(3, np.nan)

  def table(**others: np.ndarray) -> ScoreTable:
    return ScoreTable(score, {"pot": np.full(3, 3.0)}, others, None, None)

  tables = {"one": table(raw=score, gamma=none, density=none), "two": table(raw=score, gamma=score, density=none)}
  assert common_scores(tables) == (["raw"], {"gamma": "not in every valid row of one"})
