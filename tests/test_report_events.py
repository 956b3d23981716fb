"""Event cards and their charts: what a card says, which events get one, and figures that come back as they were."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_fleet import MINUTE, event, machine, metric_rows, work

from mtad_jax.detect.tables import EVENTS, METRIC_SCORES, SCORES
from mtad_jax.report import event_cards, event_figures, heat
from mtad_jax.report.event_cards import card, choose_events, fleet_worst, is_open
from mtad_jax.report.event_figures import choose_metrics, event_figure, map_figure, num_bins
from mtad_jax.report.event_file import Event, read_events
from mtad_jax.report.inputs import read_work
from mtad_jax.report.machine_data import machine_entries
from mtad_jax.report.metric_rows import MetricFile
from mtad_jax.report.neighbours import Neighbours

METRICS = ("cpu", "disk", "net")


def codes_of(text: str, kind: str) -> np.ndarray:
  return np.frombuffer(base64.b64decode(text), np.dtype(kind).newbyteorder("<"))


def values_of(cause: dict[str, Any], name: str) -> np.ndarray:
  """Returns a curve as assets/event.js reads it."""
  codes = codes_of(cause[name], "u2").astype(float)
  return np.where(codes == 0, np.nan, cause["low"] + cause["step"] * (codes - 1))


def card_of(found: Event, **changes: Any) -> dict[str, Any]:
  """Returns the card of an event of machine "a", whose peak is row 104; rows 80 to 129 have metrics' figures."""
  spikes = {102: 5.0, 103: 6.0, 104: 12.0, 105: 5.0}
  machines = {"a": machine(300, spikes), "b": machine(300, {104: 6.0}), "c": machine(300, {})}
  whole = work(machines, dict.fromkeys(machines, "web"), [found])
  rows = changes.pop("rows", metric_rows(np.arange(80, 130), METRICS))
  chosen = None if rows is None else choose_metrics(rows)
  return card(found, machines["a"]._replace(**changes), Neighbours(whole), rows, chosen)


# ---- reading


def test_columns_of_later_versions_are_read_where_they_are(tmp_path: Path) -> None:
  line = {"event_id": "e", "machine": "a", "start_row": 3, "end_row": 5, "severity": 0.5, "peak": 2.0}
  line["contributors"] = [{"metric": "disk", "contribution": 0.25}, {"metric": "cpu", "contribution": 0.75}]
  path = tmp_path / "events.parquet"
  pq.write_table(pa.Table.from_pylist([line]), path)
  (old,) = read_events(path, {})
  assert (old.level, old.model, old.cause_set, old.attention_change) == ("critical", "", None, None)
  assert old.contributors == (("cpu", 0.75), ("disk", 0.25))
  changes = [{"metric": "cpu", "change": 2.5}, {"metric": "net", "change": None}]
  line |= {"level": "warning", "model": "role_mixture", "cause_set": ["cpu"], "attention_change": changes}
  pq.write_table(pa.Table.from_pylist([line, line | {"attention_change": None}]), path)
  new, without = read_events(path, {})
  assert (new.level, new.model, new.cause_set) == ("warning", "role_mixture", ("cpu",))
  assert new.attention_change == {"cpu": 2.5}
  assert without.attention_change is None


def test_metric_scores_of_a_machine(tmp_path: Path) -> None:
  path = tmp_path / "metric_scores.parquet"
  lines = [
    {"machine": name, "row": row, "metric": metric, "score": row + 0.5 * place, "forecast": None,
     "reconstruction": 2.0, "expected_low": 1.0, "expected_high": 3.0, "actual": None if row == 8 else 9.0}
    for name in ("a", "b") for row in (8, 7, 20) for place, metric in enumerate(METRICS)
  ]  # fmt: skip
  pq.write_table(pa.Table.from_pylist(lines, schema=METRIC_SCORES), path, row_group_size=4)
  found = MetricFile(path).rows_of("b")
  assert found is not None
  assert found.row.tolist() == [7, 8, 20]
  assert found.metrics == METRICS
  np.testing.assert_array_equal(found.score, np.add.outer([7, 8, 20], [0, 0.5, 1]))
  assert np.isnan(found.actual[1]).all()
  assert (found.expected == 2).all(), "without a forecast the reconstruction is what was expected"
  assert MetricFile(path).rows_of("c") is None
  pq.write_table(pa.Table.from_pylist([line | {"forecast": 4.0} for line in lines]), path)
  forecast = MetricFile(path).rows_of("a")
  assert forecast is not None
  assert (forecast.expected == 4).all()


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (None, r"metric_scores\.parquet: not a readable Parquet file"),
    (pa.table({"machine": ["a"], "row": [1]}), r"scores\.parquet: column metric is missing; it has machine, row$"),
  ],
)
def test_damaged_metric_scores_are_refused_by_name(tmp_path: Path, content: pa.Table | None, message: str) -> None:
  path = tmp_path / "metric_scores.parquet"
  if content is None:
    path.write_text("x")
  else:
    pq.write_table(content, path)
  with pytest.raises(ValueError, match=message):
    MetricFile(path)


# ---- which events get a card


def test_the_worst_get_a_card_and_open_ones_first(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(event_cards, "CARDS_PER_MACHINE", 3)
  monkeypatch.setattr(event_cards, "CARDS_PER_FLEET", 5)
  machines = {name: machine(100, {}) for name in "abc"}
  events = [event("a", row, row + 1, severity=row / 100) for row in range(10, 60, 10)]
  events += [event("b", 98, 100, severity=0.01), event("b", 20, 21, severity=0.9), event("b", 30, 31, severity=0.8)]
  events += [event("a", 5, 6, severity=float("nan")), event("gone", 1, 2)]
  chosen = choose_events(work(machines, events=events))
  assert [found.start_row for found in chosen["b"]] == [98, 20, 30]
  assert [found.start_row for found in chosen["a"]] == [50, 40], "the fleet's room is used up"
  assert chosen["c"] == []
  # the worst of the fleet, two of a machine at most, as (machine, place)
  assert fleet_worst(chosen) == [(1, 1), (1, 2), (0, 0), (0, 1)]


def test_an_event_is_open_to_the_last_scored_row() -> None:
  scores = machine(100, {})
  assert is_open(event("a", 90, 100), scores)
  assert not is_open(event("a", 90, 99), scores)
  assert is_open(event("a", 90, 98), scores._replace(valid=np.arange(100) < 98))
  assert not is_open(event("a", 0, 1), scores._replace(valid=np.zeros(100, bool)))


# ---- what a card says


def test_a_card() -> None:
  found = card_of(event("a", 102, 106, severity=2 / 3, model="network"))
  assert (found["when"], found["length"]) == ("rows 102 to 105", "4 rows")
  assert (found["since"], found["peak_at"]) == ("row 102", "row 104")
  assert (found["severity"], found["ratio"], found["level"], found["open"]) == (2 / 3, 3.0, "critical", False)
  assert (found["from"], found["to"]) == (102, 106)
  assert found["causes"] == [["cpu", 0.6], ["disk", 0.4]]
  assert found["others"] == [0, 0]
  assert found["rest"] == (
    "1 of the 2 other machines of role web was in alarm then; the highest, b, at 1.50 times its threshold."
  )
  assert found["model"] == "its own network"
  assert found["cause_set"] is None
  assert found["attention"] is None
  rows = metric_rows(np.arange(80, 130), METRICS)
  assert [value[0] for value in found["values"]] == ["cpu", "disk"]
  for lane, value in enumerate(found["values"]):
    assert value[1:] == [rows.actual[24, lane], 10.0, 9.0, 11.0], "of the peak row"


def test_causes_and_others_sum_to_one() -> None:
  shares = np.sort(np.random.default_rng(0).dirichlet(np.ones(12)))[::-1]
  named = tuple((f"m{place}", float(share)) for place, share in enumerate(shares))
  found = card_of(event("a", 102, 106, contributors=(*named, ("none", 0.0))))
  assert len(found["causes"]) == event_cards.NAMED_CAUSES
  assert found["others"][0] == 12 - event_cards.NAMED_CAUSES
  assert sum(share for _, share in found["causes"]) + found["others"][1] == pytest.approx(1)
  assert card_of(event("a", 102, 106, contributors=()))["causes"] == []


def test_models_cause_sets_and_attention() -> None:
  changes = {"cpu": 0.1, "m1": -4.0, "m2": 3.0, "m3": 1.0, "m4": 2.0, "m5": 0.5}
  found = card_of(event("a", 102, 106, model="role_mixture_cold", cause_set=("cpu",), attention_change=changes))
  assert found["model"] == "its role's mixture, calibrated without rows of its own"
  assert found["cause_set"] == ["cpu"]
  assert found["attention"] == [["m1", -4.0], ["m2", 3.0], ["m4", 2.0], ["m3", 1.0], ["cpu", 0.1]]
  assert card_of(event("a", 102, 106), model="role_network")["model"].startswith("its own network, begun from")
  assert card_of(event("a", 102, 106))["model"] == ""


def test_a_card_without_figures_of_its_rows() -> None:
  assert card_of(event("a", 102, 106), rows=None)["values"] == []
  far = card_of(event("a", 102, 106), rows=metric_rows(np.arange(250, 260), METRICS))
  assert (far["values"], far["figure"]) == ([], None)
  no_peak = card_of(event("a", 102, 106), rows=metric_rows(np.delete(np.arange(80, 130), 24), METRICS))
  assert no_peak["values"] == []
  assert no_peak["figure"] is not None


def test_a_card_of_rows_without_a_finite_figure_is_still_json() -> None:
  rows = metric_rows(np.arange(80, 130), METRICS)
  found = card_of(event("a", 102, 106, severity=float("nan")), rows=rows._replace(actual=np.full((50, 3), np.nan)))
  assert found["severity"] is None
  assert found["values"][0] == ["cpu", None, 10.0, 9.0, 11.0]


# ---- its charts


def test_values_come_back_as_they_were() -> None:
  rows = metric_rows(np.arange(80, 130), METRICS)
  figure = card_of(event("a", 102, 106), rows=rows)["figure"]
  x = codes_of(figure["x"]["bdata"], "i4")
  assert x[0] == 102 - event_figures.MARGIN_ROWS
  assert x[-1] == 106 + event_figures.MARGIN_ROWS - 1
  assert [cause["metric"] for cause in figure["causes"]] == ["cpu", "disk"]
  for lane, cause in enumerate(figure["causes"]):
    for name, values in (("actual", rows.actual), ("expected", rows.expected), ("band_low", rows.low)):
      found = dict(zip(x.tolist(), values_of(cause, name), strict=True))
      kept = [row for row in x if 80 <= row < 130]
      np.testing.assert_allclose([found[row] for row in kept], values[np.array(kept) - 80, lane], atol=2e-4)
      assert all(np.isnan(found[row]) for row in x if row < 80 or row >= 130), "rows that the file lacks are a gap"


def test_a_long_event_is_thinned_and_keeps_its_spikes() -> None:
  num_rows = 6000
  scores = machine(num_rows, dict.fromkeys(range(500, 5500), 8.0), clock=0.0)
  rows = metric_rows(np.arange(400, 5600), METRICS)
  rows.actual[2345, 1], rows.score[2345, 1] = 99.0, 77.0
  chosen = choose_metrics(rows)
  figure = event_figure(rows, chosen, scores, 500, 5500, 1000, ("disk", "cpu"))
  assert figure is not None
  x = codes_of(figure["x"]["bdata"], "f8")
  assert len(x) < 3 * event_figures.EVENT_POINTS
  place = int(np.nanargmax(values_of(figure["causes"][0], "actual")))
  assert x[place] == (2345 + 400) * MINUTE
  assert figure["cells"]["bins"] == event_figures.EVENT_BINS
  cells = codes_of(figure["cells"]["codes"], "u1").reshape(3, -1)
  assert np.argwhere(cells == 255).tolist() == [[0, int((2745 - 470) / 5060 * event_figures.EVENT_BINS)]]


def test_the_machines_map_has_the_highest_score_of_each_stretch() -> None:
  rows = metric_rows(np.r_[100:300, 700:720], METRICS)
  rows.score[5, 2] = 40.0
  scores, chosen = machine(1000, {}), choose_metrics(rows)
  figure = map_figure(rows, chosen, scores, 50)
  assert figure["metrics"][0] == "net", "the highest score first"
  cells = codes_of(figure["cells"]["codes"], "u1").reshape(3, 50)
  for line, lane in enumerate(chosen.lanes):
    for place in range(50):
      inside = (rows.row >= place * 20) & (rows.row < place * 20 + 20)
      wanted = rows.score[inside, lane].max() if inside.any() else np.nan
      assert cells[line, place] == heat.metric_codes(np.array(wanted), 40.0)


def test_many_metrics_are_cut_and_counted() -> None:
  names = tuple(f"m{place}" for place in range(event_figures.MAX_METRICS + 7))
  rows = metric_rows(np.arange(10), names)
  figure = map_figure(rows, choose_metrics(rows), machine(100, {}), 60)
  assert (len(figure["metrics"]), figure["left_out"]) == (event_figures.MAX_METRICS, 7)
  shown = max(rows.score[:, rows.metrics.index(name)].max() for name in set(names) - set(figure["metrics"]))
  assert all(rows.score[:, rows.metrics.index(name)].max() >= shown for name in figure["metrics"])


def test_a_large_fleet_has_coarser_maps() -> None:
  assert num_bins(6, 12) == event_figures.MAX_BINS
  assert num_bins(28, 38) * 28 * 38 <= event_figures.CELLS_PER_FLEET
  assert num_bins(5000, 500) == event_figures.MIN_BINS


# ---- from files to the page's data


def test_the_page_reads_all_of_it_from_the_tables(tmp_path: Path) -> None:
  num_rows = 60
  about = {b"cold_start": b'{"new": {"role": "web", "group": 0, "run_id": "r"}}'}
  columns: dict[str, list[Any]] = {
    "machine": ["new"] * num_rows,
    "row": list(range(num_rows)),
    "score": [None] * 3 + [1.0] * 47 + [3.5] * 10,
    "threshold": [4.0] * num_rows,
    "is_anomaly": [False] * num_rows,
    "valid": [False] * 3 + [True] * 57,
    "threshold_warning": [3.0] * num_rows,
    "model": ["role_mixture_cold"] * num_rows,
  }
  arrays = [
    pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(num_rows, field.type)
    for field in SCORES
  ]
  pq.write_table(pa.Table.from_arrays(arrays, schema=SCORES.with_metadata(about)), tmp_path / "scores.parquet")
  line = {"event_id": "e", "machine": "new", "start_row": 50, "end_row": 60, "severity": 0.0, "peak": 3.5}
  line |= {"level": "warning", "model": "role_mixture_cold", "cause_set": [], "contributors": []}
  pq.write_table(pa.Table.from_pylist([line], schema=EVENTS), tmp_path / "events.parquet")
  whole = read_work(str(tmp_path))
  assert whole.role_of == {"new": "web"}
  (entry,) = machine_entries(whole)
  assert entry["thresholds"]["warning"] == 3.0
  assert entry["metrics"] is None
  (found,) = entry["events"]
  assert (found["level"], found["open"], found["ratio"], found["cause_set"]) == ("warning", True, 0.875, [])
  assert found["rest"] == "No other machine of role web has a score then."
