"""One training step and one validation of one machine; the fleet maps both."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from mtad_jax.config import Config
from mtad_jax.data.windows import batch_indices, gather_windows
from mtad_jax.train.guard import Verdict, examine, judge, select
from mtad_jax.train.objective import Losses, window_losses
from mtad_jax.train.optimizer import learning_rate, make_optimizer
from mtad_jax.train.state import (
  BATCH_PURPOSE,
  NOISE_PURPOSE,
  LossSums,
  Snapshot,
  TrainState,
  is_done,
  purpose_key,
)
from mtad_jax.train.trouble import BadStep, record


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


def batch_rows(arrays: MachineArrays, step: jax.Array, attempt: jax.Array, config: Config) -> jax.Array:
  """Returns the target rows [B] of a machine's batch, a function of (seed, machine, step, attempt)."""
  key = purpose_key(config.train.random_seed, BATCH_PURPOSE, arrays.machine_ids)
  indices = batch_indices(jax.random.fold_in(key, attempt), step, arrays.num_fit, config.train.batch_size)
  return arrays.fit_rows[indices]


def lane_rows(
  arrays: MachineArrays, lane: jax.Array, step: jax.Array, attempt: jax.Array, config: Config
) -> jax.Array:
  """Returns `batch_rows` of one lane [] int32 of a fleet's arrays."""
  return batch_rows(MachineArrays(*(x[lane] for x in arrays)), step, attempt, config)


def mean_losses(losses: Losses, trimmed_share: float) -> Losses:
  """Returns the means [] over the windows [B], without the share of them whose total is largest.

  At least one window is kept. A loss that is not finite is never hidden: any such window makes the mean not finite.
  """
  num_windows = losses.total.shape[0]
  num_kept = max(1, num_windows - round(trimmed_share * num_windows))
  if num_kept == num_windows:
    return Losses(*(jnp.mean(x, axis=0) for x in losses))
  order = jnp.argsort(jax.lax.stop_gradient(losses.total))
  weights = jnp.zeros(num_windows, losses.total.dtype).at[order[:num_kept]].set(1 / num_kept)
  return Losses(*(jnp.sum(weights * x, axis=0) for x in losses))  # 0 times NaN or infinity is NaN


def train_step(
  state: TrainState,
  arrays: MachineArrays,
  num_steps: jax.Array,
  *,
  config: Config,
  targets: tuple[int, ...],
  batch_axis: str | None = None,
) -> TrainState:
  """Returns the state after one step; unchanged but for the tick where the machine is done.

  Args:
    state, arrays: one machine's.
    num_steps: [] int32, steps of the whole run, for the schedule.
    batch_axis: the mesh axis, left to XLA, over which the batch's windows are spread; None: one device has them all.
  """
  settings, guard = config.train, state.guard
  rows = batch_rows(arrays, state.step, guard.attempt, config)
  if batch_axis:  # each device gathers its share; the noise, the losses and the gradients' sums follow from it
    rows = jax.lax.with_sharding_constraint(rows, P(batch_axis))
  key = jax.random.fold_in(
    purpose_key(settings.random_seed, NOISE_PURPOSE, arrays.machine_ids), guard.attempt
  )

  def batch_loss(params: dict) -> tuple[jax.Array, tuple[Losses, jax.Array]]:
    losses = _batch_losses(params, arrays, rows, jax.random.fold_in(key, state.step), config, targets)
    means = mean_losses(losses, settings.trimmed_share)
    return means.total, (means, losses.total)

  (_, (losses, per_window)), gradients = jax.value_and_grad(batch_loss, has_aux=True)(state.params)
  directions, optimizer = make_optimizer(settings).update(gradients, state.optimizer, state.params)
  rate = learning_rate(state.step, num_steps, settings) * guard.learning_rate_scale
  params = optax.apply_updates(state.params, jax.tree.map(lambda x: -rate * x, directions))

  taken = state._replace(
    step=state.step + 1, params=params, optimizer=optimizer, is_validated=jnp.zeros((), bool)
  )
  if settings.guard:
    findings = examine(guard, losses, gradients, params, optimizer, settings)
    next_guard, verdict = judge(guard, findings, losses.total, settings)
    bad_step = BadStep(
      tick=state.tick,
      step=state.step,
      attempt=guard.attempt,
      verdict=verdict,
      parts=findings.parts,
      blocks=findings.blocks,
      worst_row=rows[jnp.argmax(per_window)],  # argmax takes NaN for the largest
      back_to=state.snapshot.step,
      learning_rate=rate,
      loss=losses.total,
      usual_loss=findings.usual_loss,
    )
    after = _obey(state, taken._replace(guard=next_guard), verdict, settings.snapshot_every_steps)
    good = verdict == Verdict.OK
    after = after._replace(trouble=record(state.trouble, ~good & ~is_done(state, num_steps), bad_step))
  else:
    after, good = taken, jnp.ones((), bool)
  counted = jax.tree.map(lambda x: jnp.where(good, x, 0), losses)
  sums = LossSums(
    jax.tree.map(jnp.add, state.sums.losses, counted), state.sums.num_steps + good.astype(jnp.int32)
  )
  after = select(is_done(state, num_steps), state, after._replace(sums=sums))
  return after._replace(tick=state.tick + 1)


def _obey(state: TrainState, taken: TrainState, verdict: jax.Array, snapshot_every: int) -> TrainState:
  """Returns the state that the verdict leaves: the step taken or not, or the snapshot; the snapshot renewed.

  The snapshot is the state before a good step: its loss has been seen, that of the state after has not.
  """
  good = verdict == Verdict.OK
  restored = (verdict == Verdict.ROLLED_BACK) | (verdict == Verdict.RETIRED)
  kept, back = state.snapshot, restored
  params, optimizer = jax.tree.map(
    lambda new, old, saved: jnp.where(good, new, jnp.where(back, saved, old)),
    (taken.params, taken.optimizer),
    (state.params, state.optimizer),
    (kept.params, kept.optimizer),
  )
  renew = good & (taken.guard.num_good >= snapshot_every)
  now = Snapshot(state.params, state.optimizer, state.step, state.guard.history)
  guard = taken.guard._replace(
    history=select(restored, kept.history, taken.guard.history),
    num_good=jnp.where(renew | restored, 0, taken.guard.num_good),
  )
  return taken._replace(
    step=jnp.where(restored, kept.step, taken.step),
    params=params,
    optimizer=optimizer,
    is_validated=jnp.where(good | restored, False, state.is_validated),
    guard=guard,
    snapshot=select(renew, now, kept),
  )


def validate(
  state: TrainState, arrays: MachineArrays, *, config: Config, targets: tuple[int, ...]
) -> tuple[TrainState, Losses]:
  """Returns (the state with the best parameters so far, the mean validation losses []).

  The mean code is used, so the figure has no noise; a non-finite loss is never the best. Parameters that were
  validated before count no second time: a machine that is done stays as it was however long the others go on.
  """

  def one(row: jax.Array) -> Losses:
    losses = _batch_losses(state.params, arrays, row[None], None, config, targets)
    return Losses(*(x[0] for x in losses))

  batch = min(config.train.batch_size, arrays.validation_rows.shape[0])
  per_window = jax.lax.map(one, arrays.validation_rows, batch_size=batch)  # [V] each
  counted = jnp.arange(arrays.validation_rows.shape[0]) < arrays.num_validation
  means = Losses(*(jnp.sum(jnp.where(counted, x, 0), axis=0) / arrays.num_validation for x in per_window))
  due = ~state.stopped & ~state.is_validated
  better = (means.total < state.best_loss) & due
  num_worse = jnp.where(better, 0, state.num_worse + 1).astype(jnp.int32)
  patience = config.train.patience
  worn_out = (num_worse >= patience) if patience else jnp.zeros((), bool)
  after = state._replace(
    best_params=select(better, state.params, state.best_params),
    best_loss=jnp.where(better, means.total, state.best_loss),
    best_step=jnp.where(better, state.step, state.best_step),
    validated_step=jnp.where(due, state.step, state.validated_step),
    is_validated=jnp.ones((), bool),
    num_worse=jnp.where(due, num_worse, state.num_worse),
    stopped=state.stopped | (due & worn_out),
  )
  return after, means
