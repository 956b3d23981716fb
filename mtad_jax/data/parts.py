"""The training split cut in time into fit, validation, calibration and check.

A target row p is forecast from the window [p - W, p). A gap of W rows lies before every part but the first,
so that no window of one part holds a target row of another. Short splits get shorter gaps, and say so.
"""

from typing import NamedTuple

from mtad_jax.config import DataConfig

MIN_TARGET_ROWS = 8  # rows after the first window, below which four parts make no sense
MAX_GAP_SHARE = 0.2  # of all rows, that the gaps may take together
_GAP_PER_TARGET = 0.5  # of the rows after the first window, that the gaps may take together


class Parts(NamedTuple):
  """Target rows of the training grid as (start, end) pairs, end exclusive, in time order."""

  fit: tuple[int, int]
  validation: tuple[int, int]
  calibration: tuple[int, int]
  check: tuple[int, int]


def split_parts(
  num_rows: int, window_size: int, settings: DataConfig, *, first_row: int = 0
) -> tuple[Parts, int]:
  """Returns the parts of a training split and the gap that lies between them.

  The shares are of the target rows that the first window and the gaps leave. Every part with a share above 0
  has at least one row; what rounding leaves over goes to the fit part. A check share of 0 gives an empty part
  and no gap before it.

  Args:
    num_rows: rows of the training grid, from `first_row` on.
    window_size: W, rows.
    settings: fit_share, validation_share, calibration_share and check_share.
    first_row: of the training grid, before which nothing is trained on.

  Returns:
    The parts, and the gap in rows: `window_size`, or less where the split is short.

  Raises:
    ValueError: fewer than W + 8 rows.
  """
  needed = window_size + MIN_TARGET_ROWS
  if num_rows < needed:
    raise ValueError(
      f"training split has {num_rows} rows; window_size {window_size} needs at least {needed} rows"
    )
  shares = (settings.validation_share, settings.calibration_share, settings.check_share)
  num_gaps = sum(share > 0 for share in shares)
  num_after_window = num_rows - window_size
  longest_sum = min(MAX_GAP_SHARE * num_rows, _GAP_PER_TARGET * num_after_window)
  gap_rows = min(window_size, int(longest_sum / num_gaps))
  num_targets = num_after_window - num_gaps * gap_rows
  # one row each first, so that rounding can empty no part
  num_spare = num_targets - num_gaps - 1
  sizes = [1 + int(share * num_spare) if share > 0 else 0 for share in shares]
  start = first_row + window_size
  end = start + num_targets - sum(sizes)
  pairs = [(start, end)]
  for size in sizes:
    start = end + (gap_rows if size else 0)
    end = start + size
    pairs.append((start, end))
  return Parts(*pairs), gap_rows
