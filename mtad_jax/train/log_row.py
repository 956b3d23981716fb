"""One row of metrics.jsonl, and what stands beside a checkpoint, from a group's state on the host."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtad_jax.config import Config
from mtad_jax.train.guard import GuardState
from mtad_jax.train.optimizer import learning_rate
from mtad_jax.train.state import LossSums, TrainState
from mtad_jax.train.trouble import TroubleLog, entries


def report_of(state: TrainState) -> TrainState:
  """Returns the state without its large trees: all that a log row or a checkpoint's note tells."""
  snapshot = state.snapshot._replace(params={}, optimizer=())
  return state._replace(params={}, optimizer=(), best_params={}, snapshot=snapshot)


def vector(values: Any) -> list[float | None]:
  """Returns per-machine numbers for JSON; what is not finite is null."""
  return [float(x) if np.isfinite(x) else None for x in np.asarray(values, np.float64)]


def verdicts(guard: GuardState) -> dict[str, list[Any]]:
  """Returns the guard's counts, one value a machine."""
  return {
    "num_skipped": np.asarray(guard.num_skipped).tolist(),
    "num_rolled_back": np.asarray(guard.attempt).tolist(),
    "retired": np.asarray(guard.retired).tolist(),
  }


def _means(sums: LossSums) -> list[list[float | None]]:
  with np.errstate(invalid="ignore", divide="ignore"):  # a machine that took no step has no mean
    return [vector(x / sums.num_steps) for x in sums.losses]


def log_row(
  report: TrainState,
  config: Config,
  num_steps: int,
  num_fit: np.ndarray,
  machines: tuple[str, ...],
  blocks: tuple[str, ...],
  rows_of: Callable[[int, int, int], np.ndarray],
) -> dict[str, Any]:
  """Returns the row for the steps since the one before, without validation.

  Args:
    report: from `report_of`, as NumPy arrays [M, ...].
    num_steps: of the whole run. num_fit: [M] windows of the fit part.
    blocks: the parameter blocks' names, sorted. rows_of: (lane, step, attempt) -> the batch's target rows [B].
  """
  step = np.asarray(report.step)
  loss, forecast, reconstruction, kl = _means(report.sums)
  schedule = jax.vmap(lambda at: learning_rate(at, jnp.asarray(num_steps), config.train))
  rates = np.asarray(schedule(np.maximum(step - 1, 0))) * report.guard.learning_rate_scale
  row = {
    "step": int(report.tick[0]),
    "machine_step": step.tolist(),
    "epoch": float(np.median(step * config.train.batch_size / num_fit)),
    "learning_rate": vector(rates),
    "loss": loss,
    "forecast_loss": forecast,
    "reconstruction_loss": reconstruction,
    "kl": kl,
    **verdicts(report.guard),
    "stopped": np.asarray(report.stopped).tolist(),
  }
  log: TroubleLog = report.trouble
  if np.any(log.num):
    row["trouble"] = entries(log, machines, blocks, rows_of)
  return row


def checkpoint_note(report: TrainState, num_steps: int) -> dict[str, Any]:
  """Returns the facts of a state that are read without its arrays, ready for JSON."""
  return {
    "step": int(report.tick[0]),
    "num_steps": num_steps,
    "machine_step": np.asarray(report.step).tolist(),
    "verdicts": verdicts(report.guard),
    "best_loss": vector(report.best_loss),
    "best_step": np.asarray(report.best_step).tolist(),
    "validated_step": np.asarray(report.validated_step).tolist(),
  }
