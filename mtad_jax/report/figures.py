"""What the charts draw, as plain data: one entry a machine, thinned to what a screen can show.

Numbers travel as base64 of little-endian arrays, which the plotting library reads as they are; names travel
as text and are set as text in the page, never as markup.
"""

import base64
from typing import Any

import numpy as np

from mtad_jax.report.downsample import kept_rows, runs_of
from mtad_jax.report.event_file import Event
from mtad_jax.report.inputs import MachineScores
from mtad_jax.report.training_log import LossCurves
from mtad_jax.train.metrics_file import RETIRED, ROLLED_BACK

POINTS_PER_MACHINE = 4000  # points of a score curve: four for every pixel of a wide screen's width
POINTS_PER_FLEET = 400_000  # over all machines; at 12 bytes and base64 about 6.4 MB
MIN_POINTS = 300
POINTS_PER_LOSS = 400
ROWS_AROUND_EVENT = 40  # drawn without thinning on both sides of an event that has a card
MOST_ROWS_OF_EVENT = 200  # a longer event is thinned like the rest


def points_per_machine(num_machines: int) -> int:
  """Returns how many points each score curve may have, so that a large fleet's page stays readable."""
  return int(np.clip(POINTS_PER_FLEET // max(num_machines, 1), MIN_POINTS, POINTS_PER_MACHINE))


def encode(values: np.ndarray) -> dict[str, str]:
  """Returns an array [N] in the plotting library's own form: {"dtype": "f4" | "i4" | "f8", "bdata": base64}.

  Raises:
    ValueError: a type that the plotting library does not read.
  """
  kinds = {"float32": "f4", "int32": "i4", "float64": "f8"}
  if values.dtype.name not in kinds:
    raise ValueError(f"array of {values.dtype.name}; one of {', '.join(kinds)} is wanted")
  data = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
  return {"dtype": kinds[values.dtype.name], "bdata": base64.b64encode(data).decode("ascii")}


def score_figure(
  scores: MachineScores, events: list[Event], best: float | None, num_points: int, whole: np.ndarray | None = None
) -> dict[str, Any]:
  """Returns the score chart of one machine, ready for JSON.

  Args:
    scores: of the machine.
    events: of the machine.
    best: the threshold with the best point-wise F1 (chosen with labels: an oracle), or None.
    num_points: about how many points the curve may have.
    whole: positions that the curve keeps besides, or None.

  Returns:
    x, y: the curve, encoded; date: whether x are ms since 1970; thresholds {name: number or None}; moving:
    whether the threshold changes over time, and then `line`, its encoded values at x; labels and alarms:
    [start, end] pairs on the x axis, end exclusive.
  """
  finite = scores.threshold[~np.isnan(scores.threshold)]
  moving = len(finite) > 0 and bool(finite.min() != finite.max())
  # where the threshold moves, a run above it is a run of the ratio above 1
  with np.errstate(invalid="ignore", divide="ignore"):
    drawn = scores.score / scores.threshold if moving else scores.score
  level = 1.0 if moving else (float(finite[0]) if len(finite) else None)
  rows = kept_rows(drawn, num_points, level)
  if whole is not None:
    rows = np.union1d(rows, whole)
  axis = scores.row.astype(np.float64) if scores.times is None else scores.times
  step = float(np.median(np.diff(axis))) if len(axis) > 1 else 1.0
  figure: dict[str, Any] = {
    "x": encode(axis[rows].astype(np.int32) if scores.times is None else axis[rows]),
    "y": encode(scores.score[rows].astype(np.float32)),
    "date": scores.times is not None,
    "thresholds": {
      "initial": scores.initial,
      "pot": float(finite[0]) if len(finite) and not moving else None,
      "best": best,
      "warning": _last(scores.warning),
    },
    "moving": moving,
    "labels": [] if scores.label is None else _spans(runs_of(scores.label), axis, step),
    "alarms": _spans([_positions(event, scores.row) for event in events], axis, step),
  }
  if moving:
    figure["line"] = encode(scores.threshold[rows].astype(np.float32))
  return figure


def _last(values: np.ndarray | None) -> float | None:
  """Returns the last number of an array [T] that has one."""
  known = np.zeros(0) if values is None else values[~np.isnan(values)]
  return float(known[-1]) if len(known) else None


def _positions(event: Event, row: np.ndarray) -> tuple[int, int]:
  """Returns an event's place in the machine's arrays: start and exclusive end."""
  return int(np.searchsorted(row, event.start_row)), int(np.searchsorted(row, event.end_row))


def _spans(runs: list[tuple[int, int]], axis: np.ndarray, step: float) -> list[list[float]]:
  """Returns the runs on the axis; a run ends one step behind its last row, so that one row has a width."""
  return [[float(axis[start]), float(axis[end - 1] + step)] for start, end in runs if start < end]


def loss_figure(losses: LossCurves) -> dict[str, Any]:
  """Returns the loss curves of one machine, ready for JSON: {name: {x, y}}, encoded, x in fleet steps."""
  return {
    name: _curve(steps, values)
    for name, (steps, values) in losses.curves.items()
    if not np.isnan(values).all()
  }


def trouble_figure(losses: LossCurves) -> dict[str, Any] | None:
  """Returns where a machine's training was set back, ready for JSON; None where it never was.

  Returns:
    rolled_back, retired: {x, y}, lists of fleet steps and of the learning rate there (None: not finite); rate: the
    learning rate in use, {x, y} encoded.
  """
  trouble = losses.trouble
  if trouble is None or not (trouble.rollbacks or trouble.retired_tick is not None):
    return None

  def marks(verdict: str) -> dict[str, list[float | None]]:
    records = [record for record in trouble.records if record["verdict"] == verdict]
    return {"x": [r["tick"] for r in records], "y": [r["learning_rate"] for r in records]}

  return {
    "rolled_back": marks(ROLLED_BACK),
    "retired": marks(RETIRED),
    "rate": _curve(*losses.learning_rate),
  }


def _curve(steps: np.ndarray, values: np.ndarray) -> dict[str, Any]:
  rows = kept_rows(values, POINTS_PER_LOSS)
  return {"x": encode(steps[rows].astype(np.int32)), "y": encode(values[rows].astype(np.float32))}


def non_finite_validations(losses: LossCurves) -> int:
  """Returns at how many logged steps the validation loss was not finite.

  A training loss is null too where no step was taken since the row before, and says nothing by itself.
  """
  return (
    int(np.sum(np.isnan(losses.curves["validation_loss"][1]))) if "validation_loss" in losses.curves else 0
  )
