"""Thresholds that follow the scores: POT's at first, the promise, drift, alarms that last, causality, parts."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats

from mtad_jax.config import DetectConfig
from mtad_jax.detect import spot
from mtad_jax.detect.pot import fit_pot
from mtad_jax.detect.thresholds import (
  SMALLEST_THRESHOLD,
  calibration_thresholds,
  critical_rate,
  fit_threshold,
  row_thresholds,
)

Q = 1e-3
SPOT = spot.StreamSettings(q=Q, level_rows=0, learn_after_rows=0, floor=0.0)
DSPOT = spot.StreamSettings(q=Q, level_rows=200, learn_after_rows=300, floor=0.0)

# (seed, initial and first threshold, rows, excesses, shape, scale) by tests/golden/libspot_stream.py
LIBSPOT = [
  (0, 6.732544197345002, 69.90482682666338, 12000, 160, 0.2825342536471167, 2.200286590115545),
  (1, 5.750539359255557, 56.46308241416941, 12000, 246, 0.16457996796169994, 2.235551928698966),
  (3, 5.8832078032811825, 96.22632522871513, 12000, 267, 0.26049426085308225, 2.180041695996434),
]


def draw(seed: int, num: int, shape: float = 0.0) -> np.ndarray:
  return stats.genpareto.rvs(shape, size=num, random_state=np.random.default_rng(seed))


def begin(scores: np.ndarray, settings: spot.StreamSettings) -> spot.Stream:
  level = spot.levels(scores, settings.level_rows)[2]
  return spot.start(spot.departures([scores], settings.level_rows), level, 0.98)


@pytest.mark.parametrize("seed", range(3))
def test_the_first_threshold_is_pots(seed: int) -> None:
  scores = draw(seed, 3000)
  _, thresholds = spot.run(begin(scores, SPOT), np.ones(2), SPOT)
  assert thresholds[0] == fit_pot(scores, initial_quantile=0.98, q=Q).threshold


def test_the_first_threshold_of_dspot_is_pots_above_the_level() -> None:
  scores = draw(0, 3000)
  found, num_first, level = spot.levels(scores, 200)
  by_hand = float(np.mean(scores[:200]))
  for score in scores[200:]:
    by_hand += (score - by_hand) / 200
  assert (num_first, level) == (200, pytest.approx(by_hand, rel=1e-12))
  fit = fit_pot(scores[200:] - found[200:], initial_quantile=0.98, q=Q)
  assert spot.next_threshold(begin(scores, DSPOT), DSPOT) == pytest.approx(level + fit.threshold, rel=1e-12)


@pytest.mark.parametrize("figures", LIBSPOT)
def test_a_stream_without_alarms_is_libspots(figures: tuple) -> None:
  """From libspot's own initial threshold, an estimate that hangs on the order of the scores."""
  seed, initial, first, num_rows, num_excesses, shape, scale = figures
  scores = (np.random.default_rng(seed).uniform(size=12_000) ** -0.2 - 1) / 0.2
  settings = dataclasses.replace(SPOT, q=1e-5)
  start = spot.start(scores[:2000], 0.0, float(np.mean(scores[:2000] <= initial)))
  excesses = tuple((scores[:2000][scores[:2000] > initial] - initial).tolist())
  assert len(excesses) == len(start.excesses)
  fitted = spot.gpd.fit_gpd(np.array(excesses))
  start = start._replace(initial=initial, excesses=excesses, shape=fitted.shape, scale=fitted.scale)
  assert spot.next_threshold(start, settings) == pytest.approx(first, rel=1e-6)
  stream, thresholds = spot.run(start, scores[2000:], settings)
  assert np.all(scores[2000:] <= thresholds)
  assert (stream.num_rows, len(stream.excesses)) == (num_rows, num_excesses)
  last = spot.gpd.fit_gpd(np.array(stream.excesses))  # libspot fits at every excess
  assert (last.shape, last.scale) == pytest.approx((shape, scale), rel=1e-7)
  assert stream.shape == pytest.approx(shape, abs=0.05)


@pytest.mark.parametrize("shape", [0.0, 0.2])
@pytest.mark.parametrize("settings", [SPOT, DSPOT])
def test_a_stationary_stream_has_the_promised_alarms(shape: float, settings: spot.StreamSettings) -> None:
  """Of the second half too: a tail that loses its alarms gives five times as many there."""
  counts = np.zeros(2)
  for seed in range(3):
    scores = draw(seed, 65_000, shape)
    _, thresholds = spot.run(begin(scores[:5000], settings), scores[5000:], settings)
    counts += (scores[5000:] > thresholds).reshape(2, -1).sum(axis=1)
  assert np.all(counts / (3 * 30_000 * Q) > 0.7), counts
  assert np.all(counts / (3 * 30_000 * Q) < 1.5), counts


def test_a_threshold_too_high_comes_down() -> None:
  """Calibration was louder than what comes; the other way round, too low, alarms teach it nothing."""
  errors = []
  for seed in range(4):
    scores = draw(seed, 43_000)
    stream, thresholds = spot.run(begin(1.3 * scores[:3000], SPOT), scores[3000:], SPOT)
    errors.append((thresholds[0] + math.log(Q), spot.next_threshold(stream, SPOT) + math.log(Q)))
  first, last = np.mean(errors, axis=0)
  assert first > 1
  assert abs(last) < first / 2


def test_drift_breaks_the_promise_of_pot_and_not_that_of_dspot() -> None:
  promised, pot_alarms, dspot_alarms = 0.0, 0, 0
  for seed in range(3):
    scores = draw(seed, 45_000) + np.maximum(np.arange(45_000) - 5000, 0) / 4000  # ten deviations, slowly
    known, fresh = scores[:5000], scores[5000:]
    promised += Q * len(fresh)
    pot_alarms += int(np.sum(fresh > fit_pot(known, initial_quantile=0.98, q=Q).threshold))
    dspot_alarms += int(np.sum(fresh > spot.run(begin(known, DSPOT), fresh, DSPOT)[1]))
  assert pot_alarms > 100 * promised
  assert promised / 2 < dspot_alarms < 2 * promised


def stepped(height: float) -> np.ndarray:
  scores = draw(3, 8000)
  scores[5000:] += height
  return scores


def test_a_step_that_stays_is_an_alarm_until_it_is_learnt() -> None:
  scores = stepped(100.0)
  stream, thresholds = spot.run(begin(scores[:4000], DSPOT), scores[4000:], DSPOT)
  alarms = scores[4000:] > thresholds
  end = 1000 + DSPOT.learn_after_rows
  assert np.all(alarms[1000 : end + 200])  # not learnt at once
  assert np.ptp(thresholds[1001:end]) == 0  # nor fed by its own alarm
  assert np.mean(alarms[end + 1000 :]) < 0.01  # nor an alarm for ever
  assert stream.level == pytest.approx(101, abs=1)


def test_without_a_level_a_step_is_an_alarm_as_long_as_it_stays() -> None:
  scores = stepped(100.0)
  start = begin(scores[:5000], SPOT)
  stream, thresholds = spot.run(start, scores[5000:], SPOT)
  assert np.all(scores[5000:] > thresholds)
  assert stream == start._replace(alarm_rows=3000)


def test_a_short_anomaly_leaves_no_trace() -> None:
  quiet, faulty = draw(5, 6000), draw(5, 6000)
  faulty[5200:5300] = 1e6
  for settings in (SPOT, DSPOT):
    start = begin(quiet[:5000], settings)
    kept = np.delete(quiet, np.s_[5200:5300])
    after = spot.run(start, faulty[5000:], settings)[1][300:]
    np.testing.assert_array_equal(after, spot.run(start, kept[5000:], settings)[1][200:])


def test_two_parts_are_the_whole_by_way_of_json() -> None:
  scores = draw(7, 12_000, 0.1) + np.linspace(0, 3, 12_000)
  scores[4000:4100] = np.nan
  scores[9000:9500] += 50
  for settings in (SPOT, DSPOT):
    start = begin(scores[:3000], settings)
    end, whole = spot.run(start, scores[3000:], settings)
    for cut in (1, 1050, 6300, 8999):
      middle, first = spot.run(start, scores[3000 : 3000 + cut], settings)
      middle = spot.stream_from_json(json.loads(json.dumps(spot.stream_to_json(middle), allow_nan=False)))
      last_end, last = spot.run(middle, scores[3000 + cut :], settings)
      np.testing.assert_array_equal(np.concatenate([first, last]), whole)
      assert last_end == end


def test_a_threshold_is_of_the_rows_before_it() -> None:
  scores = draw(8, 4000)
  other = scores.copy()
  other[3500:] = np.random.default_rng(0).permutation(other[3500:]) * 3
  for settings in (SPOT, DSPOT):
    start = begin(scores[:3000], settings)
    one, two = (spot.run(start, series[3000:], settings)[1] for series in (scores, other))
    np.testing.assert_array_equal(one[:501], two[:501])
    assert not np.array_equal(one[501:], two[501:])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_without_a_score_moves_nothing(bad: float) -> None:
  start = begin(draw(9, 3000), DSPOT)
  stream, thresholds = spot.run(start, np.full(50, bad), DSPOT)
  assert stream == start
  np.testing.assert_array_equal(thresholds, np.full(50, spot.next_threshold(start, DSPOT)))


def test_the_tail_forgets_and_its_rows_with_it() -> None:
  scores = draw(10, 60_000)
  start = begin(scores[:5000], SPOT)
  assert (sum(start.spans) + start.rows_since, len(start.excesses)) == (start.num_rows, 100)
  stream, thresholds = spot.run(start, scores[5000:], SPOT)
  assert len(stream.excesses) == len(stream.spans) == stream.num_streamed == spot.KEPT
  assert stream.num_rows == sum(stream.spans) + stream.rows_since < 35_000
  counted = scores[5000:][scores[5000:] <= thresholds]
  kept = counted[counted > start.initial][-spot.KEPT :] - start.initial
  np.testing.assert_allclose(stream.excesses, kept, rtol=0, atol=1e-12)


def test_a_tail_that_cannot_be_fitted() -> None:
  flat = begin(np.full(1000, 2.5), SPOT)
  assert spot.next_threshold(flat, SPOT) == 2.5  # the largest score, as POT's
  _, thresholds = spot.run(flat, np.array([2.5, 2.4, 2.6]), SPOT)
  np.testing.assert_array_equal(thresholds, 2.5)
  scores = draw(0, 500)
  rare = spot.StreamSettings(q=1e-5, level_rows=0, learn_after_rows=0, floor=0.0)
  assert spot.next_threshold(begin(scores, rare), rare) == pytest.approx(np.max(scores), rel=1e-12)
  often = spot.StreamSettings(q=0.1, level_rows=0, learn_after_rows=0, floor=0.0)
  assert spot.next_threshold(begin(scores, often), often) == np.quantile(scores, 0.98)
  for bad in (np.zeros(0), np.array([1.0, np.nan])):
    with pytest.raises(ValueError, match="a stream has nothing to start from"):
      spot.start(bad, 0.0, 0.98)


def test_no_threshold_is_below_the_floor() -> None:
  start = begin(draw(1, 3000), DSPOT)
  floor = spot.next_threshold(start, DSPOT) - 0.5
  without = spot.run(start, np.zeros(2000), DSPOT)[1]  # the level falls from 1 to 0
  assert without[-1] < floor
  _, thresholds = spot.run(start, np.zeros(2000), dataclasses.replace(DSPOT, floor=floor))
  np.testing.assert_array_equal(thresholds, np.maximum(without, floor))


def test_a_whole_machine_in_seconds() -> None:
  """At its slowest: every row leaves an excess, and fits come as often as they can; counted, not timed."""
  fits, fit = [], spot.gpd.fit_gpd
  scores = np.concatenate([draw(2, 3000), draw(3, 10_000) * 1.2 + 3])
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(spot.gpd, "fit_gpd", lambda excesses: (fits.append(len(excesses)), fit(excesses))[1])
    spot.run(begin(scores[:3000], SPOT), scores[3000:], SPOT)
  assert 40 < len(fits) < 80  # one for `KEPT` * `REFIT_SHARE` excesses, more of them while there are few
  assert max(fits) < spot.KEPT + 60


@pytest.mark.parametrize("kind", ["pot", "conformal", "spot", "dspot"])
def test_a_machines_threshold(kind: str) -> None:
  scores = draw(4, 3000) + 2
  settings = DetectConfig(threshold=kind, pot_q=Q, level_minutes=400, learn_minutes=30)
  fit = fit_threshold("m", scores, [scores], 120.0, settings, 10, critical_rate(settings))
  fresh = draw(6, 500) + 2
  thresholds = row_thresholds(fit.value, fit.streaming, fresh)
  assert thresholds[0] == fit.value == pytest.approx(fit.pot.threshold, rel=1e-12)
  on_known = calibration_thresholds(fit.value, fit.streaming, scores)
  if kind in ("pot", "conformal"):
    assert fit.streaming is None
    assert np.ptp(thresholds) == np.ptp(on_known) == 0
    return
  level_rows, floor = 200 if kind == "dspot" else 0, np.quantile(scores, 0.98)
  assert fit.streaming.settings == spot.StreamSettings(Q, level_rows, learn_after_rows=15, floor=floor)
  assert np.ptp(thresholds) > 0
  assert (np.ptp(on_known) > 0) == (kind == "dspot")
  assert 0 <= np.mean(scores > on_known) < 5 * Q
  assert fit.pot.low < fit.pot.threshold < fit.pot.high
  np.testing.assert_array_equal(thresholds, row_thresholds(fit.value, fit.streaming, fresh))  # from the start again


def test_pooled_machines_have_one_tail_and_their_own_levels() -> None:
  settings = DetectConfig(threshold="dspot", pot_q=1e-2, level_minutes=50)
  low, high = draw(1, 400), draw(2, 400) + 100
  rate = critical_rate(settings)
  fits = [fit_threshold("m", own, [low, high], 60.0, settings, 10, rate) for own in (low, high, np.zeros(0))]
  assert len({fit.streaming.start.excesses for fit in fits}) == 1
  levels = [fit.streaming.start.level for fit in fits]
  assert levels[1] - levels[0] == pytest.approx(100, abs=1)
  assert levels[2] == pytest.approx((levels[0] + levels[1]) / 2)
  floor = fits[0].streaming.settings.floor  # of all their scores together
  assert [fit.value for fit in fits[:2]] == [floor, pytest.approx(fits[1].pot.threshold)]


def test_refusals_are_told_and_constant_scores_have_a_threshold() -> None:
  settings = DetectConfig(threshold="spot", pot_q=0.1)
  fit = fit_threshold("m", draw(0, 500), [draw(0, 500)], None, settings, 10, critical_rate(settings))
  assert fit.pot.status == "refused: q 0.1 is not below the tail's share 0.02; threshold is where the tail begins"
  assert fit.value == fit.pot.threshold == np.quantile(draw(0, 500), 0.98)
  plain = DetectConfig(threshold="dspot")
  weekly = DetectConfig(threshold="dspot", alarms_per_week=1.0)
  flat = fit_threshold("m", np.zeros(500), [np.zeros(500)], None, plain, 10, critical_rate(plain))
  assert flat.value == SMALLEST_THRESHOLD
  with pytest.raises(ValueError, match="machine m: no threshold from 0 calibration rows: refused: no scores"):
    fit_threshold("m", np.zeros(0), [np.zeros(0)], None, plain, 10, critical_rate(plain))
  with pytest.raises(ValueError, match=r"machine m: config.detect.alarms_per_week needs a clock"):
    fit_threshold("m", np.ones(9), [np.ones(9)], None, weekly, 10, critical_rate(weekly))
