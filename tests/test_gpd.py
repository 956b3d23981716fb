"""The generalised Pareto fit against the golden figures, SciPy, limits and laws."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mtad_jax.detect import gpd

# scores of SMD machine-1-1 from the original program (MIT, beside the file); figures by exact maximum
# likelihood in float64, which scipy.stats.genpareto.fit(floc=0) agrees with to four digits
GOLDEN = Path(__file__).parent / "golden" / "evt_pot_scores.csv"


@pytest.fixture(scope="module")
def golden_excesses() -> np.ndarray:
  scores = np.loadtxt(GOLDEN)
  initial = np.quantile(scores, 0.98)
  return scores[scores > initial] - initial


def test_golden_fit(golden_excesses: np.ndarray) -> None:
  fit = gpd.fit_gpd(golden_excesses)
  assert len(golden_excesses) == 568
  assert fit.method is gpd.FitMethod.LIKELIHOOD
  assert fit.shape == pytest.approx(0.488585, abs=1e-6)
  assert fit.scale == pytest.approx(0.093261, abs=1e-6)
  assert -fit.log_likelihood == pytest.approx(-501.982, abs=1e-3)


def test_golden_moments(golden_excesses: np.ndarray) -> None:
  fit = gpd.fit_moments(golden_excesses)
  assert fit is not None
  assert fit.shape == pytest.approx(0.26335, abs=1e-5)
  assert fit.scale == pytest.approx(0.12199, abs=1e-5)


@pytest.mark.parametrize("shape", [-0.3, -0.05, 0.0, 0.2, 0.8])
def test_no_worse_than_scipy_and_near_it(shape: float) -> None:
  excesses = stats.genpareto.rvs(shape, scale=2.5, size=800, random_state=7)
  fit = gpd.fit_gpd(excesses)
  scipy_shape, _, scipy_scale = stats.genpareto.fit(excesses, floc=0)
  assert fit.method is gpd.FitMethod.LIKELIHOOD
  assert fit.log_likelihood >= gpd.log_likelihood(excesses, scipy_shape, scipy_scale) - 1e-9
  assert fit.shape == pytest.approx(scipy_shape, abs=2e-3)
  assert fit.scale == pytest.approx(scipy_scale, rel=2e-3)


@pytest.mark.parametrize("shape", [-0.4, -1e-9, 0.0, 1e-12, 1e-5, 0.7])
def test_likelihood_equals_scipy(shape: float) -> None:
  excesses = stats.genpareto.rvs(max(shape, 0), scale=1.5, size=50, random_state=1)
  excesses = np.minimum(excesses, 3.0)  # inside the end of the shortest tail
  expected = np.sum(stats.genpareto.logpdf(excesses, shape, scale=1.5))
  assert gpd.log_likelihood(excesses, shape, 1.5) == pytest.approx(expected, rel=1e-9)


def test_likelihood_beyond_the_end_and_bad_scale() -> None:
  assert gpd.log_likelihood(np.array([1.0, 3.0]), -0.5, 1.0) == -np.inf
  assert gpd.log_likelihood(np.array([1.0]), 0.1, 0.0) == -np.inf


@pytest.mark.parametrize("shape", [-0.5, -1e-3, 1e-3, 0.9])
def test_quantile_equals_scipy(shape: float) -> None:
  expected = stats.genpareto.isf(0.01, shape, scale=3.0)
  assert gpd.excess_quantile(shape, 3.0, 0.01) == pytest.approx(expected, rel=1e-10)


def test_quantile_is_continuous_at_shape_zero() -> None:
  exact = -3.0 * np.log(1e-4)
  assert gpd.excess_quantile(0.0, 3.0, 1e-4) == pytest.approx(exact, rel=1e-15)
  for shape in (1e-14, -1e-14, 1e-300):
    assert gpd.excess_quantile(shape, 3.0, 1e-4) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("unit", [1e-12, 1e-3, 7.0, 1e9])
def test_scaling_the_excesses_scales_the_fit(golden_excesses: np.ndarray, unit: float) -> None:
  fit, scaled = gpd.fit_gpd(golden_excesses), gpd.fit_gpd(golden_excesses * unit)
  assert scaled.shape == pytest.approx(fit.shape, rel=1e-6)
  assert scaled.scale == pytest.approx(fit.scale * unit, rel=1e-6)


def test_few_excesses_are_exponential() -> None:
  excesses = np.array([0.5, 1.0, 3.0, 0.2, 0.1])
  fit = gpd.fit_gpd(excesses)
  assert (fit.method, fit.shape) == (gpd.FitMethod.EXPONENTIAL, 0.0)
  assert fit.scale == pytest.approx(np.mean(excesses))
  assert fit.reason == "5 excesses are fewer than 10"


def test_equal_excesses_are_exponential() -> None:
  fit = gpd.fit_gpd(np.full(30, 0.25))
  assert (fit.method, fit.scale) == (gpd.FitMethod.EXPONENTIAL, 0.25)
  assert fit.reason == "all excesses are equal"


def test_maximum_on_the_bound_falls_back_and_says_so() -> None:
  fit = gpd.fit_gpd(stats.genpareto.rvs(-0.7, size=500, random_state=5))
  assert fit.method is gpd.FitMethod.MOMENTS
  assert fit.reason == "the likelihood's maximum has its shape at its bound -0.5"
  assert fit.shape == pytest.approx(-0.7, abs=0.15)


def test_moments_that_exclude_an_excess_give_the_exponential() -> None:
  excesses = np.r_[np.linspace(1.0, 1.001, 500), 1.4]  # the moments' tail ends before 1.4
  assert gpd.fit_moments(excesses) is None
  assert gpd.fit_gpd(excesses).method is gpd.FitMethod.EXPONENTIAL


def test_ties_are_fitted() -> None:
  excesses = np.round(stats.genpareto.rvs(0.2, size=400, random_state=5), 1) + 0.1
  fit = gpd.fit_gpd(excesses)
  assert fit.method is gpd.FitMethod.LIKELIHOOD
  grid = [
    gpd.log_likelihood(excesses, g, s) for g in np.linspace(-0.4, 1, 60) for s in np.linspace(0.3, 3, 60)
  ]
  assert fit.log_likelihood >= max(grid)


@pytest.mark.parametrize(
  ("excesses", "message"),
  [
    (np.zeros(0), r"excesses: shape \(0,\) given; a list of at least one number is wanted"),
    (np.array([1.0, np.nan]), "excesses: every one must be a positive finite number"),
    (np.array([1.0, 0.0]), "excesses: every one must be a positive finite number"),
  ],
)
def test_errors(excesses: np.ndarray, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    gpd.fit_gpd(excesses)
