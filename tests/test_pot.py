"""Thresholds: golden quantiles, unit invariance, intervals, declustering, and every refusal by its text."""

from pathlib import Path

import numpy as np
import pytest

from mtad_jax.detect.pot import count_clusters, describe, fit_pot

GOLDEN = Path(__file__).parent / "golden" / "evt_pot_scores.csv"


@pytest.fixture(scope="module")
def golden() -> np.ndarray:
  return np.loadtxt(GOLDEN)


@pytest.mark.parametrize(
  ("q", "expected"), [(1e-2, 0.997374), (5e-3, 1.105363), (1e-3, 1.554709), (1e-4, 3.271438)]
)
def test_golden_thresholds(golden: np.ndarray, q: float, expected: float) -> None:
  fit = fit_pot(golden, initial_quantile=0.98, q=q)
  assert fit.initial == pytest.approx(0.9203352, abs=5e-8)
  assert fit.threshold == pytest.approx(expected, abs=6e-7)
  assert (fit.num_rows, fit.num_excesses, fit.status) == (28378, 568, "ok")
  assert fit.low < fit.threshold < fit.high
  assert np.isnan(fit.expected_alarms_per_week)


def test_scaling_and_shifting_scores_moves_the_threshold_along(golden: np.ndarray) -> None:
  plain = fit_pot(golden, initial_quantile=0.98, q=1e-3)
  moved = fit_pot(1e6 * golden + 5.0, initial_quantile=0.98, q=1e-3)
  assert moved.threshold == pytest.approx(1e6 * plain.threshold + 5.0, rel=1e-6)
  assert moved.high == pytest.approx(1e6 * plain.high + 5.0, rel=1e-4)
  assert moved.shape == pytest.approx(plain.shape, rel=1e-6)


def test_threshold_falls_as_q_grows(golden: np.ndarray) -> None:
  thresholds = [fit_pot(golden, initial_quantile=0.98, q=q).threshold for q in np.geomspace(1e-5, 1e-2, 8)]
  assert np.all(np.diff(thresholds) < 0)


def test_interval_covers_the_truth() -> None:
  # exponential scores: z_q = -log q; at 95% about 3 of 60 miss
  rng, q, covered = np.random.default_rng(0), 1e-3, 0
  for _ in range(60):
    fit = fit_pot(rng.exponential(size=2000), initial_quantile=0.95, q=q)
    covered += fit.low <= -np.log(q) <= fit.high
  assert 50 <= covered <= 60


def test_promised_rate_is_kept_on_fresh_scores() -> None:
  rng = np.random.default_rng(1)
  rates = [
    np.mean(rng.normal(size=20000) > fit_pot(rng.normal(size=20000), initial_quantile=0.98, q=1e-3).threshold)
    for _ in range(10)
  ]
  assert np.mean(rates) == pytest.approx(1e-3, rel=0.2)


def test_clusters_by_runs() -> None:
  is_above = np.zeros(100, bool)
  is_above[[3, 4, 10, 30, 31, 99]] = True
  assert count_clusters(is_above, run_rows=5) == 3
  assert count_clusters(is_above, run_rows=4) == 4
  assert count_clusters(is_above, run_rows=100) == 1
  assert count_clusters(np.zeros(5, bool)) == 0


def test_golden_clusters_and_expected_alarms(golden: np.ndarray) -> None:
  fit = fit_pot(golden, initial_quantile=0.98, q=1e-3, rows_per_week=10080)
  assert 0.055 <= fit.num_clusters / fit.num_excesses <= 0.22
  assert fit.expected_alarm_rows_per_week == pytest.approx(10.08)
  assert fit.expected_alarms_per_week == pytest.approx(10.08 * fit.num_clusters / 568)
  assert "568 of 28378 rows above in 53 clusters" in describe(fit)
  assert "\n" not in describe(fit)


def test_clustered_scores_have_a_wider_interval() -> None:
  scores = np.random.default_rng(2).exponential(size=4000)
  alone = fit_pot(scores, initial_quantile=0.98, q=1e-3)
  repeated = fit_pot(np.repeat(scores, 5), initial_quantile=0.98, q=1e-3)
  assert repeated.num_clusters < repeated.num_excesses / 4
  assert repeated.high - repeated.low == pytest.approx(alone.high - alone.low, rel=0.5)


def test_constant_scores_are_refused() -> None:
  fit = fit_pot(np.full(1000, 2.5), initial_quantile=0.98, q=1e-3)
  assert fit.status == "refused: 0 scores above the initial quantile; threshold is the largest score"
  assert (fit.threshold, fit.method) == (2.5, "maximum")
  assert np.isnan(fit.shape)


def test_nan_is_refused_without_a_threshold() -> None:
  scores = np.random.default_rng(0).normal(size=500)
  scores[[3, 7]] = np.nan, np.inf
  fit = fit_pot(scores, initial_quantile=0.98, q=1e-3)
  assert fit.status == "refused: 2 of 500 scores are not finite; there is no threshold"
  assert np.isnan(fit.threshold)
  assert fit_pot(np.zeros(0), initial_quantile=0.98, q=1e-3).status.startswith("refused: no scores")


def test_q_inside_the_data_is_the_empirical_quantile() -> None:
  scores = np.random.default_rng(0).normal(size=500)
  fit = fit_pot(scores, initial_quantile=0.98, q=0.05)
  assert fit.threshold == np.quantile(scores, 0.95)
  assert (
    fit.status == "refused: q 0.05 is not below the tail's share 0.02; threshold is the empirical quantile"
  )


def test_q_far_beyond_the_data_is_refused() -> None:
  scores = np.random.default_rng(0).normal(size=500)
  fit = fit_pot(scores, initial_quantile=0.98, q=1e-5)
  assert fit.threshold == np.max(scores)
  assert fit.status == "refused: 500 rows cannot carry q 1e-05; threshold is the largest score"


def test_fall_backs_are_told() -> None:
  few = fit_pot(np.random.default_rng(0).normal(size=300), initial_quantile=0.98, q=1e-3)
  assert few.status == "exponential: 6 excesses are fewer than 10"
  assert few.low < few.threshold < few.high
  bounded = fit_pot(np.random.default_rng(0).uniform(size=5000), initial_quantile=0.98, q=1e-3)
  assert bounded.status.startswith("moments: the likelihood's maximum")
  assert 0.998 < bounded.threshold < 1.001
  assert np.isnan(bounded.low)


@pytest.mark.parametrize(
  ("quantile", "q", "message"), [(1.0, 1e-3, "initial_quantile: 1.0 is out of"), (0.9, 0.0, "q: 0.0 is out")]
)
def test_errors(quantile: float, q: float, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    fit_pot(np.arange(10.0), initial_quantile=quantile, q=q)


def test_error_on_shape() -> None:
  with pytest.raises(ValueError, match=r"scores: shape \(2, 2\) given"):
    fit_pot(np.zeros((2, 2)), initial_quantile=0.9, q=0.01)
