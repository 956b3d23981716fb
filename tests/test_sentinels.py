"""Gradients of the whole network where float32 gives way: exact fits, far outliers, constants, variance bounds.

Each test sets up one such point and asks for finite gradients in every leaf, and for some that are not zero.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_model import GATV2, NUM_METRICS, SMALL, draw_params, draw_windows
from test_objective import ALL, NOISE_KEY, constant_output, draw_next_rows, replace_leaf

from mtad_jax.config import ModelConfig
from mtad_jax.model.network import Params
from mtad_jax.train.objective import window_losses


def _mean_total(params: Params, windows: jax.Array, next_rows: jax.Array, settings: ModelConfig) -> jax.Array:
  losses = window_losses(params, windows, next_rows, NOISE_KEY, settings=settings, targets=ALL, kl_weight=1.0)
  return jnp.mean(losses.total, axis=0)


GRADIENT = jax.jit(jax.value_and_grad(_mean_total, argnums=(0, 1)), static_argnames="settings")
NETWORKS = pytest.mark.parametrize("settings", [SMALL, GATV2], ids=["static", "gatv2"])


def assert_finite_and_alive(
  params: Params, windows: np.ndarray, next_rows: np.ndarray, settings: ModelConfig
) -> None:
  """Asserts a finite loss, finite gradients, and that some gradient is not zero."""
  value, gradients = GRADIENT(params, jnp.asarray(windows), jnp.asarray(next_rows), settings=settings)
  assert np.isfinite(value)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
    assert np.all(np.isfinite(leaf)), jax.tree_util.keystr(path)
  assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(gradients[0]))


@NETWORKS
def test_gradients_are_finite_at_an_exact_fit_of_the_whole_network(settings: ModelConfig) -> None:
  row = np.array([0.1, 0.9, 0.0, 0.4, 1.0], np.float32)
  windows = np.broadcast_to(row, (3, settings.window_size, NUM_METRICS))
  params = constant_output(draw_params(51, settings), "forecaster.output", row)
  params = constant_output(params, "vae.mean", row)
  assert_finite_and_alive(params, windows, windows[:, 0], settings)


@NETWORKS
@pytest.mark.parametrize("z", [14.0, 20.0, 1e3])
def test_gradients_of_the_network_are_finite_and_point_back_far_from_the_mean(
  settings: ModelConfig, z: float
) -> None:
  windows = draw_windows(52)
  params = constant_output(draw_params(53, settings), "vae.variance", -200.0)  # variance at its floor
  params = constant_output(params, "vae.mean", 0.5 + z * math.sqrt(settings.variance_floor))
  assert_finite_and_alive(params, windows, draw_next_rows(54), settings)
  half = jnp.full(windows.shape, 0.5, jnp.float32)
  _, gradients = GRADIENT(params, half, jnp.asarray(draw_next_rows(54)), settings=settings)
  bias = gradients[0]["vae"]["mean"]["bias"]
  np.testing.assert_allclose(bias, z / math.sqrt(settings.variance_floor) / NUM_METRICS, rtol=1e-3)


@NETWORKS
@pytest.mark.parametrize("constant", [0.0, 1.0, -4.0, 5.0])
def test_gradients_are_finite_at_a_constant_metric(settings: ModelConfig, constant: float) -> None:
  windows, next_rows = draw_windows(55), draw_next_rows(56)
  windows[:, :, 2], next_rows[:, 2] = constant, constant
  assert_finite_and_alive(draw_params(57, settings), windows, next_rows, settings)


@NETWORKS
@pytest.mark.parametrize("value", [0.0, 0.5, -4.0, 5.0])
def test_gradients_are_finite_at_windows_of_one_value_clip_limits_too(
  settings: ModelConfig, value: float
) -> None:
  windows = np.full((3, settings.window_size, NUM_METRICS), value, np.float32)
  assert_finite_and_alive(draw_params(58, settings), windows, windows[:, 0], settings)


@NETWORKS
@pytest.mark.parametrize("raw", [-1e3, -90.0, 90.0, 1e3])
@pytest.mark.parametrize("layer", ["vae.variance", "vae.code_log_variance"])
def test_gradients_are_finite_at_the_bounds_of_both_variances(
  settings: ModelConfig, raw: float, layer: str
) -> None:
  # the layer's kernel stays, so that the gradient passes through it to everything before
  params = replace_leaf(draw_params(59, settings), f"{layer}.bias", raw)
  assert_finite_and_alive(params, draw_windows(60), draw_next_rows(61), settings)
