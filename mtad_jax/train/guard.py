"""The guard of one machine: a verdict on every step, taken on the device, as data.

A step whose loss, gradients, updates or new parameters are not finite is not taken: the state before it is
selected (never multiplied: 0 * NaN is NaN) and the machine goes on with its next batch.
"""

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Verdict(enum.IntEnum):
  """What became of one step of one machine."""

  OK = 0
  SKIPPED = 1
  ROLLED_BACK = 2
  RETIRED = 3


class GuardState(NamedTuple):
  """What the next verdict needs.

  num_skipped, skipped_in_a_row: [] int32. attempt: [] int32, folded into the keys of a replayed step's draws.
  learning_rate_scale: [] float32, factor of the scheduled rate.
  """

  num_skipped: jax.Array
  skipped_in_a_row: jax.Array
  attempt: jax.Array
  learning_rate_scale: jax.Array


def init_guard() -> GuardState:
  """Returns the guard's state before the first step."""
  zero = jnp.zeros((), jnp.int32)
  return GuardState(zero, zero, zero, jnp.ones((), jnp.float32))


def all_finite(tree: Any) -> jax.Array:
  """Returns a [] bool: whether every value of every floating leaf is finite."""
  leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
  return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))


def select(condition: jax.Array, if_true: Any, if_false: Any) -> Any:
  """Returns one of two equal trees, leaf by leaf, by a [] bool."""
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), if_true, if_false)


def judge(guard: GuardState, finite: jax.Array) -> tuple[GuardState, jax.Array]:
  """Returns (the guard's next state, the verdict [] int32) from whether the step was finite throughout."""
  skipped = jnp.where(finite, 0, 1).astype(jnp.int32)
  after = guard._replace(
    num_skipped=guard.num_skipped + skipped,
    skipped_in_a_row=jnp.where(finite, 0, guard.skipped_in_a_row + 1).astype(jnp.int32),
  )
  return after, jnp.where(finite, int(Verdict.OK), int(Verdict.SKIPPED)).astype(jnp.int32)
