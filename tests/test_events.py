"""Events, severity, and the contributions of metrics to an event."""

import numpy as np
import pytest

from mtad_jax.detect.events import find_events, runs, severity
from mtad_jax.explain.contributions import ONSET_ROWS, contributions, rank_metrics


def mask(text: str) -> np.ndarray:
  return np.array([letter == "x" for letter in text])


def slow_events(alarms: np.ndarray, gap: int, least: int) -> list[tuple[int, int]]:
  events: list[list[int]] = []
  for row in np.flatnonzero(alarms):
    if events and row - events[-1][-1] - 1 <= gap:
      events[-1].append(int(row))
    else:
      events.append([int(row)])
  return [(rows[0], rows[-1] + 1) for rows in events if len(rows) >= least]


def test_runs() -> None:
  assert runs(mask("xx..x.x")).tolist() == [[0, 2], [4, 5], [6, 7]]
  assert runs(mask("....")).shape == (0, 2)
  assert runs(np.zeros(0, bool)).shape == (0, 2)


def test_merging_and_dropping() -> None:
  alarms = mask("x..x...x.xx")
  valid = np.ones(len(alarms), bool)
  found = find_events(alarms, valid, merge_gap_rows=2, min_event_rows=1)
  assert found.tolist() == [[0, 4], [7, 11]]
  assert find_events(alarms, valid, merge_gap_rows=2, min_event_rows=3).tolist() == [[7, 11]]
  valid[0] = False
  assert find_events(alarms, valid, merge_gap_rows=2, min_event_rows=1)[0].tolist() == [3, 4]


@pytest.mark.parametrize(("gap", "least"), [(0, 1), (1, 2), (5, 3), (50, 1)])
def test_events_equal_a_slow_reference(gap: int, least: int) -> None:
  rng = np.random.default_rng(gap)
  for share in (0.02, 0.3, 0.9):
    alarms, valid = rng.uniform(size=300) < share, rng.uniform(size=300) < 0.9
    found = find_events(alarms, valid, merge_gap_rows=gap, min_event_rows=least)
    assert [tuple(row) for row in found.tolist()] == slow_events(alarms & valid, gap, least)


def slow_shaped(
  alarms: np.ndarray,
  held: np.ndarray,
  valid: np.ndarray,
  gap: int,
  least: int,
  checks: int,
  window: int,
  cooldown: int,
) -> list[tuple[int, int]]:
  """One row after the other, as a person would watch them."""
  found: list[list[int]] = []  # [first row, end, alarm rows]
  seen: list[bool] = []  # valid rows so far
  is_on, stretch_end, begin, count = False, -(10**9), None, 0
  for row in range(len(alarms)):
    if valid[row]:
      seen.append(bool(alarms[row]))
    if valid[row] and alarms[row]:
      if not is_on and row - stretch_end > gap:  # nothing goes on here: a new stretch
        begin, count = None, 0
      is_on = True
      if begin is None and sum(seen[-window:]) >= checks:
        begin = row
        found.append([row, row + 1, 0])
    elif not (valid[row] and held[row]):
      is_on = False
    if is_on:
      stretch_end = row + 1
      if begin is not None:
        found[-1][1] = row + 1
        found[-1][2] += int(alarms[row])
  joined: list[list[int]] = []
  for first, end, count in found:
    if count < least:
      continue
    if joined and first - joined[-1][1] <= cooldown:
      joined[-1][1] = end
    else:
      joined.append([first, end])
  return [(first, end) for first, end in joined]


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, int]]:
  """Returns alarms, held rows, valid rows of a series that lingers, and settings."""
  rng = np.random.default_rng(seed)
  level = np.cumsum(rng.normal(size=400)) * 0.3 + rng.normal(size=400)
  alarms, held = level > 1.0, level > rng.choice([1.0, 0.3])
  window = int(rng.integers(1, 8))
  settings = {
    "merge_gap_rows": int(rng.integers(0, 6)),
    "min_event_rows": int(rng.integers(1, 4)),
    "alarm_checks": int(rng.integers(1, window + 1)),
    "alarm_window_checks": window,
    "cooldown_rows": int(rng.integers(0, 30)),
  }
  return alarms, held, rng.uniform(size=400) < rng.choice([0.7, 1.0]), settings


@pytest.mark.parametrize("seed", range(60))
def test_shaped_events_equal_a_row_by_row_reference(seed: int) -> None:
  alarms, held, valid, settings = drawn(seed)
  found = find_events(alarms, valid, is_held=held, **settings)
  wanted = slow_shaped(alarms, held, valid, *settings.values())
  assert [tuple(row) for row in found.tolist()] == wanted


@pytest.mark.parametrize("seed", range(20))
def test_where_events_begin_depends_on_no_later_row(seed: int) -> None:
  alarms, held, valid, settings = drawn(seed)
  settings["min_event_rows"] = 1
  whole = find_events(alarms, valid, is_held=held, **settings)[:, 0]
  for num in range(1, 400, 7):
    begins = find_events(alarms[:num], valid[:num], is_held=held[:num], **settings)[:, 0]
    assert begins.tolist() == whole[whole < num].tolist()


def test_k_of_n_hysteresis_and_cooldown_one_by_one() -> None:
  alarms = mask("x.x......xx...x.x.x")
  valid = np.ones(len(alarms), bool)
  plain = {"merge_gap_rows": 0, "min_event_rows": 1}
  # where the second of three checks is above, which a row that was not scored is none of
  assert find_events(alarms, valid, **plain, alarm_checks=2, alarm_window_checks=3).tolist() == [
    [2, 3], [10, 11], [16, 17], [18, 19],
  ]  # fmt: skip
  unscored = valid.copy()
  unscored[1] = False
  found = find_events(alarms, unscored, **plain, alarm_checks=2, alarm_window_checks=2)
  assert found.tolist() == [[2, 3], [10, 11]]
  # held rows prolong and never begin
  held = mask("xxxxx..xxxxxx......")
  assert find_events(alarms, valid, **plain, is_held=held).tolist() == [
    [0, 5], [9, 13], [14, 15], [16, 17], [18, 19],
  ]  # fmt: skip
  # what comes again within the cool-down is the same event
  assert find_events(alarms, valid, **plain, cooldown_rows=5).tolist() == [[0, 3], [9, 19]]


def test_event_errors() -> None:
  with pytest.raises(ValueError, match="alarm_window_checks: 2 is out of range; allowed: 3 and above"):
    find_events(mask("x"), mask("x"), merge_gap_rows=0, min_event_rows=1, alarm_checks=3, alarm_window_checks=2)
  with pytest.raises(ValueError, match="cooldown_rows: -1 is out of range"):
    find_events(mask("x"), mask("x"), merge_gap_rows=0, min_event_rows=1, cooldown_rows=-1)
  with pytest.raises(ValueError, match="merge_gap_rows: -1 is out of range; allowed: 0 and above"):
    find_events(mask("x"), mask("x"), merge_gap_rows=-1, min_event_rows=1)
  with pytest.raises(ValueError, match="min_event_rows: 0 is out of range; allowed: 1 and above"):
    find_events(mask("x"), mask("x"), merge_gap_rows=0, min_event_rows=0)
  with pytest.raises(ValueError, match=r"is_anomaly has shape \(2,\), valid \(1,\)"):
    find_events(mask("xx"), mask("x"), merge_gap_rows=0, min_event_rows=1)


def test_severity() -> None:
  assert severity(np.array([0.0, 1.0, 2.0, 10.0, np.inf])).tolist() == [0, 0, 0.5, 0.9, 1]
  assert np.all(np.diff(severity(np.geomspace(1, 1e6, 50))) > 0)
  assert np.isnan(severity(np.nan))


def test_contributions_name_the_metric_that_moved() -> None:
  scores = np.random.default_rng(0).exponential(size=(30, 5))
  usual = np.ones(5)
  scores[:, 3] += 20
  shares = contributions(scores, usual)
  assert np.sum(shares) == pytest.approx(1)
  assert np.all(shares >= 0)
  assert rank_metrics(shares)[0] == 3
  assert shares[3] > 0.8


def test_onset_and_peak_outweigh_what_spreads_later() -> None:
  scores = np.zeros((40, 2))
  scores[:6, 0] = 10.0  # the cause
  scores[ONSET_ROWS:, 1] = 2.0  # what it drags along, longer than itself
  assert np.sum(scores[:, 1]) > np.sum(scores[:, 0])
  assert rank_metrics(contributions(scores, np.zeros(2)))[0] == 0


def test_usual_levels_are_no_cause() -> None:
  usual = np.array([100.0, 1.0, 1.0])
  shares = contributions(np.array([[100.0, 5.0, 0.0]]), usual)
  assert shares.tolist() == [0, 1, 0]


def test_unit_and_order_do_not_matter() -> None:
  rng = np.random.default_rng(4)
  scores, usual, order = rng.exponential(size=(12, 6)), np.full(6, 0.4), rng.permutation(6)
  shares = contributions(scores, usual)
  np.testing.assert_allclose(contributions(1e3 * scores, 1e3 * usual), shares, rtol=1e-12)
  np.testing.assert_allclose(contributions(scores[:, order], usual[order]), shares[order], rtol=1e-12)


def test_no_cause_is_zeros_and_missing_rows_are_left_out() -> None:
  assert contributions(np.zeros((3, 2)), np.ones(2)).tolist() == [0, 0]
  assert contributions(np.full((3, 2), np.nan), np.ones(2)).tolist() == [0, 0]
  assert contributions(np.array([[np.nan, 9.0], [3.0, 1.0]]), np.ones(2)).tolist() == [1, 0]


def test_contribution_errors() -> None:
  with pytest.raises(ValueError, match=r"metric_scores has shape \(3, 2\), usual \(3,\)"):
    contributions(np.zeros((3, 2)), np.ones(3))
  with pytest.raises(ValueError, match="metric_scores: metric 1 has an infinite score"):
    contributions(np.array([[0.0, np.inf]]), np.ones(2))
  with pytest.raises(ValueError, match="usual: metric 0 has no finite usual level"):
    contributions(np.zeros((1, 2)), np.array([np.nan, 1.0]))


def test_ties_in_the_ranking_keep_the_order() -> None:
  assert rank_metrics(np.array([0.2, 0.4, 0.2, 0.2])).tolist() == [1, 0, 2, 3]
