"""Which rows of a long series are drawn: the lowest and the highest of every bucket, and all that must show.

A chart is a thousand pixels wide and a series has ten thousands of rows. Thinning by stride loses spikes;
the min-max rule loses none that could be seen, and the peak of every run above the threshold is kept besides.
"""

import numpy as np

from mtad_jax.detect.events import runs


def kept_rows(values: np.ndarray, num_points: int, threshold: float | None = None) -> np.ndarray:
  """Returns the rows to draw, rising.

  Kept are the first and the last row, each bucket's lowest and highest value, the highest value of each run
  above `threshold`, and the first row of each run of NaN, so that a gap stays a gap.

  Args:
    values: [N] numbers, NaN where there is none.
    num_points: about how many rows to keep (at least 2); a series that is not longer is kept whole.
    threshold: in the unit of `values`; None: no run is looked for.

  Returns:
    [K] int64 row indices without repeats; K may pass num_points by the runs and gaps that had to stay.

  Raises:
    ValueError: `num_points` is below 2 or `values` is not one-dimensional.
  """
  if num_points < 2 or values.ndim != 1:
    raise ValueError(f"num_points {num_points}, values {values.shape}: 2 or more, and one axis, are wanted")
  num_rows = len(values)
  if num_rows <= num_points:
    return np.arange(num_rows)
  num_buckets = num_points // 2
  width = -(-num_rows // num_buckets)
  padded = np.full(num_buckets * width, np.nan)
  padded[:num_rows] = values
  buckets = padded.reshape(num_buckets, width)  # [N] -> [buckets, width]
  missing = np.isnan(buckets)
  base = np.arange(num_buckets) * width
  lowest = base + np.argmin(np.where(missing, np.inf, buckets), axis=1)
  highest = base + np.argmax(np.where(missing, -np.inf, buckets), axis=1)
  gap_starts = runs(np.isnan(values))[:, 0]
  peaks = np.zeros(0, np.int64) if threshold is None else run_peaks(values, threshold)
  rows = np.unique(np.concatenate([[0, num_rows - 1], lowest, highest, gap_starts, peaks]))
  # buckets that lie behind the end hold padding alone
  return rows[rows < num_rows].astype(np.int64)


def run_peaks(values: np.ndarray, threshold: float) -> np.ndarray:
  """Returns the row of the highest value of each run above `threshold`, [R] int64; NaN is not above."""
  with np.errstate(invalid="ignore"):
    found = runs(values > threshold)
  return np.array([start + int(np.argmax(values[start:end])) for start, end in found], np.int64)


def runs_of(mask: np.ndarray) -> list[tuple[int, int]]:
  """Returns start and exclusive end row of each run of True in `mask` [N] bool."""
  return [(int(start), int(end)) for start, end in runs(mask)]
