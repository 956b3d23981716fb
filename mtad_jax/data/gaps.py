"""Missing values and irregular timestamps: a series goes in, a regular grid without NaN comes out.

Rule: every input row goes to the nearest slot of a grid that starts at the first timestamp; a missing value
takes the last value seen before it, and before the first one the metric's `leading_fill` (learnt in
training). Only the past is used, so a row is filled the same at scoring as in a stream.
"""

from typing import NamedTuple

import numpy as np

from mtad_jax.data.machine import Series

MAX_GRID_GROWTH = 50  # slots per input row, beyond which a clock is taken to be wrong


class Grid(NamedTuple):
  """A series on a regular grid of G slots.

  values: [G, F] float64, NaN where nothing was seen.
  filled: [G, F] bool, True where the value was not seen.
  row_to_grid: [T] int64, the slot of every input row.
  num_collisions: input rows that another, later row of the same slot displaced.
  """

  values: np.ndarray
  filled: np.ndarray
  row_to_grid: np.ndarray
  num_collisions: int


def sampling_step(series: Series) -> float | None:
  """Returns the median step of the timestamps in seconds, or None without timestamps or below two rows."""
  if series.timestamps is None or len(series.timestamps) < 2:
    return None
  milliseconds = series.timestamps.astype("datetime64[ms]").astype(np.int64)
  return float(np.median(np.diff(milliseconds))) / 1000.0


def grid_step(series: Series) -> float | None:
  """Returns the step in seconds that the whole record keeps, or None where `sampling_step` is None.

  The median of jittered steps is off by a little, and a long record multiplies that into whole slots; the
  record's length over its number of steps is not. Learnt from the training split and used as it is afterwards, so
  that a row's slot depends on no later row.
  """
  median_s = sampling_step(series)
  if median_s is None or series.timestamps is None or median_s <= 0:
    return median_s
  milliseconds = series.timestamps.astype("datetime64[ms]").astype(np.int64)
  num_steps = float(np.sum(np.rint(np.diff(milliseconds) / (1000.0 * median_s))))
  return float(milliseconds[-1] - milliseconds[0]) / (1000.0 * num_steps)


def _check_values(series: Series) -> None:
  infinite = np.argwhere(np.isinf(series.values))
  if len(infinite):
    row, column = infinite[0]
    raise ValueError(
      f"row {row}, column {column}: {series.values[row, column]} is not allowed; a finite number or an empty"
      " field is wanted"
    )


def _slots(timestamps: np.ndarray, step_s: float) -> np.ndarray:
  """Returns the grid slot [T] of every timestamp; raises ValueError on a clock that cannot be right."""
  milliseconds = timestamps.astype("datetime64[ms]").astype(np.int64)
  backwards = np.flatnonzero(np.diff(milliseconds) <= 0)
  if len(backwards):
    row = int(backwards[0]) + 1
    raise ValueError(
      f"row {row}: timestamp {timestamps[row]} does not come after {timestamps[row - 1]}; times must rise"
    )
  # half a step rounds up: np.rint would send .5 to the even slot, now up and now down
  slots = np.floor((milliseconds - milliseconds[0]) / (1000.0 * step_s) + 0.5).astype(np.int64)
  num_slots = int(slots[-1]) + 1
  if num_slots > MAX_GRID_GROWTH * len(slots):
    worst = int(np.argmax(np.diff(milliseconds))) + 1
    raise ValueError(
      f"row {worst}: timestamps {timestamps[worst - 1]} to {timestamps[worst]} make a grid of {num_slots}"
      f" slots of {step_s:g} s for {len(slots)} rows; at most {MAX_GRID_GROWTH} slots per row are allowed"
    )
  return slots


def place_on_grid(series: Series, step_s: float | None) -> Grid:
  """Returns the series on its grid, NaN where nothing was seen.

  Args:
    series: [T, F] values, NaN where missing; without timestamps the rows are the grid.
    step_s: the grid's step in seconds; None: the rows are the grid.

  Raises:
    ValueError: infinite values, timestamps that do not rise, a step that is not positive, or a grid of more
      than 50 slots per row.
  """
  _check_values(series)
  num_rows, num_metrics = series.values.shape
  if series.timestamps is None or step_s is None or num_rows == 0:
    values = series.values.astype(np.float64)
    return Grid(values, np.isnan(values), np.arange(num_rows, dtype=np.int64), 0)
  if not step_s > 0:
    raise ValueError(f"sampling step {step_s!r} s is not allowed; a positive number of seconds is wanted")
  slots = _slots(series.timestamps, step_s)
  values = np.full((int(slots[-1]) + 1, num_metrics), np.nan)
  is_last = np.append(np.diff(slots) > 0, True)  # of the rows of one slot the later wins
  values[slots[is_last]] = series.values[is_last]
  return Grid(values, np.isnan(values), slots, int(np.sum(~is_last)))


def fill(values: np.ndarray, leading_fill: np.ndarray) -> np.ndarray:
  """Returns [T, F] without NaN: the last value seen, before the first one `leading_fill` [F]."""
  if len(values) == 0:
    return values.copy()
  rows = np.where(np.isnan(values), -1, np.arange(len(values))[:, None])  # [T, F]
  last_seen = np.maximum.accumulate(rows, axis=0)
  carried = np.take_along_axis(values, np.maximum(last_seen, 0), axis=0)
  return np.where(last_seen < 0, leading_fill[None, :], carried)
