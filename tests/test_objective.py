"""The losses against the slow reference, their gradients where float32 gives way, and what a step trains on."""

import dataclasses
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from test_model import GATV2, NUM_METRICS, SMALL, draw_params, draw_windows, exact

from mtad_jax.config import Config, ModelConfig, TrainConfig
from mtad_jax.config_choices import RunMode
from mtad_jax.model.network import Params
from mtad_jax.model.vae import Reconstruction
from mtad_jax.train.objective import (
  FIT_EPSILON,
  Losses,
  forecast_loss,
  kl_divergence,
  reconstruction_loss,
  window_losses,
)
from mtad_jax.train.state import init_state
from mtad_jax.train.step import MachineArrays, train_step, validate

ALL = tuple(range(NUM_METRICS))
LOSSES = jax.jit(window_losses, static_argnames=("settings", "targets", "kl_weight"))
NOISE_KEY = jax.random.key(7)


@pytest.fixture(autouse=True)
def _highest_precision() -> Iterator[None]:
  with jax.default_matmul_precision("highest"):
    yield


def draw_next_rows(seed: int) -> np.ndarray:
  """Returns the rows after draw_windows' windows, [B, F] float32, clip limits among them."""
  rows = np.random.default_rng(seed).random((3, NUM_METRICS))
  rows[0, 0], rows[1, 1] = -4.0, 5.0
  return rows.astype(np.float32)


@pytest.mark.parametrize(
  ("run_mode", "settings", "targets", "with_noise"),
  [
    (RunMode.BOTH, SMALL, ALL, True),
    (RunMode.BOTH, GATV2, (3, 0), True),
    (RunMode.BOTH, SMALL, (2,), False),
    (RunMode.FORECASTING, SMALL, (4, 1), True),
    (RunMode.RECONSTRUCTING, SMALL, (0, 1, 4), True),
  ],
)
def test_losses_agree_with_the_reference(
  run_mode: RunMode, settings: ModelConfig, targets: tuple[int, ...], with_noise: bool
) -> None:
  settings = dataclasses.replace(settings, run_mode=run_mode, variance_floor=0.01)
  params = draw_params(31, settings, len(targets), scale=0.5)
  windows, next_rows = draw_windows(32), draw_next_rows(33)
  noise = np.asarray(jax.random.normal(NOISE_KEY, (*windows.shape[:2], settings.latent_size)))
  losses = LOSSES(
    params,
    windows,
    next_rows,
    NOISE_KEY if with_noise else None,
    settings=settings,
    targets=targets,
    kl_weight=0.5,
  )
  for b in range(len(windows)):
    expected = reference.network(
      exact(params), exact(windows[b]), exact(noise[b]) if with_noise else None, settings
    )
    forecast, reconstruction, kl = reference.losses(
      expected, exact(windows[b]), exact(next_rows[b]), targets, FIT_EPSILON
    )
    wanted = (forecast + reconstruction + 0.5 * kl, forecast, reconstruction, kl)
    for actual, value in zip(losses, wanted, strict=True):
      assert abs(float(actual[b]) - value) <= 1e-5 * max(1.0, abs(value))


def replace_leaf(params: Params, path: str, value: Any) -> Params:
  """Returns the tree with one leaf, "vae.mean.bias", filled with `value`."""
  first, _, rest = path.partition(".")
  if rest:
    return {**params, first: replace_leaf(params[first], rest, value)}
  return {**params, first: jnp.broadcast_to(jnp.asarray(value, jnp.float32), params[first].shape)}


def constant_output(params: Params, layer: str, value: Any) -> Params:
  """Returns the tree in which a dense layer says `value` whatever it is given."""
  return replace_leaf(replace_leaf(params, f"{layer}.kernel", 0.0), f"{layer}.bias", value)


def losses_of(params: Params, windows: np.ndarray, next_rows: np.ndarray) -> Losses:
  return LOSSES(params, windows, next_rows, NOISE_KEY, settings=SMALL, targets=ALL, kl_weight=1.0)


def test_vae_reconstructs_the_input_window_and_its_loss_has_a_floor() -> None:
  row = np.array([0.1, 0.9, 0.0, 0.4, 1.0], np.float32)
  windows = np.broadcast_to(row, (3, SMALL.window_size, NUM_METRICS))
  floor = 0.5 * (math.log(SMALL.variance_floor) + math.log(2 * math.pi))
  for seed in (41, 42, 43):  # other GRU states, the same window: a learned target would move with them
    params = constant_output(draw_params(seed, SMALL), "vae.mean", row)
    params = constant_output(params, "vae.variance", -200.0)
    at_floor = losses_of(params, windows, draw_next_rows(44)).reconstruction
    np.testing.assert_allclose(at_floor, floor, rtol=1e-5)
    moved = losses_of(params, windows + 0.01, draw_next_rows(44)).reconstruction
    np.testing.assert_allclose(moved, floor + 0.5 * 0.01**2 / SMALL.variance_floor, rtol=1e-3)
    free = losses_of(draw_params(seed, SMALL), windows, draw_next_rows(44)).reconstruction
    assert np.all(free > floor)


@pytest.mark.parametrize("z", [0.0, 1.0, 14.0, 20.0, 1e3])
@pytest.mark.parametrize("variance", [1e-4, 1e-8, 1.0])
def test_reconstruction_loss_is_not_flat_far_from_its_mean(z: float, variance: float) -> None:
  deviation = math.sqrt(variance)
  actual = jnp.full((1, 2, 3), z * deviation, jnp.float32)
  code = jnp.zeros((1, 2, 4))

  def loss(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    return reconstruction_loss(Reconstruction(mean, jnp.exp(log_variance), code, code), actual)[0]

  arguments = (jnp.zeros((1, 2, 3)), jnp.full((1, 2, 3), math.log(variance), jnp.float32))
  value, (by_mean, by_log_variance) = jax.value_and_grad(loss, argnums=(0, 1))(*arguments)
  num_values = 6
  np.testing.assert_allclose(value, 0.5 * (z**2 + math.log(2 * math.pi * variance)), rtol=1e-4)
  np.testing.assert_allclose(by_mean, -z / deviation / num_values, rtol=1e-4)
  np.testing.assert_allclose(by_log_variance, 0.5 * (1 - z**2) / num_values, rtol=1e-4, atol=1e-5)


def test_forecast_loss_has_gradient_zero_at_an_exact_fit() -> None:
  actual = jnp.asarray([[0.3, 1.0, -4.0], [5.0, 0.0, 0.2]])
  value, gradient = jax.value_and_grad(lambda x: jnp.sum(forecast_loss(x, actual)))(actual)
  assert float(value) == 0.0
  np.testing.assert_array_equal(gradient, 0.0)
  # away from it, the root of the summed squares, with a gradient of length 1
  far = jax.grad(lambda x: forecast_loss(x, actual)[0])(actual + jnp.asarray([[0.3, 0.4, 1.2]]))
  np.testing.assert_allclose(far[0], np.array([0.3, 0.4, 1.2]) / 1.3, atol=1e-5)


@pytest.mark.parametrize("log_variance", [-10.0, 0.0, 10.0])
@pytest.mark.parametrize("mean", [0.0, 3.0, 1e3])
def test_kl_and_its_gradient_at_the_bounds_of_the_log_variance(log_variance: float, mean: float) -> None:
  num_rows, size, num_targets = 2, 4, 3

  def kl(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    out = jnp.zeros((1, num_rows, num_targets))
    return kl_divergence(Reconstruction(out, out, mean, log_variance))[0]

  shape = (1, num_rows, size)
  arguments = (jnp.full(shape, mean), jnp.full(shape, log_variance))
  value, (by_mean, by_log_variance) = jax.value_and_grad(kl, argnums=(0, 1))(*arguments)
  wanted = 0.5 * size * (math.exp(log_variance) + mean**2 - 1 - log_variance) / num_targets
  np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(by_mean, mean / num_rows / num_targets, rtol=1e-5)
  slope = 0.5 * math.expm1(log_variance) / num_rows / num_targets
  np.testing.assert_allclose(by_log_variance, slope, rtol=1e-5)


def test_losses_of_windows_at_the_clip_limits_are_finite_in_every_pattern() -> None:
  limits = np.array([-4.0, 5.0], np.float32)
  params = draw_params(62, SMALL)
  for seed in range(4):
    rng = np.random.default_rng(seed)
    windows = limits[rng.integers(0, 2, (3, SMALL.window_size, NUM_METRICS))]
    losses = losses_of(params, windows, limits[rng.integers(0, 2, (3, NUM_METRICS))])
    assert all(np.all(np.isfinite(part)) for part in losses)
    assert np.all(losses.forecast > 0)
    assert np.all(losses.kl >= 0)


def small_run(**train: Any) -> tuple[Config, MachineArrays]:
  """Returns settings and the arrays of one machine: waves, a constant metric, one at the clip limits."""
  settings = TrainConfig(batch_size=8, learning_rate=3e-3, final_learning_rate=3e-3, **train)
  t = np.arange(120)
  values = np.stack([np.sin(t / 5), np.cos(t / 7), t % 10 / 10, np.zeros(120), np.zeros(120)], axis=1)
  values[40, 4], values[80, 4] = 5.0, -4.0
  rows = np.arange(SMALL.window_size, 100, dtype=np.int32)
  arrays = MachineArrays(
    values=jnp.asarray(values, jnp.float32),
    fit_rows=jnp.asarray(rows),
    num_fit=jnp.asarray(len(rows)),
    validation_rows=jnp.arange(109, 120, dtype=jnp.int32),
    num_validation=jnp.asarray(11),
    machine_ids=jnp.asarray(5, jnp.uint32),
  )
  return Config(model=SMALL, train=settings), arrays


def test_two_hundred_steps_under_debug_nans_stay_finite_and_learn() -> None:
  config, arrays = small_run()
  step = jax.jit(partial(train_step, config=config, targets=ALL))
  init = jax.jit(
    partial(init_state, config=config, num_metrics=NUM_METRICS, num_targets=NUM_METRICS),
    compiler_options={"xla_backend_optimization_level": 0},
  )
  num_steps = jnp.asarray(200, jnp.int32)
  with jax.debug_nans(True):
    state = init(arrays.machine_ids)
    totals = []
    for _ in range(200):
      before = state.sums.losses.total
      state = step(state, arrays, num_steps)
      totals.append(float(state.sums.losses.total - before))
  assert int(state.step) == 200
  assert int(state.guard.num_skipped) == 0
  assert int(state.sums.num_steps) == 200
  leaves = jax.tree.leaves((state.params, state.optimizer))
  assert all(np.all(np.isfinite(leaf)) for leaf in leaves)
  assert np.mean(totals[-20:]) < np.mean(totals[:20]) - 0.3


def test_the_target_is_the_row_right_after_the_window_not_two_ahead() -> None:
  config, arrays = small_run()
  target = 50
  values = np.zeros((120, NUM_METRICS), np.float32)
  values[target] = 1.0
  params = constant_output(draw_params(63, SMALL), "forecaster.output", 1.0)
  params = constant_output(params, "linear", 0.0)
  state = _state(params)
  one_row = arrays._replace(
    values=jnp.asarray(values), validation_rows=jnp.asarray([target]), num_validation=jnp.asarray(1)
  )
  check = jax.jit(partial(validate, config=config, targets=ALL))
  assert float(check(state, one_row)[1].forecast) == pytest.approx(0, abs=1e-6)
  for other in (target - 1, target + 1):
    missed = check(state, one_row._replace(validation_rows=jnp.asarray([other])))[1].forecast
    assert float(missed) == pytest.approx(math.sqrt(NUM_METRICS), rel=1e-3)


def _state(params: Params) -> Any:
  config, _ = small_run()
  shapes = jax.eval_shape(lambda: init_state(jnp.asarray(1, jnp.uint32), config, NUM_METRICS, NUM_METRICS))
  empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  return empty._replace(params=params, best_loss=jnp.asarray(np.inf, jnp.float32))


def test_best_state_is_of_the_lowest_validation_loss_not_of_a_loss_compared_with_itself() -> None:
  config, arrays = small_run(patience=2)
  check = jax.jit(partial(validate, config=config, targets=ALL))
  state = _state(draw_params(0, SMALL))
  losses, stopped = [], []
  # the variance's bias moves the loss: 3 is bad, 0 better, 2 and 1 worse than the best
  for step, bias in enumerate([3.0, 0.0, 2.0, 1.0]):
    params = constant_output(draw_params(64, SMALL, scale=0.1), "vae.variance", bias)
    state, means = check(
      state._replace(params=params, step=jnp.asarray(step), is_validated=jnp.asarray(False)), arrays
    )
    losses.append(float(means.total))
    stopped.append(bool(state.stopped))
  assert np.argmin(losses) == 1
  assert float(state.best_loss) == min(losses)
  assert int(state.best_step) == 1
  np.testing.assert_array_equal(state.best_params["vae"]["variance"]["bias"], 0.0)
  assert stopped == [False, False, False, True]
  # a loss that is not finite is never the best
  poisoned = state._replace(params=replace_leaf(params, "vae.mean.bias", np.nan), stopped=jnp.asarray(False))
  after, means = check(poisoned, arrays)
  assert np.isnan(means.total)
  assert float(after.best_loss) == min(losses)
