"""The learning rate's course, and clipping that is each machine's own under vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtad_jax.config import TrainConfig
from mtad_jax.train.optimizer import learning_rate, make_optimizer

FIRST, LAST = 1e-5, 1e-6  # what the original program advises for its later steps
NUM_STEPS = 1000


def rates(settings: TrainConfig, steps: list[int]) -> np.ndarray:
  """Returns the rates at `steps` of a run of NUM_STEPS."""
  one = jax.vmap(lambda step: learning_rate(step, jnp.asarray(NUM_STEPS), settings))
  return np.asarray(one(jnp.asarray(steps, jnp.int32)))


@pytest.mark.parametrize(
  ("schedule", "half_way", "at_a_quarter"),
  [
    ("linear", 5.5e-6, 7.75e-6),
    ("cosine", 5.5e-6, LAST + (FIRST - LAST) * 0.5 * (1 + 0.5**0.5)),
    ("exponential", 10**-5.5, 10**-5.25),
  ],
)
def test_schedules_go_from_the_first_rate_to_the_last(
  schedule: str, half_way: float, at_a_quarter: float
) -> None:
  settings = TrainConfig(learning_rate=FIRST, final_learning_rate=LAST, schedule=schedule)
  found = rates(settings, [0, 250, 500, 1000, 5000])
  np.testing.assert_allclose(found, [FIRST, at_a_quarter, half_way, LAST, LAST], rtol=1e-5)
  assert np.all(np.diff(rates(settings, list(range(0, 1001, 10)))) < 0)


def test_equal_rates_stay_constant_and_a_longer_run_takes_longer() -> None:
  flat = TrainConfig(learning_rate=FIRST, final_learning_rate=FIRST)
  np.testing.assert_allclose(rates(flat, [0, 77, 1000]), FIRST, rtol=1e-6)
  settings = TrainConfig(learning_rate=FIRST, final_learning_rate=LAST)
  short = learning_rate(jnp.asarray(300), jnp.asarray(600), settings)
  long = learning_rate(jnp.asarray(300), jnp.asarray(6000), settings)
  np.testing.assert_allclose(short, 5.5e-6, rtol=1e-5)
  assert float(long) > float(short)


def test_warm_up_rises_linearly_from_a_first_step_that_is_not_lost() -> None:
  settings = TrainConfig(learning_rate=FIRST, final_learning_rate=FIRST, warmup_steps=4)
  expected = FIRST * np.array([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
  np.testing.assert_allclose(rates(settings, [0, 1, 2, 3, 4, 999]), expected, rtol=1e-5)


def draw_gradients(num_machines: int = 3) -> dict[str, jax.Array]:
  rng = np.random.default_rng(1)
  return {
    "kernel": jnp.asarray(rng.normal(size=(num_machines, 4, 3)), jnp.float32),
    "bias": jnp.asarray(rng.normal(size=(num_machines, 3)), jnp.float32),
  }


def fleet_update(gradients: dict[str, jax.Array], clip: float) -> tuple[dict[str, jax.Array], optax.OptState]:
  """Returns (directions, optimiser states) of one step of every machine, from fresh states."""
  optimizer = make_optimizer(TrainConfig(clip_gradients=clip))
  states = jax.vmap(optimizer.init)(gradients)
  return jax.vmap(optimizer.update)(gradients, states)


@pytest.mark.parametrize("explosion", [1e6, 1e18, np.inf, np.nan])
def test_one_exploding_machine_leaves_the_others_update_bit_equal(explosion: float) -> None:
  gradients = draw_gradients()
  calm = fleet_update(gradients, clip=0.1)
  wild = fleet_update({**gradients, "kernel": gradients["kernel"].at[1].set(explosion)}, clip=0.1)
  for before, after in zip(jax.tree.leaves(calm), jax.tree.leaves(wild), strict=True):
    np.testing.assert_array_equal(np.asarray(after)[[0, 2]], np.asarray(before)[[0, 2]])
  assert np.any(np.asarray(wild[0]["kernel"][1]) != np.asarray(calm[0]["kernel"][1]))


def test_the_norm_is_of_all_leaves_of_one_machine() -> None:
  gradients = draw_gradients()
  gradients = {name: leaf.at[2].multiply(1e-3) for name, leaf in gradients.items()}
  _, states = fleet_update(gradients, clip=0.1)
  (adam,) = [x for x in jax.tree.leaves(states, is_leaf=_is_adam) if _is_adam(x)]
  first_moment, norms = machine_norms(adam.mu), machine_norms(gradients)
  assert norms[2] < 0.1 < norms[:2].min()
  # Adam's first moment is a tenth of what it was given: the clip, or the gradient where that is smaller
  np.testing.assert_allclose(first_moment, 0.1 * np.array([0.1, 0.1, norms[2]]), rtol=1e-4)


def machine_norms(tree: dict[str, jax.Array]) -> np.ndarray:
  """Returns the root of the summed squares over all leaves of every machine, [M]."""
  squares = [
    np.sum(np.square(leaf, dtype=np.float64).reshape(len(leaf), -1), axis=1) for leaf in tree.values()
  ]
  return np.sqrt(np.sum(squares, axis=0))


def _is_adam(node: object) -> bool:
  return isinstance(node, optax.ScaleByAdamState)


def test_clipping_can_be_switched_off() -> None:
  gradients = draw_gradients()
  directions, states = fleet_update(gradients, clip=0.0)
  (adam,) = [x for x in jax.tree.leaves(states, is_leaf=_is_adam) if _is_adam(x)]
  np.testing.assert_allclose(adam.mu["kernel"], 0.1 * gradients["kernel"], rtol=1e-5)
  # the first step of Adam is the gradient's sign
  np.testing.assert_allclose(directions["bias"], np.sign(gradients["bias"]), atol=1e-3)
