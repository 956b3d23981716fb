"""Realised against promised alarms: the sums, what is too little to compare, and a promise kept on fresh scores."""

import numpy as np
import pytest
from scipy import signal

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


def test_the_rate_is_bounded_and_of_no_scores_is_the_rows_own():
  assert rate_of_alarms(np.arange(100.0), 0.9, 0.4) == 0.5  # one cluster of ten rows
  assert rate_of_alarms(np.zeros(0), 0.9, 0.1) == pytest.approx(0.1)
  assert rate_of_alarms(np.zeros(50), 0.9, 0.1) == pytest.approx(0.1)  # nothing lies above the quantile
