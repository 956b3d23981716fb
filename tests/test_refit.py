"""Thresholds refitted from annotations, and what the figures make of a month of reviewing with a known truth."""

import datetime
import json
from pathlib import Path

import numpy as np
import pytest
from fleets import refused, run_here, succeeded
from scored_run import bumps, event_ranges, make_run, minutes, score, thresholds_of, write_thresholds

from mtad_jax.alerts.curves import ledger_curves
from mtad_jax.alerts.ledger import open_ledger
from mtad_jax.alerts.records import read_book
from mtad_jax.alerts.refit import Evidence, refit
from mtad_jax.alerts.statistics import interval, precision
from mtad_jax.config import DetectConfig
from mtad_jax.train.writer_lock import writer_lock

ROLES = {"web-1": "web", "web-2": "web", "db-1": "db"}
SCORES = {
  "web-1": bumps(400, {20: 1.5, 60: 2.0, 100: 1.2, 140: 1.7, 180: 1.1, 220: 9.0, 260: 5.0}),
  "web-2": bumps(400, {30: 1.4}),
  "db-1": bumps(400, {50: 3.0, 90: 6.0, 130: 1.5, 170: 1.6, 210: 1.4}),
}
TRUE = {("web-1", 220), ("web-1", 260), ("db-1", 50)}  # db-1's false alarm at 90 is higher than its true one


def annotate(run: Path, *words: str):
  return run_here("annotate.py", f"--workdir={run}", *words)


def reviewed(tmp_path: Path) -> Path:
  """Returns a scored run, all of whose events are recorded and marked by TRUE."""
  run = make_run(tmp_path / "run", ROLES, dict.fromkeys(ROLES, 1.0))
  score(run, SCORES, minutes(400), moved=-1.0)
  succeeded(annotate(run, "record"))
  with open_ledger(run) as connection:
    events = read_book(connection).events
  for event in events:
    start = event.range.start_row // 10 * 10
    verdict = "true" if (event.range.machine, start) in TRUE else "false"
    succeeded(annotate(run, "mark", str(event.id), verdict, "--author=ann", "--comment=seen"))
  return run


def raised(run: Path) -> tuple[int, int]:
  """Returns how many (true, false) ranges the thresholds in force raise, by the rule that makes events."""
  with open_ledger(run) as connection:
    marked = read_book(connection).annotations
  found = event_ranges(run, SCORES)
  hit = [
    any(start < m.range.end_row and m.range.start_row < end for start, end in found[m.range.machine]) for m in marked
  ]
  return tuple(sum(h for h, m in zip(hit, marked) if m.verdict == verdict) for verdict in ("true", "false"))


def test_a_refit_lowers_false_alarms_and_loses_no_true_event(tmp_path: Path) -> None:
  run = reviewed(tmp_path)
  before = raised(run)
  text = (run / "calibration.json").read_text()
  done = succeeded(annotate(run, "refit"))
  assert "a preview: nothing was written" in done.stdout
  assert (run / "calibration.json").read_text() == text
  done = succeeded(annotate(run, "refit", "--write"))
  assert "calibrate.py, run again, makes fresh thresholds" in done.stdout
  after = raised(run)
  assert before[0] == after[0] == len(TRUE)
  assert (before[1], after[1]) == (10, 2)  # web-2's has too few annotations, db-1's is above a true one
  limits = thresholds_of(run)
  assert limits["web-1"] == pytest.approx(2.0, rel=2e-4)  # the smallest that silences its highest false alarm
  assert limits["db-1"] == pytest.approx(1.6, rel=2e-4)
  assert limits["web-2"] == 1.0
  with open_ledger(run) as connection:
    changes = read_book(connection).changes
  assert [(change.id, change.note) for change in changes] == [(1, "first recorded"), (2, "refit")]
  assert (changes[0].thresholds["web-1"], changes[1].thresholds) == (1.0, limits)
  refused(annotate(run, "refit"), 1, "run score.py again")
  score(run, SCORES, minutes(400))
  assert "every threshold stays" in succeeded(annotate(run, "refit", "--write")).stdout
  succeeded(annotate(run, "record"))
  curves = ledger_curves(run)
  assert curves is not None
  assert curves["changes"][1]["before"] == {
    "num_true": 3, "num_true_raised": 3, "num_false": 10, "num_false_raised": 10
  }  # fmt: skip
  assert curves["changes"][1]["after"] == {
    "num_true": 3, "num_true_raised": 3, "num_false": 10, "num_false_raised": 2
  }  # fmt: skip
  assert curves["total"]["num_false"] == 10  # scored again, the past is not rewritten


def test_a_verdict_carries_over_to_events_of_later_versions(tmp_path: Path) -> None:
  run = reviewed(tmp_path)
  write_thresholds(run, {"web-1": 8.0, "web-2": 1.3, "db-1": 1.0})  # both begin a row or more later than before
  score(run, SCORES, minutes(400))
  succeeded(annotate(run, "record"))
  lines = succeeded(annotate(run, "list", "--change=2", "--role=web")).stdout.splitlines()
  assert [[word for word in ("true", "false", "(carried over)") if word in line] for line in lines[1:3]] == [
    ["true", "(carried over)"], ["false", "(carried over)"]
  ]  # fmt: skip
  refused(annotate(run, "undo", lines[1].split()[0], "--author=ann"), 1, "its verdict is carried over from event")
  succeeded(annotate(run, "mark", lines[1].split()[0], "expected", "--author=ann"))  # its own goes before
  assert "expected" in annotate(run, "list", "--change=2", "--machine=web-1").stdout
  assert "1 events" in annotate(run, "list", "--change=2", "--verdict=expected").stdout
  assert "13 events, 0 of them open" in succeeded(annotate(run, "list")).stdout  # each alarm once, as first shown


def test_a_refit_is_refused_while_another_program_writes(tmp_path: Path) -> None:
  run = reviewed(tmp_path)
  text = (run / "calibration.json").read_text()
  with writer_lock(run, "train.py"):
    refused(annotate(run, "refit", "--write"), 1, "train.py (process", "is writing here")
  assert (run / "calibration.json").read_text() == text


def test_proposals_are_lines_of_a_prior(tmp_path: Path) -> None:
  import tomllib

  run = reviewed(tmp_path)
  assert "# None" in succeeded(annotate(run, "propose")).stdout  # cpu is named first in true ones too
  with open_ledger(run) as connection:
    events = read_book(connection).events
  for event in events:
    if event.range.machine == "web-1" and event.peak >= 5:
      succeeded(annotate(run, "undo", str(event.id), "--author=ann"))
  entries = tomllib.loads(succeeded(annotate(run, "propose")).stdout)["metric"]
  assert entries == [{"name": "cpu", "role": "web", "varies": 0.1, "of": "range"}]


def test_csv_round_trip_undo_and_bad_rows(tmp_path: Path) -> None:
  run, sheet = reviewed(tmp_path), tmp_path / "review.csv"
  succeeded(annotate(run, "undo", "1", "--author=bob", "--comment=a \"quote\", and\na line"))
  assert "there is no verdict to take back" in refused(annotate(run, "undo", "1", "--author=bob"), 1)
  succeeded(annotate(run, "export", str(sheet)))
  assert "0 annotations new" in succeeded(annotate(run, "import", str(sheet))).stdout
  fresh = make_run(tmp_path / "fresh", ROLES, dict.fromkeys(ROLES, 1.0))
  score(fresh, SCORES, minutes(400))
  succeeded(annotate(fresh, "record"))
  succeeded(annotate(fresh, "import", str(sheet)))
  books = []
  for folder in (run, fresh):
    with open_ledger(folder) as connection:
      books.append(read_book(connection).annotations)
  assert books[0] == books[1]
  assert len(books[0]) == 14
  lines = sheet.read_text().splitlines()
  bad = tmp_path / "bad.csv"
  bad.write_text("machine,verdict,author,start_row,end_row\nweb-1,true,ann,300,310\nweb-1,maybe,ann,320,330\n")
  refused(annotate(run, "import", str(bad)), 1, "bad.csv: row 3: field 'verdict': 'maybe' is not allowed")
  with open_ledger(run) as connection:
    assert read_book(connection).annotations == books[0]  # whole or not at all
  for row, told in {
    "web-9,true,ann,1,2": "row 2: field 'machine': 'web-9' is not in this run",
    "web-1,true,,1,2": "row 2: field 'author': ''",
    "web-1,true,ann,x,2": "row 2: field 'start_row': 'x' is no row",
    "web-1,true,ann,5,2": "row 2: field 'end_row': '2' is not above start_row, 5",
    "web-1,true,ann,5": "row 2: 4 fields; 5 are wanted",
    "web-1,true,ann,,": "row 2: field 'start_row': '' is no range",
  }.items():
    bad.write_text(f"machine,verdict,author,start_row,end_row\n{row}\n")
    refused(annotate(run, "import", str(bad)), 1, f"bad.csv: {told}")
  assert lines[0].startswith("event,change,machine")


def test_wrong_usage_is_one_line(tmp_path: Path) -> None:
  run = reviewed(tmp_path)
  refused(annotate(run), 2, "a command is wanted, one of record, list")
  refused(annotate(run, "delete", "3"), 2, "'delete' is no command")
  refused(annotate(run, "mark", "3"), 2, "mark EVENT VERDICT is wanted, not mark 3")
  refused(annotate(run, "mark", "3", "maybe", "--author=a"), 2, "'maybe' is no verdict")
  refused(annotate(run, "mark", "3", "true"), 2, "--author: a name is wanted")
  refused(annotate(run, "show", "99"), 1, "event '99': not in the ledger; there are 1 to 13")
  refused(annotate(run, "list", "--write"), 2, "--write: list does not read it")
  gone = run_here("annotate.py", "--workdir=gs://bucket/run", "record")
  refused(gone, 1, "gs://bucket/run: the ledger needs a local path")
  done = succeeded(annotate(run, "list", "--machine=web-1", "--verdict=true", "--since=2026-03-02T04:00"))
  assert "1 events, 0 of them open" in done.stdout
  assert "ann: true" in succeeded(annotate(run, "show", "web-1:220-224")).stdout


def test_a_month_of_reviewing_gives_the_precision_of_its_truth(tmp_path: Path) -> None:
  """Four weeks recorded as they come in, a random part of them reviewed, some verdicts given wrongly and mended."""
  rng = np.random.default_rng(0)
  rows, step = 28 * 48, 30  # one row every half hour
  run = make_run(tmp_path / "run", ROLES, dict.fromkeys(ROLES, 1.0))
  starts = {name: np.arange(10, rows - 20, 21) for name in ROLES}
  heights = {name: {int(row): float(rng.uniform(1.5, 9)) for row in starts[name]} for name in ROLES}
  values = {name: bumps(rows, heights[name]) for name in ROLES}
  truth = {(name, row): bool(rng.random() < 0.6) for name in ROLES for row in heights[name]}
  metric = {key: ("cpu", "disk", "queue")[rng.integers(3)] for key in truth}

  def causes(machine: str, start: int, end: int) -> list[tuple[str, float]]:
    return [(metric[machine, starts[machine][np.searchsorted(starts[machine], start, "right") - 1]], 1.0)]

  for week in range(1, 5):
    count = week * 7 * 48
    score(run, {name: v[:count] for name, v in values.items()}, minutes(count, step=step), causes=causes)
    succeeded(annotate(run, "record"))
  with open_ledger(run) as connection:
    events = read_book(connection).events
  assert len(events) == len(truth)
  lines, expected = ["machine,verdict,start,end,author"], {}
  for event in events:
    place = event.range
    own = starts[place.machine]
    key = (place.machine, int(own[np.searchsorted(own, place.start_row, "right") - 1]))
    monday = datetime.date(2026, 3, 2) + datetime.timedelta(weeks=int(place.start_row) // (7 * 48))
    verdict = None
    if rng.random() < 0.7:
      verdict = "expected" if rng.random() < 0.1 else str(truth[key]).lower()
      start, end = (np.datetime64(ms, "ms") for ms in (place.start_ms, place.end_ms))
      if rng.random() < 0.2:
        lines.append(f"{place.machine},{'true' if verdict == 'false' else 'false'},{start},{end},bob")
      lines.append(f"{place.machine},{verdict},{start},{end},ann")
    for name in ("total", ROLES[place.machine], place.machine, metric[key], monday.isoformat()):
      expected.setdefault(name, []).append(verdict)
  (tmp_path / "review.csv").write_text("\n".join(lines))
  succeeded(annotate(run, "import", str(tmp_path / "review.csv")))
  curves = json.loads(succeeded(annotate(run, "summary", "--json")).stdout)
  assert curves == ledger_curves(run)
  found = {"total": curves["total"], **curves["roles"], **curves["machines"], **curves["metrics"]}
  found |= {week["week"]: week for week in curves["weeks"]}
  assert set(found) == set(expected)
  for name, verdicts in expected.items():
    counts = [verdicts.count(verdict) for verdict in ("true", "false", "expected", None)]
    told = [found[name][f"num_{kind}"] for kind in ("true", "false", "expected", "open")]
    assert told == counts, name
    assert found[name]["value"] == counts[0] / (counts[0] + counts[1])
    assert (found[name]["low"], found[name]["high"]) == interval(counts[0], counts[1])
  share = np.mean(list(truth.values()))
  assert curves["total"]["low"] < share < curves["total"]["high"]
  assert sum(week["machine_weeks"] for week in curves["weeks"]) == pytest.approx(3 * (4 - 3 / 336))
  text = succeeded(annotate(run, "summary")).stdout
  assert f"{curves['total']['value']:.3f}" in text


def test_the_interval_covers_as_often_as_it_says() -> None:
  """Drawn months of a known precision; and every count there can be, weighed by its probability."""
  from scipy import stats

  rng, covered = np.random.default_rng(1), 0
  for _ in range(2000):
    share, count = rng.uniform(0.05, 0.95), int(rng.integers(5, 80))
    draws = rng.random(count) < share
    found = precision([str(bool(draw)).lower() for draw in draws] + [None] * 5)
    covered += found.low <= share <= found.high
  assert covered / 2000 > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 2000)
  for count in (1, 7, 40):
    for share in (0.02, 0.3, 0.5, 0.9):
      inside = [k for k in range(count + 1) if (i := interval(k, count - k))[0] <= share <= i[1]]
      assert stats.binom.pmf(inside, count, share).sum() >= 0.95
  assert interval(0, 0) == (0.0, 1.0)
  expected = stats.binomtest(7, 10).proportion_ci(0.95, "exact")
  assert interval(7, 3) == pytest.approx((expected.low, expected.high))


def evidence(machine: str, scores: np.ndarray, true: list[int], false: list[int], floor: float = 1.0) -> Evidence:
  pairs = [np.array([(row, row + 4) for row in rows], np.int64).reshape(-1, 2) for rows in (true, false)]
  return Evidence(machine, "web", scores, 1.0, 1.0, floor, *pairs, 0)


def test_machines_with_few_annotations_share_a_factor() -> None:
  members = [evidence(f"web-{i}", bumps(100, {20: 1.2 + i / 10, 60: 4.0}), [60], [20]) for i in range(3)]
  found = refit(members, DetectConfig(), min_annotations=6)
  assert [each.factor for each in found] == pytest.approx([1.4] * 3, rel=2e-4)
  assert [(each.num_true_then, each.num_false_then) for each in found] == [(1, 0)] * 3
  alone = refit(members[:2], DetectConfig(), min_annotations=6)
  assert [each.threshold for each in alone] == [None, None]
  assert alone[0].basis == "role web: 4 ranges of 2 machines, fewer than 6"


def test_the_factor_is_the_best_of_a_slow_search() -> None:
  rng = np.random.default_rng(3)
  for _ in range(20):
    rows = rng.permutation(np.arange(10, 390, 20))[:10]
    scores = bumps(400, {int(row): float(rng.uniform(1.3, 5)) for row in rows})
    true, false = rows[:3].tolist(), rows[3:].tolist()
    (found,) = refit([evidence("a", scores, true, false)], DetectConfig(min_event_rows=2))

    def raised(at: float, places: list[int], scores: np.ndarray = scores) -> int:
      return sum(int(np.sum(scores[row : row + 4] > at)) >= 2 for row in places)

    limits = [limit for limit in np.unique(scores[scores >= 1]) if raised(limit * 1.0003, true) == raised(1.0, true)]
    assert found.num_true_then == raised(1.0, true)
    fewest = [raised(1.0, false), *(raised(limit * 1.0001, false) for limit in limits)]
    assert found.num_false_then == min(fewest)


def test_a_missed_range_is_raised_only_where_it_is_asked_for() -> None:
  scores = bumps(100, {20: 0.8, 60: 4.0})
  for floor, factor, num_true in ((1.0, 1.0, 1), (0.0, 0.8, 2)):
    (found,) = refit([evidence("a", scores, [20, 60], [], floor)], DetectConfig(), min_annotations=1)
    assert (found.factor, found.num_true_then) == (pytest.approx(factor, rel=3e-4), num_true)
