"""One training step and one validation of one machine; the fleet maps both."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtad_jax.config import Config
from mtad_jax.data.windows import batch_indices, gather_windows
from mtad_jax.train.guard import all_finite, judge, select
from mtad_jax.train.objective import Losses, window_losses
from mtad_jax.train.optimizer import learning_rate, make_optimizer
from mtad_jax.train.state import BATCH_PURPOSE, NOISE_PURPOSE, LossSums, TrainState, purpose_key


class MachineArrays(NamedTuple):
  """One lane of `FleetArrays`; the fields are described there."""

  values: jax.Array
  fit_rows: jax.Array
  num_fit: jax.Array
  validation_rows: jax.Array
  num_validation: jax.Array
  machine_ids: jax.Array


def _batch_losses(
  params: dict, arrays: MachineArrays, rows: jax.Array, key: jax.Array | None, config: Config, targets: tuple
) -> Losses:
  windows = gather_windows(arrays.values, rows, config.model.window_size)
  return window_losses(
    params,
    windows,
    arrays.values[rows],
    key,
    settings=config.model,
    targets=targets,
    kl_weight=config.train.kl_weight,
  )


def train_step(
  state: TrainState, arrays: MachineArrays, num_steps: jax.Array, *, config: Config, targets: tuple[int, ...]
) -> TrainState:
  """Returns the state after one step; unchanged but for counters where the machine is stopped or skipped.

  Args:
    state, arrays: one machine's.
    num_steps: [] int32, steps of the whole run, for the schedule.
  """
  seed, settings = config.train.random_seed, config.train
  attempt = state.guard.attempt
  batch_key = jax.random.fold_in(purpose_key(seed, BATCH_PURPOSE, arrays.machine_ids), attempt)
  noise_key = jax.random.fold_in(purpose_key(seed, NOISE_PURPOSE, arrays.machine_ids), attempt)
  indices = batch_indices(batch_key, state.step, arrays.num_fit, settings.batch_size)
  rows = arrays.fit_rows[indices]

  def mean_losses(params: dict) -> tuple[jax.Array, Losses]:
    key = jax.random.fold_in(noise_key, state.step)
    losses = _batch_losses(params, arrays, rows, key, config, targets)
    means = Losses(*(jnp.mean(x, axis=0) for x in losses))
    return means.total, means

  (_, losses), gradients = jax.value_and_grad(mean_losses, has_aux=True)(state.params)
  directions, optimizer = make_optimizer(settings).update(gradients, state.optimizer, state.params)
  rate = learning_rate(state.step, num_steps, settings) * state.guard.learning_rate_scale
  updates = jax.tree.map(lambda x: -rate * x, directions)
  params = optax.apply_updates(state.params, updates)

  finite = all_finite((losses, gradients, updates, params, optimizer))
  guard, _ = judge(state.guard, finite)
  params, optimizer = select(finite, (params, optimizer), (state.params, state.optimizer))
  counted = jax.tree.map(lambda x: jnp.where(finite, x, 0), losses)
  sums = LossSums(
    jax.tree.map(jnp.add, state.sums.losses, counted), state.sums.num_steps + finite.astype(jnp.int32)
  )
  after = state._replace(params=params, optimizer=optimizer, guard=guard, sums=sums)
  return select(state.stopped, state, after)._replace(step=state.step + 1)


def validate(
  state: TrainState, arrays: MachineArrays, *, config: Config, targets: tuple[int, ...]
) -> tuple[TrainState, Losses]:
  """Returns (the state with the best parameters so far, the mean validation losses []).

  The mean code is used, so the figure has no noise; a non-finite loss is never the best.
  """

  def one(row: jax.Array) -> Losses:
    losses = _batch_losses(state.params, arrays, row[None], None, config, targets)
    return Losses(*(x[0] for x in losses))

  batch = min(config.train.batch_size, arrays.validation_rows.shape[0])
  per_window = jax.lax.map(one, arrays.validation_rows, batch_size=batch)  # [V] each
  counted = jnp.arange(arrays.validation_rows.shape[0]) < arrays.num_validation
  means = Losses(*(jnp.sum(jnp.where(counted, x, 0), axis=0) / arrays.num_validation for x in per_window))
  better = (means.total < state.best_loss) & ~state.stopped
  num_worse = jnp.where(better, 0, state.num_worse + 1).astype(jnp.int32)
  patience = config.train.patience
  stopped = state.stopped | ((num_worse >= patience) if patience else jnp.zeros((), bool))
  after = state._replace(
    best_params=select(better, state.params, state.best_params),
    best_loss=jnp.where(better, means.total, state.best_loss),
    best_step=jnp.where(better, state.step, state.best_step),
    num_worse=jnp.where(state.stopped, state.num_worse, num_worse),
    stopped=stopped,
  )
  return after, means
