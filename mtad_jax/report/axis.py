"""Where a row stands on a chart: in time where the data have a clock, else by its number."""

from typing import NamedTuple

import numpy as np

from mtad_jax.alerts.sheet import time_text
from mtad_jax.report.inputs import MachineScores

_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"))


class Axis(NamedTuple):
  """A chart's axis. dated: whether places are ms since 1970, else row numbers; last: one step behind the last row."""

  dated: bool
  first: float
  last: float


def places_of(scores: MachineScores) -> np.ndarray:
  """Returns [T] float64: ms since 1970, or the row numbers of a machine without a clock."""
  return scores.row.astype(np.float64) if scores.times is None else scores.times


def step_of(places: np.ndarray) -> float:
  """Returns the usual distance of two rows."""
  return float(np.median(np.diff(places))) if len(places) > 1 else 1.0


def machine_axis(scores: MachineScores) -> Axis:
  """Returns one machine's axis."""
  places = places_of(scores)
  return Axis(scores.times is not None, float(places[0]), float(places[-1]) + step_of(places))


def fleet_axis(machines: dict[str, MachineScores]) -> Axis:
  """Returns the axis that all machines share: by row numbers where one of them has no clock."""
  if any(scores.times is None for scores in machines.values()):
    ends = [(float(scores.row[0]), float(scores.row[-1]) + 1) for scores in machines.values()]
    return Axis(False, min(first for first, _ in ends), max(last for _, last in ends))
  axes = [machine_axis(scores) for scores in machines.values()]
  return Axis(True, min(axis.first for axis in axes), max(axis.last for axis in axes))


def most_bins(axis: Axis, step: float, wanted: int) -> int:
  """Returns into how many stretches to cut an axis: the wanted ones, or fewer, none shorter than a step."""
  return int(np.clip((axis.last - axis.first) // step if step > 0 else 1, 1, wanted))


def place_text(scores: MachineScores, position: int) -> str:
  """Returns when a row was, for a person: its time, or its number."""
  return f"row {scores.row[position]:,}" if scores.times is None else moment_text(scores.times[position])


def moment_text(milliseconds: float) -> str:
  """Returns a time to the minute, or to the second where it has seconds."""
  text = time_text(int(milliseconds)).replace("T", " ")
  return text[:16] if text[16:19] in ("", ":00") else text[:19]


def span_text(scores: MachineScores, start: int, end: int) -> str:
  """Returns when a stretch of positions was, end exclusive: "rows 5 to 9", or from when to when."""
  if scores.times is None:
    first, last = scores.row[start], scores.row[end - 1]
    return f"rows {first:,} to {last:,}" if last > first else f"row {first:,}"
  first, last = moment_text(scores.times[start]), moment_text(scores.times[end - 1])
  if last == first:
    return first
  return f"{first} to {last[11:] if last[:10] == first[:10] else last}"


def length_text(scores: MachineScores, start: int, end: int) -> str:
  """Returns how long a stretch of positions was, end exclusive: its rows, and its duration where there is a clock."""
  rows = f"{end - start:,} row{'s' if end - start != 1 else ''}"
  if scores.times is None:
    return rows
  left = int(scores.times[end - 1] - scores.times[start] + step_of(scores.times))
  parts = []
  for size, name in _UNITS:
    if left >= size:
      parts.append(f"{left // size:,} {name}")
      left %= size
  return f"{' '.join(parts[:2]) or f'{left} ms'}, {rows}"
