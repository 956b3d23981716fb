"""Records of skipped, rolled-back and retiring steps: kept on the device, read by the host at log rows.

The device keeps numbers only, so that trouble costs no host round trip; the host turns them into the entries of
metrics.jsonl, with the rows of the batch, which are a function of (machine, step, attempt).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtad_jax.train.guard import PARTS, Verdict

VERDICT_NAMES = {Verdict.SKIPPED: "skipped", Verdict.ROLLED_BACK: "rolled back", Verdict.RETIRED: "retired"}


class BadStep(NamedTuple):
  """One bad step of one machine, [] each; [R] in a `TroubleLog`.

  tick, step, attempt, verdict, parts, blocks, worst_row, back_to: int32. learning_rate, loss, usual_loss: float32.
  worst_row: target row of the batch's window with the highest loss, or the first that is not finite. back_to: the
  step of the snapshot, where a rollback or retirement leads.
  """

  tick: jax.Array
  step: jax.Array
  attempt: jax.Array
  verdict: jax.Array
  parts: jax.Array
  blocks: jax.Array
  worst_row: jax.Array
  back_to: jax.Array
  learning_rate: jax.Array
  loss: jax.Array
  usual_loss: jax.Array


class TroubleLog(NamedTuple):
  """One machine's bad steps since the last log row: num [] int32, how many of the R places count."""

  num: jax.Array
  steps: BadStep


def empty_trouble(size: int) -> TroubleLog:
  """Returns a log with room for `size` bad steps: as many as there can be between two log rows."""
  numbers = [jnp.zeros((size,), jnp.int32)] * 8
  values = [jnp.zeros((size,), jnp.float32)] * 3
  return TroubleLog(jnp.zeros((), jnp.int32), BadStep(*numbers, *values))


def record(log: TroubleLog, bad: jax.Array, step: BadStep) -> TroubleLog:
  """Returns the log with one more step where `bad` [] holds."""
  place = jnp.where(bad, log.num, log.steps.tick.shape[0])  # past the end: dropped
  steps = jax.tree.map(lambda kept, new: kept.at[place].set(new, mode="drop"), log.steps, step)
  return TroubleLog(log.num + bad.astype(jnp.int32), steps)


def _names(mask: int, names: tuple[str, ...]) -> list[str]:
  return [name for i, name in enumerate(names) if mask >> i & 1]


def _number(value: Any) -> float | None:
  return float(value) if np.isfinite(value) else None


def entries(
  log: TroubleLog,
  machines: tuple[str, ...],
  blocks: tuple[str, ...],
  batch_rows: Callable[[int, int, int], np.ndarray],
) -> list[dict[str, Any]]:
  """Returns the entries for metrics.jsonl, by tick, then machine.

  Args:
    log: of the whole group, as NumPy arrays [M] and [M, R].
    blocks: names of the parameter blocks, sorted.
    batch_rows: (lane, step, attempt) -> the target rows [B] of that batch.
  """
  found = []
  for lane, name in enumerate(machines):
    for i in range(int(log.num[lane])):
      bad = BadStep(*(np.asarray(x)[lane, i] for x in log.steps))
      found.append(
        {
          "machine": name,
          "step": int(bad.step),
          "tick": int(bad.tick),
          "attempt": int(bad.attempt),
          "verdict": VERDICT_NAMES[Verdict(int(bad.verdict))],
          "back_to": None if bad.verdict == Verdict.SKIPPED else int(bad.back_to),
          "parts": _names(int(bad.parts), PARTS),
          "blocks": _names(int(bad.blocks), blocks),
          "learning_rate": _number(bad.learning_rate),
          "loss": _number(bad.loss),
          "usual_loss": _number(bad.usual_loss),
          "worst_row": int(bad.worst_row),
          "rows": batch_rows(lane, int(bad.step), int(bad.attempt)).tolist(),
        }
      )
  return sorted(found, key=lambda entry: entry["tick"])
