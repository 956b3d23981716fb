"""The training state of one machine: all that the next step needs, and nothing else."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtad_jax.config import Config
from mtad_jax.model.network import Params, init_params
from mtad_jax.train.guard import GuardState, init_guard
from mtad_jax.train.objective import Losses
from mtad_jax.train.optimizer import make_optimizer

INIT_PURPOSE, BATCH_PURPOSE, NOISE_PURPOSE = 0, 1, 2  # folded into the seed's key; no two draws share one


class LossSums(NamedTuple):
  """Sums over the steps since the last log row: losses, and how many steps they hold ([] int32)."""

  losses: Losses
  num_steps: jax.Array


class TrainState(NamedTuple):
  """One machine's state; [M, ...] leaves for a fleet.

  step: [] int32, steps taken or skipped. params, optimizer: trees. best_params, best_loss: of the lowest
  validation loss (inf before the first validation). best_step: [] int32. num_worse: [] int32 validations in
  a row without a better one. stopped: [] bool, early stop; a stopped machine keeps its state. sums: since
  the last log row.
  """

  step: jax.Array
  params: Params
  optimizer: Any
  best_params: Params
  best_loss: jax.Array
  best_step: jax.Array
  num_worse: jax.Array
  stopped: jax.Array
  guard: GuardState
  sums: LossSums


def purpose_key(seed: int, purpose: int, machine: jax.Array) -> jax.Array:
  """Returns the key of one purpose for one machine (its [] uint32 id); step and attempt are folded in later."""
  return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), machine)


def empty_sums() -> LossSums:
  """Returns sums over no step."""
  zero = jnp.zeros((), jnp.float32)
  return LossSums(Losses(zero, zero, zero, zero), jnp.zeros((), jnp.int32))


def init_state(machine: jax.Array, config: Config, num_metrics: int, num_targets: int) -> TrainState:
  """Returns a machine's state before its first step, drawn from (seed, machine id)."""
  key = purpose_key(config.train.random_seed, INIT_PURPOSE, machine)
  params = init_params(key, config.model, num_metrics, num_targets)
  optimizer: optax.GradientTransformation = make_optimizer(config.train)
  zero = jnp.zeros((), jnp.int32)
  return TrainState(
    step=zero,
    params=params,
    optimizer=optimizer.init(params),
    best_params=jax.tree.map(jnp.copy, params),
    best_loss=jnp.full((), jnp.inf, jnp.float32),
    best_step=zero,
    num_worse=zero,
    stopped=jnp.zeros((), bool),
    guard=init_guard(),
    sums=empty_sums(),
  )
