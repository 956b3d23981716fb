"""The training state of one machine: all that the next step needs, and nothing else."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtad_jax.config import Config
from mtad_jax.model.network import Params, init_params
from mtad_jax.train.guard import GuardState, LossHistory, init_guard
from mtad_jax.train.objective import Losses
from mtad_jax.train.optimizer import make_optimizer
from mtad_jax.train.trouble import TroubleLog, empty_trouble

INIT_PURPOSE, BATCH_PURPOSE, NOISE_PURPOSE = 0, 1, 2  # folded into the seed's key; no two draws share one


class LossSums(NamedTuple):
  """Sums over the steps since the last log row: losses, and how many steps they hold ([] int32)."""

  losses: Losses
  num_steps: jax.Array


class Snapshot(NamedTuple):
  """Where a rollback leads: the state before a step whose loss and gradients were seen to be good."""

  params: Params
  optimizer: Any
  step: jax.Array
  history: LossHistory


class TrainState(NamedTuple):
  """One machine's state; [M, ...] leaves for a fleet.

  tick: [] int32, steps of the fleet; the same in every lane. step: [] int32, this machine's own steps, taken or
  skipped; a rollback sets it back. params, optimizer: trees, always finite. best_params, best_loss: of the
  lowest validation loss (inf before the first finite one). best_step: [] int32. validated_step: [] int32, of
  the last validation, 0 before it. is_validated: [] bool, whether that was of the present parameters.
  num_worse: [] int32 validations in a row without a better one. stopped: [] bool, early stop; a stopped machine
  keeps its state. sums, trouble: since the last log row.
  """

  tick: jax.Array
  step: jax.Array
  params: Params
  optimizer: Any
  best_params: Params
  best_loss: jax.Array
  best_step: jax.Array
  validated_step: jax.Array
  is_validated: jax.Array
  num_worse: jax.Array
  stopped: jax.Array
  guard: GuardState
  snapshot: Snapshot
  sums: LossSums
  trouble: TroubleLog


def is_done(state: TrainState, num_steps: jax.Array | int) -> Any:
  """Returns whether a machine takes no more steps: it has them all, has stopped early, or is retired."""
  return state.stopped | state.guard.retired | (state.step >= num_steps)


def purpose_key(seed: int, purpose: int, machine: jax.Array) -> jax.Array:
  """Returns the key of one purpose for one machine (its [] uint32 id); step and attempt are folded in later."""
  return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), machine)


def empty_sums() -> LossSums:
  """Returns sums over no step."""
  zero = jnp.zeros((), jnp.float32)
  return LossSums(Losses(zero, zero, zero, zero), jnp.zeros((), jnp.int32))


def trouble_size(config: Config) -> int:
  """Returns how many bad steps a machine can have between two log rows."""
  return min(config.train.log_every_steps, config.train.validate_every_steps)


def with_params(state: TrainState, params: Params) -> TrainState:
  """Returns a state before its first step that begins with other parameters."""
  copies = [jax.tree.map(jnp.copy, params) for _ in range(2)]  # no two leaves share a buffer: all are donated
  return state._replace(
    params=params, best_params=copies[0], snapshot=state.snapshot._replace(params=copies[1])
  )


def init_state(machine: jax.Array, config: Config, num_metrics: int, num_targets: int) -> TrainState:
  """Returns a machine's state before its first step, drawn from (seed, machine id)."""
  key = purpose_key(config.train.random_seed, INIT_PURPOSE, machine)
  params = init_params(key, config.model, num_metrics, num_targets)
  transformation: optax.GradientTransformation = make_optimizer(config.train)
  optimizer = transformation.init(params)
  guard = init_guard(config.train)
  zero = jnp.zeros((), jnp.int32)
  state = TrainState(
    tick=zero,
    step=zero,
    params=params,
    optimizer=optimizer,
    best_params=params,
    best_loss=jnp.full((), jnp.inf, jnp.float32),
    best_step=zero,
    validated_step=zero,
    is_validated=jnp.zeros((), bool),
    num_worse=zero,
    stopped=jnp.zeros((), bool),
    guard=guard,
    snapshot=Snapshot(params, jax.tree.map(jnp.copy, optimizer), zero, guard.history),
    sums=empty_sums(),
    trouble=empty_trouble(trouble_size(config)),
  )
  return with_params(state, params)
