"""The ledger on the report page: figures counted by hand, the moments of changes, and what the charts are given."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import scored_run
from scipy.stats import binomtest
from scored_run import bumps, make_run, minutes, score, write_thresholds
from test_report import EVIL, Page

from mtad_jax.alerts.curves import curves, ledger_curves
from mtad_jax.alerts.ledger import LEDGER, open_ledger
from mtad_jax.alerts.ranges import Range
from mtad_jax.alerts.recording import read_recording
from mtad_jax.alerts.records import Annotation, Book, Change, Span, add_annotations, add_recording, read_book
from mtad_jax.alerts.weeks import Moment, first_moments
from mtad_jax.report.inputs import read_work
from mtad_jax.report.ledger import chart_data
from mtad_jax.report.page import render

STEP_MINUTES = 60
WEEK_ROWS = 7 * 24 * 60 // STEP_MINUTES
WEEK_MS = WEEK_ROWS * STEP_MINUTES * 60_000
START_MS = int(scored_run.START.astype(np.int64))
HIGH, LOW = 3.0, 1.5  # of bumps, whose rows are at .8 of it or more: above both thresholds, above the first alone
FIRST, SECOND = 1.0, 2.0
ROLES = {EVIL: "db<b>", "web-1": "web"}
# by machine and week: the first row of each bump within its week, how high, and what is said of it
BUMPS = {
  EVIL: (
    ((20, HIGH, "true"), (60, LOW, "false"), (90, LOW, "false")),
    ((20, HIGH, "true"), (70, HIGH, "expected"), (110, LOW, "false")),
    ((30, HIGH, None),),
  ),
  "web-1": (((40, HIGH, "true"), (80, LOW, "false")), ((50, HIGH, "false"),), ((60, LOW, None), (90, HIGH, "true"))),
}
# alarms of each week as a person sees them: by the first threshold in weeks 1 and 2, by the second in week 3
COUNTS = {  # true, false, expected, open
  "2026-03-02": (2, 3, 0, 0),
  "2026-03-09": (1, 2, 1, 0),
  "2026-03-16": (1, 0, 0, 1),
}


def causes(machine: str, start: int, end: int) -> list[tuple[str, float]]:
  return [(EVIL, 0.9), ("latency", 0.1)] if machine == EVIL else [("cpu", 1.0)]


def scores_until(week: int) -> dict[str, np.ndarray]:
  """Returns the scores of the weeks before `week`, from 0."""
  found = {}
  for machine, weeks in BUMPS.items():
    heights = {
      WEEK_ROWS * number + row: height for number, own in enumerate(weeks[:week]) for row, height, _ in own
    }
    found[machine] = bumps(WEEK_ROWS * week, heights)
  return found


def record(workdir: Path, now_ms: int) -> None:
  with open_ledger(workdir, create=True) as connection:
    add_recording(connection, read_recording(workdir, workdir), now_ms)


def make_ledger(workdir: Path, *, dated: bool = True) -> Path:
  """Writes a run of three weeks, recorded week by week, the threshold raised before the third, and its verdicts."""
  make_run(workdir, ROLES, dict.fromkeys(ROLES, FIRST))
  config = json.loads((workdir / "config.json").read_text())
  config["data"]["sampling_step_s"] = 60.0 * STEP_MINUTES
  (workdir / "config.json").write_text(json.dumps(config))
  for week in (1, 2, 3):
    if week == 3:
      write_thresholds(workdir, dict.fromkeys(ROLES, SECOND))
    times = minutes(WEEK_ROWS * week, step=STEP_MINUTES) if dated else None
    score(workdir, scores_until(week), times, causes=causes)
    record(workdir, START_MS + week * WEEK_MS)
  said = {
    (machine, WEEK_ROWS * number + row): verdict
    for machine, weeks in BUMPS.items()
    for number, own in enumerate(weeks)
    for row, _, verdict in own
    if verdict is not None
  }
  with open_ledger(workdir) as connection:
    by_place = {(e.range.machine, e.range.start_row): e.range for e in read_book(connection).events}
    found = [Annotation(0, by_place[place], verdict, "ann", "", 1) for place, verdict in said.items()]
    add_annotations(connection, found, 1)
  return workdir


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
  return make_ledger(tmp_path_factory.mktemp("reviewed") / "run")


def page_of(workdir: Path) -> tuple[str, Page]:
  text = render(read_work(str(workdir)), made="today")
  return text, Page(text)


def drawn_of(text: str) -> Any:
  (found,) = re.findall(r'<script type="application/json" id="ledger-data">(.*?)</script>', text)
  return json.loads(found)


# ---- what the page says


def test_the_weeks_are_those_counted_by_hand(workdir: Path) -> None:
  _, page = page_of(workdir)
  rows = page.table("Alarms by the week")[1:]
  assert [row[0] for row in rows] == list(COUNTS)
  for row, (num_true, num_false, num_expected, num_open) in zip(rows, COUNTS.values(), strict=True):
    total = num_true + num_false + num_expected + num_open
    assert row[1:6] == [str(n) for n in (total, num_true, num_false, num_expected, num_open)]
    found = binomtest(num_true, num_true + num_false).proportion_ci(0.95, "exact")
    assert row[6:9] == [f"{value:.3f}" for value in (num_true / (num_true + num_false), found.low, found.high)]
  sums = np.sum(list(COUNTS.values()), axis=0)
  said = f"{sums[0]} true, {sums[1]} false, {sums[2]} expected, {sums[3]} not reviewed."
  told = f"{sums.sum()} alarms on record: {said}"
  assert told in page.text
  assert "1 reviewer." in page.text


def test_causes_and_groups(workdir: Path) -> None:
  _, page = page_of(workdir)
  # three of five false ones are of the first metric, which is in two true ones
  assert page.table("cover most of the false alarms")[1:] == [
    [EVIL, "db<b>", "3", "60%", "2"],
    ["cpu", "web", "2", "100%", "2"],
  ]
  for title, names in (("role", ["db<b>", "web"]), ("machine", [EVIL, "web-1"]), ("first cause", [EVIL, "cpu"])):
    rows = page.table(f"Alarms by {title}")[1:]
    assert [row[0] for row in rows] == names
    assert [row[1:6] for row in rows] == [["7", "2", "3", "1", "1"], ["4", "2", "2", "0", "0"]]


def test_changes_stand_before_and_after_on_the_same_ranges(workdir: Path) -> None:
  _, page = page_of(workdir)
  first, second = page.table("Each change beside the one before it")[1:]
  assert first[:3] == ["1", "the first", "first recorded"]
  assert second[:2] == ["2", "thresholds"]
  # raised by 2.0 on weeks 1 and 2, which both scored: all three true ones, and of five false ones the high one
  assert second[3:] == ["2026-03-23T00:00", "2026-03-16T00:00", "1", "7", "3 of 3", "3 of 3", "5 of 5", "1 of 5"]


def test_a_change_is_marked_where_it_begins_to_count(workdir: Path) -> None:
  drawn = drawn_of(page_of(workdir)[0])
  assert drawn["changes"] == [{"number": 2, "x": START_MS + 2 * WEEK_MS, "kinds": ["thresholds"]}]
  assert (drawn["dated"], drawn["first"], drawn["last"]) == (True, START_MS, START_MS + 3 * WEEK_MS)
  for place, (week, counts) in enumerate(zip(drawn["weeks"], COUNTS.values(), strict=True)):
    num_true, num_false, num_expected, num_open = counts
    assert week["x"] == START_MS + (place + 0.5) * WEEK_MS
    assert week["value"] == num_true / (num_true + num_false)
    assert (week["false"], week["open"]) == (num_false, num_open)
    assert week["reviewed"] == num_true + num_false + num_expected
    assert week["low"] <= week["value"] <= week["high"]


def test_without_a_clock_the_weeks_are_counted(tmp_path: Path) -> None:
  text, page = page_of(make_ledger(tmp_path / "run", dated=False))
  drawn = drawn_of(text)
  assert [row[0] for row in page.table("Alarms by the week")[1:]] == [f"test week {n}" for n in (1, 2, 3)]
  assert not drawn["dated"]
  assert [(week["x"], week["week"]) for week in drawn["weeks"]] == [(1, 1), (2, 2), (3, 3)]
  assert drawn["changes"] == [{"number": 2, "x": 2.5, "kinds": ["thresholds"]}]
  assert (drawn["first"], drawn["last"], drawn["tick"]) == (0.5, 3.5, 1)


def test_names_never_become_markup_nor_reach_the_charts(workdir: Path) -> None:
  text, page = page_of(workdir)
  assert EVIL not in text
  assert "db<b>" not in text
  assert EVIL in page.text
  told = json.dumps(drawn_of(text))
  assert "alert" not in told
  assert "db" not in told
  assert "web" not in told


def test_a_run_without_a_ledger_has_no_such_section(workdir: Path, tmp_path: Path) -> None:
  other = Path(shutil.copytree(workdir, tmp_path / "run"))
  (other / LEDGER).unlink()
  assert ledger_curves(other) is None
  text, page = page_of(other)
  assert "ledger" not in page.ids
  assert "#ledger" not in [value for _, name, value in page.attributes if name == "href"]
  assert 'id="ledger-data"' not in text
  _, whole = page_of(workdir)
  assert {"ledger", "precision-chart", "false-chart"} <= set(whole.ids) - set(page.ids)
  assert "#ledger" in [value for _, name, value in whole.attributes if name == "href"]
  assert not (other / LEDGER).exists(), "a report makes no ledger"


def test_a_ledger_without_alarms_says_so(tmp_path: Path) -> None:
  run = make_run(tmp_path / "run", ROLES, dict.fromkeys(ROLES, FIRST))
  score(run, {name: bumps(50, {}) for name in ROLES}, minutes(50))
  record(run, 0)
  _, page = page_of(run)
  assert "The ledger holds no alarm yet." in page.text
  assert "ledger-data" not in page.ids
  assert "precision-chart" not in page.ids
  assert [row[0] for row in page.table("Alarms by the week")[1:]] == ["2026-03-02"]


def test_a_damaged_ledger_is_refused_by_name(workdir: Path, tmp_path: Path) -> None:
  other = Path(shutil.copytree(workdir, tmp_path / "run"))
  (other / LEDGER).write_bytes(b"no database" * 100)
  with pytest.raises(ValueError, match=rf"{LEDGER}: file is not a database"):
    read_work(str(other))


# ---- where a change begins to count


def span(change: int, machine: str, first: int, end: int, *, dated: bool = True, step_s: float | None = 60.0) -> Span:
  times = (START_MS + 60_000 * first, START_MS + 60_000 * (end - 1)) if dated else (None, None)
  return Span(change, Range(machine, "test", first, end, *times), step_s)


def slow_first_rows(spans: Sequence[Span]) -> dict[int, int]:
  """Returns, by change, the first row of a machine behind all that the changes before it scored of that machine."""
  found: dict[int, int] = {}
  for change in sorted({each.change_id for each in spans}):
    for machine in {each.range.machine for each in spans}:
      of_machine = [each for each in spans if each.range.machine == machine]
      before = [row for each in of_machine if each.change_id < change for row in rows_of(each)]
      own = [row for each in of_machine if each.change_id == change for row in rows_of(each)]
      new = [row for row in own if row > max(before, default=-1)]
      if new:
        found[change] = min(found.get(change, min(new)), min(new))
  return found


def rows_of(found: Span) -> range:
  assert found.range.start_row is not None
  assert found.range.end_row is not None
  return range(found.range.start_row, found.range.end_row)


@pytest.mark.parametrize("dated", [True, False])
def test_first_moments_equal_a_slow_count(dated: bool) -> None:
  rng = np.random.default_rng(4)
  some = 0
  for _ in range(60):
    spans = []
    for _ in range(rng.integers(1, 8)):
      first = int(rng.integers(0, 60))
      change, machine = int(rng.integers(1, 5)), "ab"[rng.integers(2)]
      spans.append(span(change, machine, first, first + int(rng.integers(1, 30)), dated=dated))
    wanted = slow_first_rows(spans)
    some += len(wanted) < len({each.change_id for each in spans})
    if dated:
      assert {change: moment.ms for change, moment in first_moments(spans).items()} == {
        change: START_MS + 60_000 * row for change, row in wanted.items()
      }
    else:
      assert first_moments(spans) == dict.fromkeys(wanted, Moment(None, "test week 1"))
  assert some > 10, "no change was without rows of its own"


def test_spans_that_nothing_dates_begin_nowhere() -> None:
  assert first_moments([span(1, "a", 0, 10, dated=False, step_s=None)]) == {}
  late = span(2, "a", 20_000, 20_010, dated=False)
  assert first_moments([late]) == {2: Moment(None, "test week 2")}
  assert first_moments([span(1, "a", 0, 10_090)])[1] == Moment(START_MS, "2026-03-02")


def test_kinds_tell_what_a_change_changed() -> None:
  first = Change(1, "a", "run", (1,), "joint", {"a": 1.0}, {"merge_gap_rows": 5}, None, "made", 0)
  steps: list[tuple[dict[str, Any], list[str]]] = [
    ({"run_id": "other"}, ["model"]),
    ({"checkpoint_steps": (2,), "thresholds": {"a": 2.0}}, ["model", "thresholds"]),
    ({"prior": "digest"}, ["prior"]),
    ({"rule": "gamma"}, ["settings"]),
    ({"settings": {"merge_gap_rows": 9}}, ["settings"]),
  ]
  changes = [first]
  for number, (fields, _) in enumerate(steps):
    changes.append(changes[-1]._replace(id=number + 2, digest=str(number), **fields))
  found = curves(Book(changes, [], [], []))["changes"]
  assert [entry["kinds"] for entry in found] == [[], *[kinds for _, kinds in steps]]
  assert [entry["since_week"] for entry in found] == [None] * len(changes)


# ---- what the browser is told to draw

_DOM = """
const html = require('fs').readFileSync(process.argv[1], 'utf8'), width = Number(process.argv[2]);
const scripts = [...html.matchAll(/<script([^>]*)>([^]*?)<\\/script>/g)], places = {}, drawn = {};
const place = id => places[id] = places[id] || {id, value: '0', textContent: '', dataset: {}, addEventListener() {},
  classList: {toggle() {}}};
for (const [, , id] of html.matchAll(/<(\\w+)[^>]* id="([^"]+)"/g)) place(id);
for (const [, about, text] of scripts) {
  const id = about.match(/id="([^"]+)"/);
  if (id) place(id[1]).textContent = text;
}
global.document = {getElementById: id => places[id] || null, querySelectorAll: () => [],
  documentElement: {classList: {contains: () => false}}};
global.window = {innerWidth: width};
global.getComputedStyle = () => ({getPropertyValue: () => ' #123456'});
global.matchMedia = () => ({addEventListener() {}});
global.Plotly = {react: (place, data, layout) => { drawn[place.id] = {data, layout}; }};
eval(process.argv[3] + '\\ndrawLedger();');
console.log(JSON.stringify(drawn));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node runs the page's script")
@pytest.mark.parametrize(("dated", "width"), [(True, 1200), (True, 390), (False, 1200)])
def test_the_script_draws_valid_figures(workdir: Path, tmp_path: Path, dated: bool, width: int) -> None:
  run = workdir if dated else make_ledger(tmp_path / "run", dated=False)
  file = tmp_path / "page.html"
  file.write_text(page_of(run)[0])
  script = "\n".join(
    (resources.files("mtad_jax.report") / "assets" / name).read_text() for name in ("common.js", "ledger.js")
  )
  command = ["node", "-e", _DOM, str(file), str(width), script]
  done = subprocess.run(command, capture_output=True, text=True, timeout=60)
  assert done.returncode == 0, done.stderr
  drawn = json.loads(done.stdout)
  # the library refuses an attribute that it does not know
  precision, alarms = (
    go.Figure(drawn[name]["data"], drawn[name]["layout"]) for name in ("precision-chart", "false-chart")
  )
  points, reviewed, not_reviewed = precision.data
  counts = np.array(list(COUNTS.values()))
  np.testing.assert_allclose(points.y, counts[:, 0] / (counts[:, 0] + counts[:, 1]))
  bars = zip(points.y, points.error_y.array, points.error_y.arrayminus, strict=True)
  for place, (value, up, down) in enumerate(bars):
    interval = binomtest(int(counts[place, 0]), int(counts[place, :2].sum())).proportion_ci(0.95, "exact")
    np.testing.assert_allclose([value - down, value + up], [interval.low, interval.high], atol=1e-12)
  np.testing.assert_array_equal(reviewed.y, counts[:, :3].sum(axis=1))
  np.testing.assert_array_equal(not_reviewed.y, counts[:, 3])
  false, still_open, change = alarms.data
  np.testing.assert_array_equal(false.y, counts[:, 1])
  np.testing.assert_array_equal(still_open.y, counts[:, 3])
  assert change.name == "change of thresholds"
  assert list(change.x[:2]) == (["2026-03-16T00:00:00.000"] * 2 if dated else [2.5, 2.5])
  assert change.text[1] == "2"


def test_chart_data_of_a_ledger_without_weeks_is_an_empty_axis() -> None:
  found = chart_data(curves(Book([], [], [], [])))
  assert (found["weeks"], found["changes"]) == ([], [])
  assert found["first"] < found["last"]
