"""Realised against promised alarms: the sums, what is too little to compare, and a promise kept on fresh scores."""

import numpy as np
import pytest
from scipy import signal

from mtad_jax.detect.conformal import fit_conformal
from mtad_jax.detect.pot import count_clusters, fit_pot, rate_of_alarms
from mtad_jax.evaluate.promise import promise_figures, promise_line


def entry(rows, alarm_rows, alarms, promised_rows, promised):
  check = {"num_rows": rows, "num_alarm_rows": alarm_rows, "num_alarms": alarms}
  return {"check": {**check, "promised_alarm_rows": promised_rows, "promised_alarms": promised}}


def test_counts_are_summed_and_ratios_given_where_enough_was_promised():
  machines = {"a": entry(100, 6, 3, 4.0, 2.0), "b": entry(50, 2, 1, 0.5, 0.5), "c": entry(9, 0, 0, 0.1, None)}
  found = promise_figures(machines)
  assert found["machines"]["a"]["realised_over_promised"] == pytest.approx(1.5)
  assert found["machines"]["b"]["realised_over_promised"] is None
  assert found["pooled"]["num_rows"] == 159
  assert found["pooled"]["realised_over_promised"] == pytest.approx(4 / 2.5)
  assert promise_line(found) == "check part, 159 normal rows: 4 alarms, 2.5 promised: 1.60 times"
  assert promise_line(promise_figures({"b": entry(50, 2, 1, 0.5, 0.5)})).endswith("too few were promised to compare")


def test_promised_alarms_come_on_fresh_scores_that_cluster():
  """Of an autoregressive series, whose exceedances come in clusters; pooled over 30 series, as over a fleet."""
  promised, realised = 0.0, 0
  for seed in range(30):
    noise = np.random.default_rng(seed).normal(size=24_000)
    scores = np.exp(signal.lfilter([0.3], [1, -0.9], noise))
    known, fresh = scores[2_000:12_000], scores[12_000:]
    q = rate_of_alarms(known, 0.98, 1 / 1_000, run_rows=20)
    fit = fit_pot(known, initial_quantile=0.98, q=q, run_rows=20)
    promised += q * len(fresh) * fit.num_clusters / fit.num_excesses
    realised += count_clusters(fresh > fit.threshold, 20)
  assert promised == pytest.approx(30 * 12, rel=1e-9)
  assert 0.5 < realised / promised < 2


def test_a_conformal_threshold_is_exceeded_by_at_most_q_of_new_scores():
  """Whatever the tail: the mean share over draws of known and fresh scores, of a law without a mean."""
  shares = []
  for seed in range(300):
    rng = np.random.default_rng(seed)
    fit = fit_conformal(rng.standard_cauchy(199), initial_quantile=0.9, q=0.05)
    shares.append(np.mean(rng.standard_cauchy(400) > fit.threshold))
  assert np.mean(shares) == pytest.approx(0.05, abs=0.004)


def test_a_conformal_threshold_says_where_the_rows_are_too_few():
  scores = np.arange(99.0)
  exact = fit_conformal(scores, initial_quantile=0.9, q=0.01, rows_per_week=10_080)
  assert (exact.threshold, exact.status, exact.method) == (98.0, "ok", "conformal")
  assert exact.expected_alarm_rows_per_week == pytest.approx(100.8)
  few = fit_conformal(scores[:98], initial_quantile=0.9, q=0.01, rows_per_week=10_080)
  assert few.status == "refused: q 0.01 needs 99 rows, there are 98; threshold is the largest score"
  assert few.threshold == 97.0
  assert np.isnan(few.expected_alarms_per_week)
  for bad in (np.zeros(0), np.array([1.0, np.nan])):
    with pytest.raises(ValueError, match="no conformal threshold"):
      fit_conformal(bad, initial_quantile=0.9, q=0.1)


def test_the_rate_is_bounded_and_of_no_scores_is_the_rows_own():
  assert rate_of_alarms(np.arange(100.0), 0.9, 0.4) == 0.5  # one cluster of ten rows
  assert rate_of_alarms(np.zeros(0), 0.9, 0.1) == pytest.approx(0.1)
  assert rate_of_alarms(np.zeros(50), 0.9, 0.1) == pytest.approx(0.1)  # nothing lies above the quantile
