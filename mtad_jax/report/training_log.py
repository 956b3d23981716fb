"""The training log as curves: metrics.jsonl in, one machine's losses against steps out.

A header row names the machines of each group; every later row holds one value a machine.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LOSS_NAMES = ("loss", "forecast_loss", "reconstruction_loss", "kl", "validation_loss")


class LossCurves(NamedTuple):
  """One machine's training log.

  curves: name of a loss -> (steps, values), both [S] float64, NaN: not finite.
  num_skipped: steps that were not taken because something was not finite.
  stopped_step: the logged step at which training had stopped early, or None.
  """

  curves: dict[str, tuple[np.ndarray, np.ndarray]]
  num_skipped: int
  stopped_step: int | None


def read_losses(path: Path, missing: dict[str, str]) -> dict[str, LossCurves]:
  """Returns every machine's log; where there is none, says why in `missing` under "losses".

  Raises:
    ValueError: a row that is not JSON, of a group without header, or with another number of machines.
  """
  if not path.is_file():
    missing["losses"] = f"There is no {path.name}: the work directory holds no training log."
    return {}
  names: dict[int, list[str]] = {}
  by_group: dict[int, dict[int, dict[str, Any]]] = {}
  lines = path.read_text().splitlines()
  for number, line in enumerate(lines, start=1):
    try:
      entry = json.loads(line)
    except ValueError:
      # a run that was stopped while writing leaves half a last line
      if number == len(lines):
        continue
      raise ValueError(f"{path}: row {number}: not readable as JSON") from None
    group = int(entry.get("group", 0))
    if entry.get("header"):
      names[group] = [str(name) for name in entry["machines"]]
      continue
    if group not in names:
      raise ValueError(f"{path}: row {number}: no header row names the machines of group {group}")
    for name in (*LOSS_NAMES, "num_skipped", "stopped"):
      if name in entry and len(entry[name]) != len(names[group]):
        raise ValueError(
          f"{path}: row {number}: {name} has {len(entry[name])} values for {len(names[group])} machines"
        )
    # a resumed run may log a step again; the later line counts
    by_group.setdefault(group, {})[int(entry["step"])] = entry
  losses: dict[str, LossCurves] = {}
  for group, by_step in by_group.items():
    entries = [by_step[step] for step in sorted(by_step)]
    for lane, name in enumerate(names[group]):
      losses[name] = _lane(entries, lane)
  if not losses:
    missing["losses"] = f"{path.name} holds no step yet."
  return losses


def _lane(entries: list[dict[str, Any]], lane: int) -> LossCurves:
  """Returns one machine's part of its group's log rows, in the order of steps."""
  curves = {}
  for loss in LOSS_NAMES:
    points = [(entry["step"], entry[loss][lane]) for entry in entries if loss in entry]
    if points:
      steps = np.array([step for step, _ in points], np.float64)
      values = np.array([np.nan if value is None else value for _, value in points], np.float64)
      curves[loss] = (steps, np.where(np.isfinite(values), values, np.nan))
  stopped = [int(entry["step"]) for entry in entries if "stopped" in entry and entry["stopped"][lane]]
  last = entries[-1]
  return LossCurves(
    curves=curves,
    num_skipped=int(last["num_skipped"][lane]) if "num_skipped" in last else 0,
    stopped_step=stopped[0] if stopped else None,
  )
