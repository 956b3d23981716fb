"""The network against the slow reference, and the laws that its parts obey."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from mtad_jax.config import ModelConfig
from mtad_jax.config_choices import Attention, RunMode
from mtad_jax.model.attention import GraphAttention
from mtad_jax.model.network import Outputs, Params, apply, init_params
from mtad_jax.model.vae import bounded

NUM_METRICS, NUM_WINDOWS = 5, 3
SMALL = ModelConfig(
  window_size=9,
  linear_rows=4,
  kernel_size=3,
  hidden_size=7,
  forecast_size=6,
  forecast_layers=2,
  latent_size=4,
  decoder_size=8,
)
GATV2 = dataclasses.replace(SMALL, attention=Attention.GATV2, attention_size=6)
APPLY = jax.jit(apply, static_argnames=("settings", "num_targets", "last_row_only"))
# compiled once and run once: unoptimised, it compiles three times faster
INIT = jax.jit(init_params, static_argnums=(1, 2, 3), compiler_options={"xla_backend_optimization_level": 0})
TOLERANCE = 1e-5  # of float32 against float64, relative to the larger of 1 and the value


@pytest.fixture(autouse=True)
def _highest_precision() -> Iterator[None]:
  with jax.default_matmul_precision("highest"):
    yield


def draw_params(
  seed: int, settings: ModelConfig, num_targets: int = NUM_METRICS, scale: float = 0.6
) -> Params:
  """Returns a tree in which every leaf, biases too, is drawn from N(0, scale^2), a tenth of it 3 times that."""
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), settings, NUM_METRICS, num_targets))

  def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    size = np.where(rng.random(leaf.shape) < 0.1, 3 * scale, scale)
    return jnp.asarray(rng.normal(size=leaf.shape) * size, leaf.dtype)

  return jax.tree.map(draw, shapes)


def draw_windows(seed: int, settings: ModelConfig = SMALL) -> np.ndarray:
  """Returns scaled windows [B, W, F] float32 with values at the clip limits -4 and 5 among them."""
  rng = np.random.default_rng(seed)
  windows = rng.random((NUM_WINDOWS, settings.window_size, NUM_METRICS))
  windows[0, 2, 1], windows[0, -1, 0], windows[1, 4, :] = 5.0, -4.0, 5.0
  return windows.astype(np.float32)


def exact(tree: Any) -> Any:
  """Returns the tree in float64 NumPy."""
  return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def assert_close(actual: jax.Array, wanted: np.ndarray) -> None:
  assert actual.shape == wanted.shape
  np.testing.assert_array_less(np.abs(exact(actual) - wanted) / np.maximum(1, np.abs(wanted)), TOLERANCE)


@pytest.mark.parametrize("attention", list(Attention))
@pytest.mark.parametrize(
  ("run_mode", "with_noise"),
  [
    (RunMode.FORECASTING, False),
    (RunMode.RECONSTRUCTING, True),
    (RunMode.BOTH, False),
    (RunMode.BOTH, True),
  ],
)
def test_forward_pass_agrees_with_the_reference(
  attention: Attention, run_mode: RunMode, with_noise: bool
) -> None:
  settings = dataclasses.replace(SMALL, attention=attention, run_mode=run_mode)
  num_targets = 2  # fewer than the metrics: the rest are input only
  params = draw_params(1, settings, num_targets)
  windows = draw_windows(2)
  shape = (*windows.shape[:2], settings.latent_size)
  noise = np.random.default_rng(3).normal(size=shape).astype(np.float32) if with_noise else None
  outputs = APPLY(params, jnp.asarray(windows), noise, settings=settings, num_targets=num_targets)
  assert (outputs.forecast is None) == (run_mode is RunMode.RECONSTRUCTING)
  assert (outputs.reconstruction is None) == (run_mode is RunMode.FORECASTING)
  for b in range(NUM_WINDOWS):
    expected = reference.network(
      exact(params), exact(windows[b]), None if noise is None else exact(noise[b]), settings
    )
    assert (outputs.feature_attention is None) == (attention is Attention.NONE)
    if outputs.feature_attention is not None:
      assert_close(outputs.feature_attention[b], expected.feature_attention)
      assert_close(outputs.time_attention[b], expected.time_attention)
    if outputs.forecast is not None:
      assert expected.forecast is not None
      assert_close(outputs.forecast[b], expected.forecast)
    if outputs.reconstruction is not None:
      assert expected.reconstruction is not None
      for actual, wanted in zip(outputs.reconstruction, expected.reconstruction, strict=True):
        assert_close(actual[b], wanted)


@pytest.mark.parametrize("settings", [SMALL, GATV2], ids=["static", "gatv2"])
def test_last_row_only_is_the_last_row_of_the_whole_reconstruction(settings: ModelConfig) -> None:
  params, windows = draw_params(4, settings), jnp.asarray(draw_windows(5))
  whole = APPLY(params, windows, settings=settings, num_targets=NUM_METRICS)
  last = APPLY(params, windows, settings=settings, num_targets=NUM_METRICS, last_row_only=True)
  assert whole.reconstruction is not None
  assert last.reconstruction is not None
  for every_row, one_row in zip(whole.reconstruction, last.reconstruction, strict=True):
    assert one_row.shape == (NUM_WINDOWS, every_row.shape[-1])
    np.testing.assert_allclose(one_row, every_row[:, -1], rtol=TOLERANCE, atol=TOLERANCE)
  np.testing.assert_allclose(last.forecast, whole.forecast, rtol=TOLERANCE, atol=TOLERANCE)


def run(params: Params, windows: np.ndarray, settings: ModelConfig) -> Outputs:
  return APPLY(params, jnp.asarray(windows), settings=settings, num_targets=NUM_METRICS)


@pytest.mark.parametrize("settings", [SMALL, GATV2], ids=["static", "gatv2"])
def test_softmax_is_over_the_neighbours_so_attention_rows_sum_to_one(settings: ModelConfig) -> None:
  outputs = run(draw_params(6, settings), draw_windows(7), settings)
  for attention in (outputs.feature_attention, outputs.time_attention):
    np.testing.assert_allclose(np.sum(attention, axis=2), 1.0, atol=1e-6)
    # a softmax over the queries would have its columns sum to 1 instead
    assert np.abs(np.sum(attention, axis=1) - 1.0).max() > 0.01


def attend(nodes: np.ndarray, *, gatv2: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns one graph attention's (mixed nodes, attention) of nodes [B, N, D], with drawn parameters."""
  module = GraphAttention(gatv2, attention_size=0, leaky_slope=0.2)
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.asarray(nodes)))
  params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes)
  mixed, attention = module.apply(params, jnp.asarray(nodes))
  return np.asarray(mixed), np.asarray(attention)


def test_gatv2_projections_are_twice_the_nodes_own_length_by_default() -> None:
  settings = dataclasses.replace(GATV2, attention_size=0)
  params = draw_params(0, settings)
  assert params["feature_attention"]["weight"].shape == (2 * settings.window_size, 1)
  assert params["time_attention"]["weight"].shape == (2 * NUM_METRICS, 1)


@pytest.mark.parametrize("gatv2", [False, True], ids=["static", "gatv2"])
def test_permuting_the_nodes_permutes_the_attention_and_its_output(gatv2: bool) -> None:
  rng = np.random.default_rng(8)
  nodes = rng.normal(size=(2, 6, 4)).astype(np.float32)
  order = rng.permutation(6)
  mixed, attention = attend(nodes, gatv2=gatv2, seed=9)
  mixed_after, attention_after = attend(nodes[:, order], gatv2=gatv2, seed=9)
  np.testing.assert_allclose(mixed_after, mixed[:, order], atol=1e-6)
  np.testing.assert_allclose(attention_after, attention[:, order][:, :, order], atol=1e-6)
  assert np.abs(mixed_after - mixed).max() > 1e-3


@pytest.mark.parametrize("settings", [SMALL, GATV2], ids=["static", "gatv2"])
def test_permuting_metrics_permutes_the_feature_attention(settings: ModelConfig) -> None:
  params, windows = draw_params(10, settings, scale=0.3), draw_windows(11)
  order = np.array([3, 0, 4, 1, 2])
  # the convolution mixes metrics, so its kernel changes places with them
  kernel = params["convolution"]["kernel"][:, order][:, :, order]
  moved = {**params, "convolution": {"kernel": kernel, "bias": params["convolution"]["bias"][order]}}
  before = run(params, windows, settings).feature_attention
  after = run(moved, windows[:, :, order], settings).feature_attention
  np.testing.assert_allclose(after, before[:, order][:, :, order], atol=1e-5)
  assert np.abs(after - before).max() > 1e-3


@pytest.mark.parametrize("settings", [SMALL, GATV2], ids=["static", "gatv2"])
def test_permuting_rows_permutes_the_time_attention(settings: ModelConfig) -> None:
  one_row = dataclasses.replace(settings, kernel_size=1)  # no mixing over time before the attention
  params, windows = draw_params(12, one_row, scale=0.3), draw_windows(13)
  order = np.random.default_rng(14).permutation(one_row.window_size)
  before = run(params, windows, one_row).time_attention
  after = run(params, windows[:, order], one_row).time_attention
  np.testing.assert_allclose(after, before[:, order][:, :, order], atol=1e-5)
  assert np.abs(after - before).max() > 1e-3


def test_static_attention_ranks_the_neighbours_alike_for_every_query_and_gatv2_does_not() -> None:
  nodes = np.random.default_rng(15).normal(size=(1, 6, 4)).astype(np.float32)
  num_orders = {}
  for gatv2 in (False, True):
    _, attention = attend(nodes, gatv2=gatv2, seed=16)
    num_orders[gatv2] = len({tuple(np.argsort(row)) for row in attention[0]})
  assert num_orders[False] == 1
  assert num_orders[True] > 1


@pytest.mark.parametrize("settings", [SMALL, GATV2], ids=["static", "gatv2"])
def test_convolution_is_not_thrown_away_but_feeds_both_attentions(settings: ModelConfig) -> None:
  params, windows = draw_params(17, settings, scale=0.3), draw_windows(18)
  other = {**params, "convolution": draw_params(19, settings, scale=0.3)["convolution"]}
  before, after = run(params, windows, settings), run(other, windows, settings)
  assert np.abs(after.feature_attention - before.feature_attention).max() > 1e-3
  assert np.abs(after.time_attention - before.time_attention).max() > 1e-3
  # of a kernel and bias of zeros nothing reaches the attentions: every neighbour weighs the same
  silent = {**params, "convolution": jax.tree.map(jnp.zeros_like, params["convolution"])}
  outputs = run(silent, windows, settings)
  np.testing.assert_allclose(outputs.feature_attention, 1 / NUM_METRICS, atol=1e-6)
  np.testing.assert_allclose(outputs.time_attention, 1 / settings.window_size, atol=1e-6)


def test_inference_takes_no_random_draw_of_the_code() -> None:
  params, windows = draw_params(20, SMALL), jnp.asarray(draw_windows(21))

  def mean(noise: jax.Array | None) -> np.ndarray:
    outputs = APPLY(params, windows, noise, settings=SMALL, num_targets=NUM_METRICS)
    assert outputs.reconstruction is not None
    return np.asarray(outputs.reconstruction.mean)

  shape = (*windows.shape[:2], SMALL.latent_size)
  np.testing.assert_array_equal(mean(None), mean(None))
  np.testing.assert_allclose(mean(None), mean(jnp.zeros(shape)), atol=1e-6)  # the mean code
  assert np.abs(mean(None) - mean(jnp.ones(shape))).max() > 1e-3


def test_a_windows_outputs_do_not_depend_on_its_batch() -> None:
  params, windows = draw_params(22, SMALL), draw_windows(23)
  together = run(params, windows, SMALL)
  alone = run(params, windows[1:2], SMALL)
  for whole, one in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
    np.testing.assert_allclose(one[0], whole[1], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("settings", [SMALL, GATV2], ids=["static", "gatv2"])
def test_no_parameter_is_left_uninitialised(settings: ModelConfig) -> None:
  params = INIT(jax.random.key(24), settings, NUM_METRICS, NUM_METRICS)
  num_biases = 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    if "bias" in jax.tree_util.keystr(path):
      num_biases += 1
      np.testing.assert_array_equal(leaf, 0.0)
    elif "linear" in (name := jax.tree_util.keystr(path)) or name == "['forecaster']['output']['kernel']":
      # the skip is fitted before the first step, and training begins at its errors
      np.testing.assert_array_equal(leaf, 0.0)
    else:
      assert np.all(np.isfinite(leaf))
      assert np.std(leaf) > 0
      assert np.abs(leaf).max() < 5
  assert num_biases >= 9
  outputs = run(params, draw_windows(25), settings)
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(outputs))


def test_bounded_stays_inside_with_slope_one_at_zero() -> None:
  x = jnp.asarray([-1e30, -1e3, -90.0, -0.0, 0.0, 90.0, 1e3, 1e30])
  value = np.asarray(bounded(x, -10.0, 4.0))
  slope = np.asarray(jax.vmap(jax.grad(lambda a: bounded(a, -10.0, 4.0)))(x))
  np.testing.assert_allclose(value, [-10, -10, -10, 0, 0, 4, 4, 4], atol=1e-5)
  assert np.all(np.isfinite(slope))
  np.testing.assert_allclose(slope[3:5], 1.0)
  grid = np.asarray(bounded(jnp.linspace(-30, 30, 301), -10.0, 4.0))
  assert np.all(np.diff(grid) > -2e-6)  # rising, but for the last digit of float32
