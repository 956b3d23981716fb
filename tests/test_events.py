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


def test_event_errors() -> None:
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
