"""Timestamps of a file: ISO 8601 text or epoch seconds to datetime64[ms], checked to rise strictly.

Times without an offset are taken as UTC; a file that mixes times with and without one is refused, because
the order of its rows could not be told.
"""

import datetime
from collections.abc import Sequence

import numpy as np

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND = datetime.timedelta(milliseconds=1)
_MAX_EPOCH_S = 1e11  # the year 5138; larger numbers are milliseconds by mistake


def from_epoch_seconds(seconds: np.ndarray, file: str, first_row: int) -> np.ndarray:
  """Returns datetime64[ms] timestamps from epoch seconds.

  Args:
    seconds: [T] float64, seconds since 1970-01-01 UTC.
    file: named in errors.
    first_row: the number of the first row in the file, from 1.

  Returns:
    [T] datetime64[ms].

  Raises:
    ValueError: a missing, infinite or far too large number, by file and row.
  """
  wrong = np.flatnonzero(~(np.abs(seconds) < _MAX_EPOCH_S))  # written so that NaN is wrong too
  if wrong.size:
    row = int(wrong[0])
    raise ValueError(
      f"{file}: row {first_row + row}, column 'timestamp': {seconds[row]:g} is no epoch time; "
      f"seconds since 1970 below {_MAX_EPOCH_S:g} are wanted"
    )
  return np.round(seconds * 1000.0).astype(np.int64).astype("datetime64[ms]")


def _all_numbers(texts: Sequence[str]) -> np.ndarray | None:
  """Returns the texts as float64, or None where the first is no number (so the column is ISO text)."""
  try:
    float(texts[0])
  except ValueError:
    return None
  numbers = np.empty(len(texts))
  for i, text in enumerate(texts):
    try:
      numbers[i] = float(text)
    except ValueError:
      numbers[i] = np.nan  # refused by row in from_epoch_seconds
  return numbers


def parse_timestamps(texts: Sequence[str], file: str, first_row: int) -> np.ndarray:
  """Returns datetime64[ms] timestamps from the texts of a column, all ISO 8601 or all epoch seconds.

  Args:
    texts: [T] fields as they stand in the file.
    file: named in errors.
    first_row: the number of the first row in the file, from 1.

  Returns:
    [T] datetime64[ms], UTC.

  Raises:
    ValueError: an empty or unreadable field, or a mix of zoned and unzoned times, by file and row.
  """
  if not texts:
    return np.zeros(0, "datetime64[ms]")
  numbers = _all_numbers(texts)
  if numbers is not None:
    return from_epoch_seconds(numbers, file, first_row)
  result = np.empty(len(texts), np.int64)
  zoned_first: bool | None = None
  for i, text in enumerate(texts):
    try:
      time = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
      raise ValueError(
        f"{file}: row {first_row + i}, column 'timestamp': {text!r} is no ISO 8601 time"
      ) from None
    zoned = time.tzinfo is not None
    if zoned_first is None:
      zoned_first = zoned
    if zoned is not zoned_first:
      raise ValueError(
        f"{file}: row {first_row + i}, column 'timestamp': {text!r} mixes times with and without offset"
      )
    result[i] = ((time if zoned else time.replace(tzinfo=datetime.UTC)) - _EPOCH) // _MILLISECOND
  return result.astype("datetime64[ms]")


def check_rising(timestamps: np.ndarray, file: str, first_row: int) -> None:
  """Returns nothing; raises ValueError at the first timestamp that does not come after the one before it.

  Args:
    timestamps: [T] datetime64[ms].
    file: named in errors.
    first_row: the number of the first row in the file, from 1.
  """
  steps = np.diff(timestamps.astype(np.int64))
  wrong = np.flatnonzero(steps <= 0)
  if wrong.size:
    row = int(wrong[0]) + 1
    fault = "is a duplicate of" if steps[row - 1] == 0 else "comes before"
    raise ValueError(
      f"{file}: row {first_row + row}, column 'timestamp': {timestamps[row]} {fault} the row above "
      f"({timestamps[row - 1]}); timestamps must rise"
    )
