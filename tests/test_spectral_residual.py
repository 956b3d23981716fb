"""Spectral Residual: against the equations written out, and shown to fire."""

import numpy as np
import pytest

from mtad_jax.data.spectral_residual import LOCAL_ROWS, clean, spectral_residual_score

THRESHOLD = 3.0


def _daily(num_rows: int, seed: int) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return 10 + 3 * np.sin(np.arange(num_rows) * 2 * np.pi / 288) + rng.normal(size=num_rows) * 0.2


def _slow_score(x: np.ndarray) -> np.ndarray:
  """The equations of the docstring, one row at a time."""
  spectrum = np.fft.fft(x)
  amplitude, phase = np.abs(spectrum), np.angle(spectrum)
  log_amplitude = np.log(amplitude)
  num = len(x)
  average = np.array([np.mean(log_amplitude[[f - 1, f, (f + 1) % num]]) for f in range(num)])
  saliency = np.abs(np.fft.ifft(np.exp(log_amplitude - average + 1j * phase)))
  score = np.zeros(num)
  for row in range(1, num):
    mean = saliency[max(0, row - LOCAL_ROWS) : row].mean()
    score[row] = (saliency[row] - mean) / mean
  return score


def test_score_follows_the_equations() -> None:
  x = _daily(500, 0)
  np.testing.assert_allclose(spectral_residual_score(x), _slow_score(x), rtol=1e-6, atol=1e-9)


def test_score_does_not_depend_on_the_unit() -> None:
  x = _daily(700, 1)
  np.testing.assert_allclose(spectral_residual_score(x * 1e9), spectral_residual_score(x), rtol=1e-6)


@pytest.mark.parametrize("height", [5.0, -8.0, 20.0])
def test_injected_spikes_are_found_and_replaced_by_their_neighbours(height: float) -> None:
  x = _daily(4000, 2)
  rows = [500, 1700, 3100]
  spiked = x.copy()
  spiked[rows] += height
  cleaned, flagged = clean(spiked[:, None], THRESHOLD)
  assert flagged[rows, 0].all()
  assert np.mean(flagged) < 0.02
  assert np.abs(cleaned[rows, 0] - x[rows]).max() < 1.5
  np.testing.assert_array_equal(cleaned[~flagged], spiked[:, None][~flagged])
  for row in rows:
    normal = np.flatnonzero(~flagged[:, 0])
    before, after = normal[normal < row][-1], normal[normal > row][0]
    low, high = sorted((spiked[before], spiked[after]))
    assert low <= cleaned[row, 0] <= high


@pytest.mark.parametrize("level", [0.0, 1.0, -3e7, 1e300])
def test_a_constant_metric_never_fires(level: float) -> None:
  x = np.full(1000, level)
  np.testing.assert_array_equal(spectral_residual_score(x), np.zeros(1000))
  cleaned, flagged = clean(x[:, None], THRESHOLD)
  assert not flagged.any()
  np.testing.assert_array_equal(cleaned[:, 0], x)


def test_a_pure_sine_has_a_finite_score() -> None:
  # all but two amplitudes are zero up to rounding: the logarithm must be guarded
  assert np.all(np.isfinite(spectral_residual_score(np.sin(np.arange(512) * 2 * np.pi / 64))))


def test_switches_and_resting_metrics_are_left_alone() -> None:
  rng = np.random.default_rng(3)
  switch = (rng.random(2000) < 0.45).astype(np.float64)
  resting = np.where(rng.random(2000) < 0.02, rng.random(2000) * 100, 0.0)
  values = np.stack([switch, resting], axis=1)
  assert spectral_residual_score(resting).max() > THRESHOLD  # it would have been flagged
  cleaned, flagged = clean(values, THRESHOLD)
  assert not flagged.any()
  np.testing.assert_array_equal(cleaned, values)


def test_a_metric_that_would_lose_too_much_is_left_alone() -> None:
  cleaned, flagged = clean(_daily(2000, 4)[:, None], -0.5)
  assert not flagged.any()
  np.testing.assert_array_equal(cleaned[:, 0], _daily(2000, 4))


def test_a_short_series_is_left_alone() -> None:
  x = np.arange(20.0)[:, None]
  x[10] = 1e6
  cleaned, flagged = clean(x, THRESHOLD)
  assert not flagged.any()
  np.testing.assert_array_equal(cleaned, x)
