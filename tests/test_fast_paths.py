"""The parts written for speed against the plain ones: values, gradients, and what training with them leads to."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mtad_jax.config_choices import Attention
from mtad_jax.data.fleet import training_arrays
from mtad_jax.model import attention, gru, recurrence
from mtad_jax.model.pair_logits import MOST_TERMS, PairWeights, pair_logits
from mtad_jax.model.recurrence import Weights, all_states, last_state
from mtad_jax.train import fleet_step
from mtad_jax.train.fleet_step import make_programs, place


def plain_states(inputs: jax.Array, weights: Weights) -> jax.Array:
  """The recurrence as a scan over rows [B, D], for automatic differentiation; as `all_states`."""
  size = weights.recurrent.shape[0]

  def step(state: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
    of_row = row @ weights.kernel + weights.bias[None, :]
    products = state @ weights.recurrent
    reset, update = jnp.split(jax.nn.sigmoid((of_row + products)[:, : 2 * size]), 2, axis=1)
    new = jnp.tanh(
      of_row[:, 2 * size :] + reset * (products[:, 2 * size :] + weights.candidate_bias[None, :])
    )
    state = (1 - update) * new + update * state
    return state, state

  rows = jnp.swapaxes(inputs, 1, 2)  # [W, B, D]
  states = jax.lax.scan(step, jnp.zeros((rows.shape[1], size), rows.dtype), rows)[1]
  return jnp.swapaxes(states, 1, 2)


def plain_logits(nodes: jax.Array, weights: PairWeights, slope: float) -> jax.Array:
  """Every pair written out, [B, N, N, A]."""
  left = nodes @ weights.left + weights.left_bias[None, None, :]
  right = nodes @ weights.right
  return jax.nn.leaky_relu(left[:, :, None, :] + right[:, None, :, :], slope) @ weights.terms


def value_and_gradients(part: Callable[..., jax.Array], *arguments: Any) -> Any:
  """Returns the part's value, and the gradients of a sum of it that weighs every entry otherwise."""

  def weighed(*inputs: Any) -> tuple[jax.Array, jax.Array]:
    value = part(*inputs)
    weights = jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape)
    return jnp.sum(value * weights, axis=None), value

  with jax.default_matmul_precision("highest"):
    gradients, value = jax.jit(jax.grad(weighed, tuple(range(len(arguments))), has_aux=True))(*arguments)
  return value, gradients


def assert_alike(found: Any, wanted: Any) -> None:
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    assert x.shape == y.shape
    np.testing.assert_allclose(x, y, rtol=0, atol=2e-5 * max(1.0, float(np.abs(y).max())))


def draw(seed: int, *shapes: tuple[int, ...]) -> list[jax.Array]:
  rng = np.random.default_rng(seed)
  return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


@pytest.fixture(params=[False, True], ids=["in the loop", "hoisted"])
def either_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
  """Has the recurrence form its products as a CPU does with a large batch, then as everything else does."""
  monkeypatch.setattr(recurrence, "_by_platform", lambda part, *args: part(*args, hoisted=request.param))


@pytest.mark.usefixtures("either_path")
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 2, 4), (2, 1, 6, 5), (13, 6, 3, 7)], ids=str)
def test_the_recurrence_and_its_gradient(shape: tuple[int, int, int, int]) -> None:
  rows, batch, width, size = shape
  inputs, *weights = draw(1, (rows, width, batch), (width, 3 * size), (3 * size,), (size, 3 * size), (size,))
  arguments = inputs, Weights(*weights)
  found = value_and_gradients(all_states, *arguments)
  assert_alike(found, value_and_gradients(plain_states, *arguments))
  np.testing.assert_allclose(last_state(*arguments), found[0][-1], atol=1e-6)


@pytest.mark.parametrize(("batch", "in_the_loop"), [(5, True), (4, False)])
def test_a_cpu_forms_products_in_the_loop_where_the_batch_is_half_the_weights_or_more(
  batch: int, in_the_loop: bool
) -> None:
  inputs, *weights = draw(5, (7, 6, batch), (6, 12), (12,), (4, 12), (4,))  # 6 inputs, 4 hidden
  program = jax.jit(last_state).lower(inputs, Weights(*weights)).as_text()
  assert (f"tensor<12x{7 * batch}xf32>" not in program) == in_the_loop  # all rows' products at once


@pytest.mark.parametrize("num_nodes", [1, 5, MOST_TERMS, 2 * MOST_TERMS + 1])
@pytest.mark.parametrize("width", [1, MOST_TERMS + 1, 2 * MOST_TERMS])
def test_the_pairs_logits_and_their_gradients(num_nodes: int, width: int) -> None:
  nodes, *arrays = draw(2, (3, num_nodes, 4), (4, width), (width,), (4, width), (width,))
  weights = PairWeights(*arrays)
  for slope in (0.2, 0.0):
    found = value_and_gradients(lambda *x, s=slope: pair_logits(*x, s), nodes, weights)
    assert_alike(found, value_and_gradients(lambda *x, s=slope: plain_logits(*x, s), nodes, weights))


def test_at_the_kink_the_slope_is_that_of_above() -> None:
  weights = PairWeights(jnp.ones((1, 1)), jnp.zeros(1), -jnp.ones((1, 1)), jnp.ones(1))
  gradient = jax.grad(lambda x: jnp.sum(pair_logits(jnp.ones((1, 1, 1)), x, 0.2), axis=None))(weights)
  assert (gradient.left_bias[0], gradient.left[0, 0], gradient.right[0, 0]) == (1, 1, 1)


@pytest.mark.usefixtures("either_path")
def test_mapped_over_machines_each_is_its_own() -> None:
  nodes, *arrays = draw(3, (4, 2, 5, 3), (4, 3, 6), (4, 6), (4, 3, 6), (4, 6))
  inputs, *weights = draw(4, (4, 3, 5, 2), (4, 5, 12), (4, 12), (4, 4, 12), (4, 4))
  whole = jax.vmap(lambda *x: pair_logits(*x, 0.2))(nodes, PairWeights(*arrays))
  states = jax.vmap(all_states)(inputs, Weights(*weights))
  for lane in range(4):
    of_lane = PairWeights(*(array[lane] for array in arrays))
    np.testing.assert_allclose(whole[lane], pair_logits(nodes[lane], of_lane, 0.2), atol=1e-5)
    alone = all_states(inputs[lane], Weights(*(array[lane] for array in weights)))
    np.testing.assert_allclose(states[lane], alone, atol=1e-6)


def test_no_array_of_all_pairs_is_ever_made() -> None:
  """Neither forward nor backward: the largest value has the size of the projections or of the logits."""
  batch, width, nodes, length = 2, 64, 48, 24
  shapes = ((batch, nodes, length), (length, width), (width,), (length, width), (width,))
  of_nodes, *of_weights = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
  program = jax.jit(jax.grad(lambda *x: jnp.sum(pair_logits(*x, 0.2) ** 2, axis=None), (0, 1)))
  memory = program.lower(of_nodes, PairWeights(*of_weights)).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 4 * batch * width * nodes * nodes / 2


def validation_losses(attention_kind: Attention, seed: int) -> np.ndarray:
  """Returns the machines' validation losses [3] after 150 steps."""
  config = tiny.make_config(model={"attention": attention_kind.value}, train={"random_seed": seed})
  group = tiny.make_group(config)
  fleet_step._make_programs.cache_clear()
  programs = make_programs(config, len(group.metrics), group.targets)
  arrays = place(training_arrays(group, config))
  state = programs.run(programs.init(arrays.machine_ids), arrays, 150, 150)
  return np.asarray(programs.validate(state, arrays)[1].total)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Attention.STATIC, Attention.GATV2])
def test_trained_with_the_plain_parts_the_validation_loss_is_the_same_within_seed_noise(
  kind: Attention, monkeypatch: pytest.MonkeyPatch
) -> None:
  fast = np.stack([validation_losses(kind, seed) for seed in range(3)])
  monkeypatch.setattr(gru, "all_states", plain_states)
  monkeypatch.setattr(attention, "pair_logits", plain_logits)
  plain = validation_losses(kind, seed=0)
  fleet_step._make_programs.cache_clear()
  noise = fast.std(axis=0, ddof=1)
  print(f"{kind}: apart by {np.abs(fast[0] - plain).max():.1e}, seeds by {noise.min():.2f} and more")
  assert (np.abs(fast[0] - plain) < 0.05 * noise).all()
