"""The guard of one machine: a verdict on every step, taken on the device, as data.

A step is good when its losses, gradients and new state are finite and its loss is no spike beside the machine's
own recent losses. A bad step is skipped: the state before it is selected (never multiplied: 0 * NaN is NaN).
Too many in a row roll the machine back to its last snapshot, with other draws and a smaller learning rate; a
machine that has used up its rollbacks is retired there. No machine's verdict reaches another machine.
"""

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtad_jax.config import TrainConfig

# Smallest deviation of the loss, as a share of max(|median|, 1 nat). The first is for losses that hardly vary, such
# as those of a constant metric: no jump is worth a rollback below spike_factor times it. The second holds until
# half of the history is there: losses begin at a few nats, and one that starts to diverge leaves no median to trust.
SMALLEST_DEVIATION = 0.02
FIRST_DEVIATION = 1.0
NORMAL_DEVIATION = 1.4826  # standard deviation of a normal variable over its median absolute deviation


class Verdict(enum.IntEnum):
  """What became of one step of one machine."""

  OK = 0
  SKIPPED = 1
  ROLLED_BACK = 2
  RETIRED = 3


# What can be wrong with a step; bit i of `Findings.parts` stands for the i-th. A non-finite update makes non-finite
# parameters, so the parameters stand for both.
PARTS = ("spike", "forecast", "reconstruction", "kl", "total", "gradients", "parameters", "optimizer")


class LossHistory(NamedTuple):
  """The losses of one machine's last K good steps, in a ring: losses [K] float32, num_seen [] int32."""

  losses: jax.Array
  num_seen: jax.Array


class GuardState(NamedTuple):
  """What the next verdict needs.

  num_skipped: [] int32, bad steps in all, those that led to a rollback included. skipped_in_a_row: [] int32.
  attempt: [] int32, rollbacks so far, folded into the keys of later draws. learning_rate_scale: [] float32,
  factor of the scheduled rate. retired: [] bool. history: of losses. num_good: [] int32, good steps since the
  snapshot.
  """

  num_skipped: jax.Array
  skipped_in_a_row: jax.Array
  attempt: jax.Array
  learning_rate_scale: jax.Array
  retired: jax.Array
  history: LossHistory
  num_good: jax.Array


class Findings(NamedTuple):
  """What was wrong with one step: bit masks, 0 where nothing was.

  parts: [] int32 over `PARTS`. blocks: [] int32 over the parameter blocks (sorted names) whose gradients are not
  finite. usual_loss: [] float32, running median, NaN before there is one.
  """

  parts: jax.Array
  blocks: jax.Array
  usual_loss: jax.Array


def init_guard(settings: TrainConfig) -> GuardState:
  """Returns the guard's state before the first step."""
  zero = jnp.zeros((), jnp.int32)
  history = LossHistory(jnp.zeros((settings.spike_history,), jnp.float32), zero)
  return GuardState(zero, zero, zero, jnp.ones((), jnp.float32), jnp.zeros((), bool), history, zero)


def all_finite(tree: Any) -> jax.Array:
  """Returns a [] bool: whether every value of every floating leaf is finite."""
  leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
  return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))


def select(condition: jax.Array, if_true: Any, if_false: Any) -> Any:
  """Returns one of two equal trees, leaf by leaf, by a [] bool."""
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), if_true, if_false)


def bit_mask(flags: list[jax.Array]) -> jax.Array:
  """Returns [] int32 with bit i set where flags[i] ([] bool) holds."""
  return jnp.sum(jnp.stack(flags).astype(jnp.int32) << jnp.arange(len(flags), dtype=jnp.int32), axis=0)


def remember(history: LossHistory, loss: jax.Array, good: jax.Array) -> LossHistory:
  """Returns the history with the loss [] of a good step added; that of a bad step is left out.

  So a machine that diverges does not take its own level for usual: batches are random draws of the same rows, and
  a loss that jumps and stays there comes from the parameters.
  """
  place = jnp.where(good, history.num_seen % history.losses.shape[0], history.losses.shape[0])
  return LossHistory(
    history.losses.at[place].set(loss, mode="drop"), history.num_seen + good.astype(jnp.int32)
  )


def spike_limit(history: LossHistory, factor: float) -> tuple[jax.Array, jax.Array]:
  """Returns (the running median, the loss above which a step is a spike), both [] float32.

  limit = median + factor * max(1.4826 * median |loss - median|, share * max(|median|, 1)). The median is NaN and
  the limit infinite before the first loss.
  """
  size = history.losses.shape[0]
  num = jnp.minimum(history.num_seen, size)
  known = jnp.arange(size) < num
  middle = jnp.maximum(num - 1, 0) // 2
  median = jnp.sort(jnp.where(known, history.losses, jnp.inf))[middle]
  deviation = jnp.sort(jnp.where(known, jnp.abs(history.losses - median), jnp.inf))[middle]
  share = jnp.where(num >= (size + 1) // 2, SMALLEST_DEVIATION, FIRST_DEVIATION)
  floor = share * jnp.maximum(jnp.abs(median), 1.0)
  limit = median + factor * jnp.maximum(NORMAL_DEVIATION * deviation, floor)
  return jnp.where(num > 0, median, jnp.nan), jnp.where(num > 0, limit, jnp.inf)


def examine(
  guard: GuardState,
  losses: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
  gradients: dict[str, Any],
  params: Any,
  optimizer: Any,
  settings: TrainConfig,
) -> Findings:
  """Returns what is wrong with a step.

  Args:
    losses: total, forecast, reconstruction, kl of the batch, [] each.
    gradients: by parameter block. params, optimizer: as they would be after the step.
  """
  total, forecast, reconstruction, kl = losses
  usual, limit = spike_limit(guard.history, settings.spike_factor)
  spike = (total > limit) if settings.spike_factor > 0 else jnp.zeros((), bool)
  bad_blocks = [~all_finite(gradients[name]) for name in sorted(gradients)]
  bad = {
    "spike": spike & jnp.isfinite(total),
    "forecast": ~jnp.isfinite(forecast),
    "reconstruction": ~jnp.isfinite(reconstruction),
    "kl": ~jnp.isfinite(kl),
    "total": ~jnp.isfinite(total),
    "gradients": jnp.any(jnp.stack(bad_blocks), axis=0),
    "parameters": ~all_finite(params),
    "optimizer": ~all_finite(optimizer),
  }
  return Findings(bit_mask([bad[name] for name in PARTS]), bit_mask(bad_blocks), usual)


def judge(
  guard: GuardState, findings: Findings, loss: jax.Array, settings: TrainConfig
) -> tuple[GuardState, jax.Array]:
  """Returns (the guard's next state, the verdict [] int32).

  After a rollback the learning rate is cut by rollback_rate_cut and grows back by good steps; each further rollback
  doubles the number of steps that takes, so that a rate which is too high is not tried for ever. The caller
  restores what the snapshot holds, the history of losses included.
  """
  good = findings.parts == 0
  in_a_row = jnp.where(good, 0, guard.skipped_in_a_row + 1).astype(jnp.int32)
  too_many = in_a_row >= settings.max_skipped_in_a_row
  retired = too_many & (guard.attempt >= settings.max_rollbacks)
  rolled_back = too_many & ~retired
  doublings = jnp.clip(guard.attempt - 1, 0, 30).astype(jnp.float32)
  growth = settings.rollback_rate_cut ** (-1.0 / (settings.rate_recovery_steps * 2.0**doublings))
  scale = jnp.where(good, jnp.minimum(guard.learning_rate_scale * growth, 1.0), guard.learning_rate_scale)
  after = GuardState(
    num_skipped=guard.num_skipped + jnp.where(good, 0, 1).astype(jnp.int32),
    skipped_in_a_row=jnp.where(too_many, 0, in_a_row),
    attempt=guard.attempt + rolled_back.astype(jnp.int32),
    learning_rate_scale=jnp.where(rolled_back, scale * settings.rollback_rate_cut, scale).astype(jnp.float32),
    retired=guard.retired | retired,
    history=remember(guard.history, loss, good),
    num_good=guard.num_good + good.astype(jnp.int32),
  )
  verdict = jnp.select(
    [good, retired, rolled_back],
    [int(Verdict.OK), int(Verdict.RETIRED), int(Verdict.ROLLED_BACK)],
    int(Verdict.SKIPPED),
  )
  return after, verdict.astype(jnp.int32)
