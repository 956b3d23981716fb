"""Scaling: range, floor, constants, clipping, huge values."""

import numpy as np

from mtad_jax.data.scaling import fit_scaler, outside_share, scale

FLOOR = 1e-3


def test_training_range_maps_to_zero_and_one() -> None:
  values = np.random.default_rng(0).normal(size=(300, 5)) * np.array([1, 1e-6, 1e9, 3, 4])
  scaled = scale(values, fit_scaler(values, FLOOR), 4.0)
  np.testing.assert_allclose(scaled.min(axis=0), np.zeros(5), atol=1e-12)
  np.testing.assert_allclose(scaled.max(axis=0), np.ones(5), atol=1e-12)


def test_scaling_does_not_depend_on_units() -> None:
  values = np.random.default_rng(1).random((100, 1))
  one = scale(values, fit_scaler(values, FLOOR), 4.0)
  other = scale(values * 1e6, fit_scaler(values * 1e6, FLOOR), 4.0)
  np.testing.assert_allclose(one, other, atol=1e-9)


def test_rounding_noise_of_a_flat_metric_is_not_blown_up() -> None:
  values = 1e6 + np.random.default_rng(2).random((100, 1)) * 1e-6
  scaler = fit_scaler(values, FLOOR)
  assert scaler.scale[0] >= FLOOR * 1e6
  assert not scaler.is_constant[0]
  assert scale(values, scaler, 4.0).max() < 1e-6


def test_constants_map_to_zero_and_leave_by_their_own_size() -> None:
  values = np.tile([[0.0, 5.0, -2e9, 1e-300]], (10, 1))
  scaler = fit_scaler(values, FLOOR)
  assert scaler.is_constant.all()
  np.testing.assert_array_equal(scale(values, scaler, 4.0), np.zeros((10, 4)))
  left = np.array([[1.0, 10.0, 0.0, 0.0]])
  np.testing.assert_allclose(scale(left, scaler, 4.0), [[1.0, 1.0, 1.0, 0.0]], atol=1e-12)


def test_huge_values_are_clipped_without_a_warning() -> None:
  scaler = fit_scaler(np.array([[0.0, 0.0], [1.0, 1e-12]]), FLOOR)
  for huge in (1e30, 1.7e308):
    scaled = scale(np.array([[huge, huge], [-huge, -huge]]), scaler, 4.0)
    np.testing.assert_array_equal(scaled, [[5.0, 5.0], [-4.0, -4.0]])
  spread = fit_scaler(np.array([[-1.7e308], [1.7e308]]), FLOOR)
  assert np.all(np.isfinite(spread.scale))
  assert np.all(np.isfinite(scale(np.array([[-1.7e308], [1.7e308]]), spread, 4.0)))


def test_outside_share_counts_rows_beyond_the_training_range() -> None:
  scaler = fit_scaler(np.array([[0.0, 7.0], [1.0, 7.0]]), FLOOR)
  values = np.array([[0.0, 7.0], [1.0, 7.0], [1.1, 6.9], [-0.1, 7.0]])
  np.testing.assert_array_equal(outside_share(values, scaler), [0.5, 0.25])
  np.testing.assert_array_equal(outside_share(np.zeros((0, 2)), scaler), [0.0, 0.0])
