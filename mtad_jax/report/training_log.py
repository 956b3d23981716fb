"""The training log as curves: metrics.jsonl in, one machine's losses and trouble against steps out.

Steps are the fleet's: a machine that was rolled back is behind them with its own.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtad_jax.train.metrics_file import LOSSES, METRICS, find_parts, group_logs, read_metrics
from mtad_jax.train.trouble_report import Trouble, find_trouble, tells_trouble


class LossCurves(NamedTuple):
  """One machine's training log.

  curves: name of a loss -> (steps, values), both [S] float64, NaN: not finite.
  learning_rate: (steps, values) likewise, the guard's cuts included; of an older log, the schedule's alone.
  stopped_step: the logged step at which training had stopped early, or None.
  trouble: its bad steps, None where it had none.
  """

  curves: dict[str, tuple[np.ndarray, np.ndarray]]
  learning_rate: tuple[np.ndarray, np.ndarray]
  stopped_step: int | None
  trouble: Trouble | None


def read_losses(workdir: Path, missing: dict[str, str]) -> dict[str, LossCurves]:
  """Returns every machine's log; what there is not is told in `missing`, under "losses" and "trouble".

  Raises:
    ValueError: a damaged row; the file and the row are named.
  """
  losses: dict[str, LossCurves] = {}
  for log in group_logs(read_metrics(workdir)).values():
    if not log.rows:
      continue
    if not tells_trouble(log):
      missing["trouble"] = (
        f"{METRICS} was written by an older version: it does not tell rollbacks, retired machines and the causes."
      )
    troubles = {trouble.machine: trouble for trouble in find_trouble(log)}
    for lane, name in enumerate(log.machines):
      losses[name] = _lane(log.rows, lane, troubles.get(name))
  if not losses:
    missing["losses"] = (
      f"{METRICS} holds no step yet."
      if find_parts(workdir)
      else f"There is no {METRICS}: the work directory holds no training log."
    )
  return losses


def _lane(entries: list[dict[str, Any]], lane: int, trouble: Trouble | None) -> LossCurves:
  """Returns one machine's part of its group's log rows, in the order of steps."""
  curves = {}
  for loss in LOSSES:
    points = [(entry["step"], entry[loss][lane]) for entry in entries if loss in entry]
    if points:
      curves[loss] = _curve(points)
  rates = [(entry["step"], entry["learning_rate"]) for entry in entries if "learning_rate" in entry]
  stopped = [entry["step"] for entry in entries if "stopped" in entry and entry["stopped"][lane]]
  return LossCurves(
    curves=curves,
    # an older log has one rate for all machines
    learning_rate=_curve([(step, rate[lane] if isinstance(rate, list) else rate) for step, rate in rates]),
    stopped_step=stopped[0] if stopped else None,
    trouble=trouble,
  )


def _curve(points: list[tuple[int, float | None]]) -> tuple[np.ndarray, np.ndarray]:
  """Returns (steps, values), both [S] float64; null is NaN."""
  steps = np.array([step for step, _ in points], np.float64)
  return steps, np.array([np.nan if value is None else value for _, value in points], np.float64)
