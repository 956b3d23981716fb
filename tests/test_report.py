"""The report: thinning that keeps spikes, reading a work directory, and the page's structure and safety."""

import base64
import json
import os
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtad_jax.config import Config, DetectConfig, EvaluateConfig, dumps
from mtad_jax.data.machine import Interpretation
from mtad_jax.detect.tables import METRIC_SCORES
from mtad_jax.evaluate.summary import ScoredMachine, evaluate_fleet
from mtad_jax.report import browser, figures, tables, trouble
from mtad_jax.report.downsample import kept_rows, run_peaks, runs_of
from mtad_jax.report.inputs import MachineScores, Work, read_work
from mtad_jax.report.page import embed, render

ROOT = Path(__file__).resolve().parent.parent
EVIL = '<script>alert("1")</script>&<img src=x onerror=alert(2)>'
NAMES = ("machine-1-1", EVIL)
ROWS, WINDOW, THRESHOLD = 300, 20, 5.0


# ---- a small work directory


def scores_of(lane: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns (scores with NaN in the first window, labels)."""
  scores = np.random.default_rng(lane).uniform(0, 4, ROWS)
  labels = np.zeros(ROWS, bool)
  labels[100:110] = labels[200:205] = True
  scores[102:106] = 9.0 + lane
  scores[:WINDOW] = np.nan
  return scores, labels


def write_scores(folder: Path, *, dated: bool = False) -> None:
  columns: dict[str, list[Any]] = {"machine": [], "row": [], "score": [], "label": []}
  for lane, name in enumerate(NAMES):
    scores, labels = scores_of(lane)
    columns["machine"] += [name] * ROWS
    columns["row"] += range(ROWS)
    columns["score"] += [None if np.isnan(value) else float(value) for value in scores]
    columns["label"] += labels.tolist()
  valid = [value is not None for value in columns["score"]]
  minutes = np.array(columns["row"], "datetime64[m]").astype("datetime64[ms]")
  table = pa.table(
    {
      **columns,
      "timestamp": pa.array(minutes) if dated else pa.nulls(len(valid), pa.timestamp("ms")),
      "threshold": [THRESHOLD if ok else None for ok in valid],
      "threshold_initial": [3.0 if ok else None for ok in valid],
      "is_anomaly": [value is not None and value > THRESHOLD for value in columns["score"]],
      "valid": valid,
    }
  )
  pq.write_table(table, folder / "scores.parquet")


def write_events(folder: Path) -> None:
  events = [
    {
      "event_id": f"event-{lane}",
      "machine": name,
      "start_row": 102,
      "end_row": 106,
      "start": None,
      "end": None,
      "severity": 0.5 + lane / 10,
      "peak": 9.0 + lane,
      "contributors": [
        {"metric": "load_1", "contribution": 0.25},
        {"metric": "<b>cpu_r</b>", "contribution": 0.75},
      ]
      if lane
      else [],
    }
    for lane, name in enumerate(NAMES)
  ]
  pq.write_table(pa.Table.from_pylist(events), folder / "events.parquet")


def record(verdict: str, tick: int, **changes: Any) -> dict[str, Any]:
  """Returns one bad step of the second machine, as training logs it."""
  found: dict[str, Any] = {"machine": EVIL, "step": tick - 6, "tick": tick, "attempt": 1, "verdict": verdict}
  found["back_to"] = None if verdict == "skipped" else 20
  found |= {"parts": ["kl", "gradients"], "blocks": [EVIL], "learning_rate": 0.002, "loss": None}
  return found | {"usual_loss": 1.25, "worst_row": 70 + tick, "rows": [3, 70 + tick]} | changes


def write_metric_scores(folder: Path) -> None:
  """Writes the metrics' figures of both events' rows and of four rows on both sides."""
  rows = range(98, 110)
  lines = [
    {
      "machine": name,
      "row": row,
      "metric": metric,
      "score": float(row == 102) * (9 if metric == "load_1" else 30),
      "forecast": None,
      "reconstruction": 5.0,
      "expected_low": 4.0,
      "expected_high": 6.0,
      "actual": 5.0 + 20 * (row == 102),
    }
    for name in NAMES
    for row in rows
    for metric in ("load_1", "<b>cpu_r</b>")
  ]
  pq.write_table(pa.Table.from_pylist(lines, schema=METRIC_SCORES), folder / "metric_scores.parquet")


def write_metrics(folder: Path, *, trouble: bool = True, old: bool = False) -> None:
  """Writes a log: with a machine rolled back and retired, without trouble, or as older versions did."""
  lines: list[dict[str, Any]] = [{"header": True, "group": 0, "machines": list(NAMES)}]
  for step in (20, 40, 60):
    row: dict[str, Any] = {"group": 0, "step": step, "loss": [1.0 / step, 2.0], "learning_rate": 0.004}
    row |= {"num_skipped": [0, 2 * trouble * (step >= 40)], "stopped": [step >= 40, False]}
    if not old:
      row |= {"learning_rate": [0.004, 0.004 if step == 20 else 0.002], "machine_step": [step, min(step, 28)]}
      row |= {"num_rolled_back": [0, int(trouble and step >= 40)], "retired": [False, trouble and step >= 40]}
      if trouble and step == 40:
        row["trouble"] = [
          record("rolled back", 25, step=25, attempt=0, parts=["spike"]),
          record("retired", 36),
        ]
    validation = {"validation_loss": [0.5, None if trouble else 0.5]}
    lines.append(row | (validation if step == 40 else {}))
  (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_evaluation(folder: Path) -> dict[str, Any]:
  machines = []
  for lane, name in enumerate(NAMES):
    scores, labels = scores_of(lane)
    machines.append(
      ScoredMachine(
        name=name,
        role="web",
        labels=labels,
        scores=scores,
        thresholds={"initial": 3.0, "pot": THRESHOLD},
        other_scores={"raw": np.nan_to_num(scores) * 2},
        baselines={"random": np.random.default_rng(9).uniform(size=ROWS), "all_positive": np.ones(ROWS)},
        interpretation=(Interpretation(100, 110, (1,), "spike", "weak"),),
        cause_ranking=((1, 0, 2), None),
        rows_per_day=1440.0,
        num_metrics=3,
      )
    )
  evaluation = evaluate_fleet(machines, EvaluateConfig(), DetectConfig())
  (folder / "evaluation.json").write_text(json.dumps(evaluation))
  return evaluation


def write_work(folder: Path) -> Path:
  """Writes a work directory with everything a report shows, but for a ledger; returns it."""
  folder.mkdir()
  write_scores(folder)
  write_events(folder)
  write_metric_scores(folder)
  write_metrics(folder)
  write_evaluation(folder)
  (folder / "config.json").write_text(dumps(Config()))
  run = {"run_id": "r1", "versions": {"jax": "9.9"}}
  (folder / "run.json").write_text(json.dumps(run))
  pot = {"threshold": THRESHOLD, "status": "exponential: few excesses", "num_excesses": 12, "low": None}
  entry = {"pot": pot, "pooled": "", "check": {"num_alarms": 2, "promised_alarms": 0.25}}
  (folder / "calibration.json").write_text(json.dumps({"machines": {NAMES[0]: entry}}))
  notes = {"num_rows": 900, "filled_share": {"load_1": 0.125}, "constant": [f"metric_{i}" for i in range(8)]}
  groups = [{"machines": [{"name": NAMES[0], "notes": notes}]}]
  (folder / "fleet.json").write_text(json.dumps({"groups": groups}))
  return folder


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
  return write_work(tmp_path / "work")


class Page(HTMLParser):
  """What a browser would make of a page: its tags, its tables' cells, its data."""

  def __init__(self, text: str) -> None:
    super().__init__()
    self.tags: list[str] = []
    self.attributes: list[tuple[str, str, str]] = []
    self.ids: list[str] = []
    self.tables: list[list[list[str]]] = []
    self.captions: list[str] = []
    self.text = ""
    self.data: list[dict[str, Any]] = []
    self._inside = ""
    self.feed(text)

  def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
    self.tags.append(tag)
    self.attributes += [(tag, name, value or "") for name, value in attrs]
    self.ids += [value or "" for name, value in attrs if name == "id"]
    if tag == "table":
      self.tables.append([])
    if tag == "tr":
      self.tables[-1].append([])
    if tag in ("td", "th"):
      self.tables[-1][-1].append("")
    if tag == "caption":
      self.captions.append("")
    if tag in ("td", "th", "script", "style", "caption"):
      self._inside = "data" if dict(attrs).get("id") == "report-data" else tag

  def handle_endtag(self, tag: str) -> None:
    if tag in ("td", "th", "script", "style", "caption"):
      self._inside = ""

  def handle_data(self, data: str) -> None:
    if self._inside == "data":
      self.data = json.loads(data)
    elif self._inside in ("td", "th"):
      self.tables[-1][-1][-1] += data
    elif self._inside == "caption":
      self.captions[-1] += data
    if self._inside not in ("script", "style", "data"):
      self.text += data

  def table(self, caption: str) -> list[list[str]]:
    (index,) = [i for i, found in enumerate(self.captions) if caption in found]
    return self.tables[index]


def decode(array: dict[str, str]) -> np.ndarray:
  return np.frombuffer(base64.b64decode(array["bdata"]), np.dtype(array["dtype"]).newbyteorder("<"))


# ---- thinning


def test_short_series_are_kept_whole() -> None:
  assert kept_rows(np.arange(10.0), 10).tolist() == list(range(10))
  assert kept_rows(np.zeros(0), 10).tolist() == []


@pytest.mark.parametrize("num_rows", [1001, 2500, 28_479])
def test_every_spike_and_its_row_are_kept(num_rows: int) -> None:
  random = np.random.default_rng(num_rows)
  values = random.normal(size=num_rows)
  spikes = random.choice(num_rows, 40, replace=False)
  values[spikes] += 50
  rows = kept_rows(values, 200, threshold=20.0)
  assert np.all(np.diff(rows) > 0)
  assert set(run_peaks(values, 20.0)) <= set(rows)
  # neighbouring spikes are one run, whose peak is kept
  alone = [row for row in spikes if values[max(row - 1, 0) : row + 2].max() == values[row]]
  assert set(alone) <= set(rows)
  assert len(rows) <= 200 + 2 + len(spikes)


def test_every_bucket_keeps_its_range() -> None:
  values = np.random.default_rng(1).normal(size=10_000)
  rows = kept_rows(values, 100)
  for start in range(0, 10_000, 200):
    inside = rows[(rows >= start) & (rows < start + 200)]
    assert values[inside].max() == values[start : start + 200].max()
    assert values[inside].min() == values[start : start + 200].min()


def test_gaps_stay_gaps() -> None:
  values = np.ones(5000)
  values[1234:1240] = np.nan
  rows = kept_rows(values, 100)
  assert 1234 in rows
  assert np.isnan(values[rows]).sum() == 1
  assert np.isnan(np.full(5000, np.nan)[kept_rows(np.full(5000, np.nan), 100)]).all()


def test_runs() -> None:
  assert runs_of(np.array([True, False, True, True])) == [(0, 1), (2, 4)]
  assert runs_of(np.zeros(3, bool)) == []
  assert run_peaks(np.array([1.0, 5, 7, np.nan, 6, 1]), 4).tolist() == [2, 4]


def test_too_few_points_are_refused() -> None:
  with pytest.raises(ValueError, match=r"num_points 1, .*: 2 or more"):
    kept_rows(np.zeros(3), 1)


def test_encoding_round_trip_and_refusal() -> None:
  for kind in (np.float32, np.float64, np.int32):
    values = np.array([1, -2, 3], kind)
    assert decode(figures.encode(values)).tolist() == values.tolist()
  with pytest.raises(ValueError, match="array of int64; one of float32, int32, float64 is wanted"):
    figures.encode(np.arange(3))


# ---- reading


def test_reading_a_whole_work_directory(workdir: Path) -> None:
  work = read_work(str(workdir))
  assert work.missing == {}
  assert tuple(work.machines) == NAMES
  first = work.machines[NAMES[0]]
  scores, labels = scores_of(0)
  np.testing.assert_array_equal(first.score, scores)
  assert first.label is not None
  np.testing.assert_array_equal(first.label, labels)
  assert first.times is None
  assert first.initial == 3.0
  assert first.valid.sum() == ROWS - WINDOW
  assert work.events[1].contributors == (("<b>cpu_r</b>", 0.75), ("load_1", 0.25))
  log = work.losses[EVIL]
  assert log.curves["loss"][1].tolist() == [2.0, 2.0, 2.0]
  assert np.isnan(log.curves["validation_loss"][1]).tolist() == [True]
  assert log.learning_rate[1].tolist() == [0.004, 0.002, 0.002]
  assert log.stopped_step is None
  assert log.trouble is not None
  assert (log.trouble.num_skipped, log.trouble.num_rolled_back, log.trouble.retired_step) == (2, 1, 30)
  assert work.losses[NAMES[0]].stopped_step == 40
  assert work.losses[NAMES[0]].trouble is None


def test_a_line_cut_short_by_a_stop_and_a_step_logged_twice(workdir: Path) -> None:
  path = workdir / "metrics.jsonl"
  again = json.dumps({"group": 0, "step": 60, "loss": [7.0, 8.0]})
  path.write_text(path.read_text() + again + '\n{"group": 0, "st')
  log = read_work(str(workdir)).losses[NAMES[0]]
  assert log.curves["loss"][0].tolist() == [20, 40, 60]
  assert log.curves["loss"][1][-1] == 7.0


@pytest.mark.parametrize(
  ("break_it", "message"),
  [
    (lambda d: (d / "scores.parquet").unlink(), r"scores\.parquet: there are no scores to report; run"),
    (lambda d: (d / "scores.parquet").write_text("x"), r"scores\.parquet: not a readable Parquet file"),
    (
      lambda d: pq.write_table(pa.table({"machine": ["a"], "row": [0]}), d / "scores.parquet"),
      r"scores\.parquet: column timestamp is missing; it has machine, row$",
    ),
    (lambda d: (d / "metrics.jsonl").write_text("{\n{}\n"), r"metrics\.jsonl: row 1: not readable as JSON$"),
    (
      lambda d: (d / "metrics.jsonl").write_text('{"group": 1, "step": 3, "loss": []}\n{}\n'),
      r"metrics\.jsonl: row 1: no header row names the machines of group 1$",
    ),
    (
      lambda d: (d / "metrics.jsonl").write_text(
        '{"header": true, "group": 0, "machines": ["a"]}\n{"group": 0, "step": 3, "loss": [1, 2]}\n'
      ),
      r"metrics\.jsonl: row 2: loss has 2 values for 1 machines$",
    ),
    (lambda d: (d / "evaluation.json").write_text("["), r"evaluation\.json: not readable as JSON"),
    (lambda d: (d / "evaluation.json").write_text("[]"), r"evaluation\.json: a list; a group of named"),
  ],
)
def test_damaged_files_are_refused_by_name(workdir: Path, break_it: Any, message: str) -> None:
  break_it(workdir)
  with pytest.raises(ValueError, match=message) as caught:
    read_work(str(workdir))
  assert str(workdir) in str(caught.value)


def test_cloud_and_absent_folders_are_refused(tmp_path: Path) -> None:
  with pytest.raises(ValueError, match=r"^gs://bucket/run: the report needs a local path"):
    read_work("gs://bucket/run")
  with pytest.raises(ValueError, match="there is no such work directory"):
    read_work(str(tmp_path / "gone"))


# ---- the page


def test_structure_of_the_page(workdir: Path) -> None:
  page = Page(render(read_work(str(workdir)), made="today"))
  wanted = {"fleet", "worst", "machines", "scores", "events", "evaluation", "training", "notes"}
  wanted |= {"fleet-map", "score-chart", "event-chart", "loss-chart"}
  assert wanted <= set(page.ids)
  assert len(page.ids) == len(set(page.ids))
  assert page.tags.count("script") == 4
  assert page.tags.count("h1") == page.tags.count("main") == 1
  assert page.tags.count("table") == page.tags.count("caption") == len(page.tables)
  assert ("html", "lang", "en") in page.attributes
  assert ("meta", "name", "viewport") in page.attributes
  links = [value for _, name, value in page.attributes if name == "href"]
  assert links
  assert {link.removeprefix("#") for link in links} <= set(page.ids)
  assert "run r1" in page.text
  assert "jax 9.9" in page.text


def test_the_page_loads_nothing(workdir: Path) -> None:
  text = render(read_work(str(workdir)), made="today")
  page = Page(text)
  assert not [entry for entry in page.attributes if entry[1] == "src"]
  assert not {"img", "link", "iframe", "object", "form"} & set(page.tags)
  policies = [value for tag, name, value in page.attributes if (tag, name) == ("meta", "content")]
  assert any("default-src 'none'" in value for value in policies)
  assert "prefers-color-scheme: dark" in text


def test_the_pages_files_are_all_used_and_all_packaged() -> None:
  folder = ROOT / "mtad_jax" / "report" / "assets"
  assert {path.name for path in folder.iterdir()} == {"page.css", *(f"{name}.js" for name in browser.SCRIPTS)}
  settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
  patterns = settings["mtad_jax.report"]
  assert all(any(path.match(pattern) for pattern in patterns) for path in folder.iterdir())
  for path in folder.glob("*.js"):
    assert path.read_text() in browser.script()
  text = browser.script() + browser.style()
  assert not re.search("</s|<!--", text, re.IGNORECASE), "nothing in it may close the element that it stands in"
  assert "http" not in text


def test_names_never_become_markup(workdir: Path) -> None:
  text = render(read_work(str(workdir)), made="today")
  page = Page(text)
  assert EVIL not in text
  assert "<b>cpu_r</b>" not in text
  assert EVIL in page.text, "the name is shown, as text"
  assert page.data[1]["name"] == EVIL
  assert "onerror" not in [name for _, name, _ in page.attributes]
  assert ("tr", "data-machine", EVIL) in page.attributes


def test_no_text_closes_the_data_element() -> None:
  text = embed({"a": "</script><!--<script>", "b": "\u2028&"})
  assert not set("<>&") & set(text)
  assert json.loads(text) == {"a": "</script><!--<script>", "b": "\u2028&"}
  with pytest.raises(ValueError, match="JSON"):
    embed(float("nan"))


def test_chart_data_are_the_scores(workdir: Path) -> None:
  evaluation = json.loads((workdir / "evaluation.json").read_text())
  for lane, entry in enumerate(Page(render(read_work(str(workdir)), made="today")).data):
    scores, _ = scores_of(lane)
    np.testing.assert_array_equal(decode(entry["x"]), np.arange(ROWS))
    np.testing.assert_array_equal(decode(entry["y"]), scores.astype(np.float32))
    best = evaluation["machines"][NAMES[lane]]["detector"]["oracle"]["threshold"]
    assert entry["thresholds"] == {"initial": 3.0, "pot": THRESHOLD, "best": best, "warning": None}
    assert entry["labels"] == [[100, 110], [200, 205]]
    assert entry["alarms"] == [[102, 106]]
    assert not entry["moving"]
    assert decode(entry["losses"]["loss"]["x"]).tolist() == [20, 40, 60]
  assert "validation_loss" not in entry["losses"], "a curve without a finite value is not drawn"


def test_timestamps_are_milliseconds(workdir: Path) -> None:
  write_scores(workdir, dated=True)
  entry = Page(render(read_work(str(workdir)), made="today")).data[0]
  assert entry["date"]
  np.testing.assert_array_equal(decode(entry["x"]), np.arange(ROWS) * 60_000.0)
  assert entry["labels"][0] == [100 * 60_000, 110 * 60_000]


def test_a_moving_threshold_is_a_line(workdir: Path) -> None:
  scores = read_work(str(workdir)).machines[NAMES[0]]
  moving = scores._replace(threshold=np.where(np.isnan(scores.score), np.nan, np.linspace(4, 8, ROWS)))
  figure = figures.score_figure(moving, [], None, 1000)
  assert figure["moving"]
  assert figure["thresholds"]["pot"] is None
  np.testing.assert_array_equal(decode(figure["line"]), moving.threshold.astype(np.float32))


def test_events_table(workdir: Path) -> None:
  rows = Page(render(read_work(str(workdir)), made="today")).table("of 2 events")
  assert rows[0] == ["event", "machine", "rows", "severity", "peak", "metrics behind it"]
  assert rows[1][1] == EVIL, "most severe first"
  assert rows[1][-1] == "<b>cpu_r</b> 75%, load_1 25%"
  assert rows[2][-1] == "none: no metric stands above its usual level"


def test_levels_of_events_are_shown_where_there_are_two(workdir: Path) -> None:
  table = Page(render(read_work(str(workdir)), made="today")).table("of 2 events")
  assert "level" not in table[0]
  events = pq.read_table(workdir / "events.parquet").append_column("level", pa.array(["critical", "warning"]))
  pq.write_table(events, workdir / "events.parquet")
  table = Page(render(read_work(str(workdir)), made="today")).table("of 2 events")
  column = table[0].index("level")
  assert {row[0]: row[column] for row in table[1:]} == {"event-0": "critical", "event-1": "warning"}


def test_evaluation_tables_show_figures_beside_their_floors(workdir: Path) -> None:
  evaluation = json.loads((workdir / "evaluation.json").read_text())
  page = Page(render(read_work(str(workdir)), made="today"))
  for caption, part in (("Mean over machines: 2 machines", "mean"), ("Pooled: 2 machines", "pooled")):
    table = page.table(caption)
    assert [row[0] for row in table[1:]] == [
      "detector",
      "other score: raw",
      "floor: random",
      "floor: all_positive",
    ]
    assert table[1][1] == f"{evaluation[part]['detector']['average_precision']:.3f}"
    assert table[3][1] == f"{evaluation[part]['floors']['random']['average_precision']:.3f}"
    assert table[1][2] == f"{evaluation[part]['detector']['at_threshold']['pot']['f1']:.3f}"
  worst_first = page.table("Each machine, the worst first")
  assert {row[0] for row in worst_first[1:]} == set(NAMES)
  precisions = [float(row[4].split(" / ")[0]) for row in worst_first[1:]]
  assert precisions == sorted(precisions)
  point = page.table("Share of true segments found at 1 false-alarm event a machine and day")
  assert point[0] == ["segments taken", "segments", "detector", "floor: random", "floor: all_positive"]
  recall = evaluation["operating_point"]["detector"]["recall"]
  assert point[1][:3] == ["all", "4", f"{recall:.3f}"]
  assert [row[0] for row in point[2:]] == ["false alarms a day", "weak", "spike", "spike, weak"]
  causes = page.table("How often the named metrics are the true ones")
  assert causes[1][:3] == ["all true segments", "2", "1.000 / 0.333"]
  assert "oracle: its threshold is chosen with the test labels" in page.text


def test_notes(workdir: Path) -> None:
  page = Page(render(read_work(str(workdir)), made="today"))
  assert "machine-1-1 (by step 40)" in page.text
  fits = page.table("Thresholds from peaks")
  assert fits[1][1] == "exponential: few excesses"
  assert fits[1][fits[0].index("low")] == tables.NONE
  assert fits[1][-1] == "2 / 0.250"
  done = page.table("What was done to the training split")
  assert done[1][done[0].index("filled")] == "load_1 12.5%"
  assert done[1][done[0].index("constant")].endswith("metric_5 and 2 more")


# ---- trouble in training


def test_retired_machines_are_named_at_the_top_and_in_the_notes(workdir: Path) -> None:
  page = Page(render(read_work(str(workdir)), made="today"))
  said = f"Retired in training, each scored with its best finite parameters: {EVIL}."
  assert page.text.count(said) == 2
  assert page.text.index(said) < page.text.index("Every machine of this scoring")
  (workdir / "run.json").write_text(json.dumps({"run_id": "r1", "retired": [NAMES[0]]}))
  assert render(read_work(str(workdir)), made="today").count("Retired in training") == 2, (
    "the log alone tells"
  )


def test_trouble_is_told_by_machine_and_by_step(workdir: Path) -> None:
  page = Page(render(read_work(str(workdir)), made="today"))
  head, row = page.table("Trouble in training: 1 of 2 machines")
  dash = tables.NONE
  assert dict(zip(head, row, strict=True)) == {
    "machine": EVIL,
    "steps skipped": "2",
    "rollbacks": "1 (step 25 to 20; then at learning rate 0.002)",
    "retired at step": "30",
    "validations not finite": "1",
    "first to last step": f"25{dash}30",
    "what was wrong": "spike (1), kl (1), gradients (1)",
    "gradients of": f"{EVIL} (2)",
    "worst windows before rows": "95 (1), 106 (1)",
  }
  head, newest, oldest = page.table("2 of 2 bad steps")
  assert dict(zip(head, newest, strict=True)) == {
    "machine": EVIL,
    "verdict": "retired",
    "its step": "30",
    "fleet step": "36",
    "rollbacks before": "1",
    "what was wrong": "kl, gradients",
    "gradients of": EVIL,
    "learning rate": "0.002",
    "loss": dash,
    "usual loss": "1.250",
    "worst window before": "106",
    "batch: windows before rows": "3, 106",
  }
  assert oldest[head.index("verdict")] == "rolled back"


def test_the_chart_marks_rollbacks_and_retirement(workdir: Path) -> None:
  calm, bad = Page(render(read_work(str(workdir)), made="today")).data
  assert calm["trouble"] is None
  assert bad["trouble"]["rolled_back"] == {"x": [25], "y": [0.002]}
  assert bad["trouble"]["retired"] == {"x": [36], "y": [0.002]}
  assert decode(bad["trouble"]["rate"]["x"]).tolist() == [20, 40, 60]
  np.testing.assert_allclose(decode(bad["trouble"]["rate"]["y"]), [0.004, 0.002, 0.002], rtol=1e-6)


def test_the_list_of_steps_is_capped_and_the_rest_counted(workdir: Path) -> None:
  skipped = [record("skipped", tick, step=tick) for tick in range(21, 21 + trouble.MAX_RECORDS)]
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  row = json.loads(lines[2])
  row["trouble"] = [*row["trouble"], *skipped]
  (workdir / "metrics.jsonl").write_text("\n".join([*lines[:2], json.dumps(row), lines[3]]) + "\n")
  page = Page(render(read_work(str(workdir)), made="today"))
  total = trouble.MAX_RECORDS + 2
  table = page.table(f"{trouble.MAX_RECORDS} of {total} bad steps")
  assert any("2 more in metrics.jsonl" in caption for caption in page.captions)
  order = [(cells[1], int(cells[3])) for cells in table[1:]]
  assert len(order) == trouble.MAX_RECORDS
  assert order[:3] == [("retired", 36), ("rolled back", 25), ("skipped", 20 + trouble.MAX_RECORDS)]
  assert order[-1] == ("skipped", 23)


def test_a_run_without_trouble_says_so(workdir: Path) -> None:
  write_metrics(workdir, trouble=False)
  page = Page(render(read_work(str(workdir)), made="today"))
  assert "No step was skipped, no machine rolled back or retired." in page.text
  assert "No machine was retired." in page.text
  assert "Retired in training" not in page.text
  assert [entry["trouble"] for entry in page.data] == [None, None]


@pytest.mark.parametrize("had_trouble", [True, False])
def test_a_log_of_an_older_version_is_shown_as_far_as_it_goes(workdir: Path, had_trouble: bool) -> None:
  write_metrics(workdir, trouble=had_trouble, old=True)
  work = read_work(str(workdir))
  assert list(work.missing) == ["trouble"]
  page = Page(render(work, made="today"))
  assert page.text.count("metrics.jsonl was written by an older version") == 2, "in Training and in the notes"
  assert "No machine was retired" not in page.text
  if had_trouble:
    assert page.table("Trouble in training")[1] == [EVIL, "2", *[tables.NONE] * 2, "1", *[tables.NONE] * 4]
  else:
    assert "No step was skipped." in page.text
  assert decode(page.data[0]["losses"]["loss"]["x"]).tolist() == [20, 40, 60]


@pytest.mark.parametrize(
  ("file", "said"),
  [
    ("metrics.jsonl", "There is no metrics.jsonl"),
    ("evaluation.json", "There is no evaluation.json: run scripts/evaluate.py first."),
    ("events.parquet", "There is no events.parquet"),
    ("run.json", "There is no run.json"),
    ("calibration.json", "There is no calibration.json"),
    ("fleet.json", "There is no fleet.json"),
    ("metric_scores.parquet", "There is no metric_scores.parquet"),
    ("config.json", "There is no config.json"),
  ],
)
def test_a_missing_part_says_why_and_the_rest_is_shown(workdir: Path, file: str, said: str) -> None:
  (workdir / file).unlink()
  work = read_work(str(workdir))
  assert len(work.missing) == 1
  page = Page(render(work, made="today"))
  assert said in page.text
  assert len(page.data) == len(NAMES)


def test_scores_alone_make_a_page(tmp_path: Path) -> None:
  write_scores(tmp_path)
  page = Page(render(read_work(str(tmp_path)), made="today"))
  assert page.text.count("Not shown.") >= 5
  assert page.data[0]["losses"] == {}


def test_a_large_fleet_stays_a_small_file() -> None:
  random = np.random.default_rng(0)
  num_rows = 28_000

  def machine() -> MachineScores:
    score = random.exponential(size=num_rows)
    return MachineScores(
      row=np.arange(num_rows),
      times=np.arange(num_rows) * 60_000.0,
      score=score,
      threshold=np.full(num_rows, 9.0),
      initial=4.0,
      is_anomaly=score > 9,
      valid=np.ones(num_rows, bool),
      label=score > 10,
    )

  machines = {f"machine-{index}": machine() for index in range(28)}
  parts = ("losses", "evaluation", "settings", "run", "calibration", "notes", "events", "metric_scores")
  missing = dict.fromkeys(parts, "Not there.")
  work = Work(Path("w"), machines, [], {}, None, None, {}, {}, {}, [], None, missing, {}, None)
  assert len(render(work, made="today").encode()) < 15e6
  assert figures.points_per_machine(28) == 4000
  assert figures.points_per_machine(1000) * 1000 <= figures.POINTS_PER_FLEET


@pytest.mark.parametrize(
  ("value", "text"),
  [
    (None, tables.NONE),
    (float("nan"), tables.NONE),
    (0.5, "0.500"),
    (0.0, "0.000"),
    (12.3456, "12.35"),
    (1234.5, "1,234"),
    (1e-5, "1.00e-05"),
    (1e9, "1.00e+09"),
    (1234, "1,234"),
    (True, "yes"),
    (float("inf"), "∞"),
  ],
)
def test_numbers(value: Any, text: str) -> None:
  assert tables.number(value) == text


def test_a_ragged_table_is_refused() -> None:
  with pytest.raises(ValueError, match=r"^table 't': row 1 has 1 cells; 2 are wanted$"):
    tables.table("t", [tables.Column("a"), tables.Column("b")], [["1", "2"], ["1"]])


# ---- the command


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
    [sys.executable, str(ROOT / "scripts" / "report.py"), *arguments],
    capture_output=True,
    text=True,
    timeout=60,
    cwd=ROOT,
    env={**os.environ},
  )


def test_the_command_writes_one_file_and_names_it(workdir: Path) -> None:
  (workdir / "metrics.jsonl").unlink()
  before = set(os.listdir(workdir))
  result = command(f"--workdir={workdir}")
  assert (result.returncode, result.stderr) == (0, "")
  assert set(os.listdir(workdir)) - before == {"report.html"}
  assert result.stdout.splitlines()[0].startswith("without losses: There is no metrics.jsonl")
  assert str(workdir / "report.html") in result.stdout.splitlines()[-1]
  assert Page((workdir / "report.html").read_text()).data[0]["name"] == NAMES[0]


def test_the_command_refuses_by_one_line(tmp_path: Path) -> None:
  for arguments, code, said in (
    ([f"--workdir={tmp_path}"], 1, "there are no scores to report"),
    (["--workdir=gs://bucket/run"], 1, "needs a local path"),
    ([], 2, "workdir"),
  ):
    result = command(*arguments)
    assert result.returncode == code, result.stderr
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
