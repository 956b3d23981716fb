"""Stretches of one machine's rows, and which of them overlap: by time where there is a clock, else by rows.

Rows are counted from the beginning of a file, so that they mean nothing in another one: two ranges without times
overlap only where they are of the same series.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Range(NamedTuple):
  """Rows of a machine. series: what the rows are counted in, see `recording.series_of`.

  start_row, end_row: end exclusive. start_ms, end_ms: of the first and the last row, ms since 1970. A pair that is
  not known is None; one of the two is.
  """

  machine: str
  series: str
  start_row: int | None
  end_row: int | None
  start_ms: int | None
  end_ms: int | None


class _Places(NamedTuple):
  """The ranges of one machine: their places in the sequence [N], series [N], rows and times [N] (NaN: not known)."""

  places: np.ndarray
  series: np.ndarray
  rows: np.ndarray
  times: np.ndarray


RangeIndex = dict[str, _Places]


def start_key(found: Range) -> str:
  """Returns what tells two beginnings on one machine apart: the time, else the series and row."""
  return f"{found.start_ms} ms" if found.start_ms is not None else f"{found.series}#{found.start_row}"


def end_key(found: Range) -> str:
  """Returns the same of the end."""
  return f"{found.end_ms} ms" if found.end_ms is not None else f"{found.series}#{found.end_row}"


def start_of(found: Range) -> Range:
  """Returns the first row alone."""
  end_row = None if found.start_row is None else found.start_row + 1
  return found._replace(end_row=end_row, end_ms=found.start_ms)


def index_ranges(ranges: Sequence[Range]) -> RangeIndex:
  """Returns the ranges by machine, for `find_overlaps`."""
  by_machine: dict[str, list[int]] = {}
  for place, found in enumerate(ranges):
    by_machine.setdefault(found.machine, []).append(place)

  def pairs(places: list[int], first: str, last: str) -> np.ndarray:
    values = [[getattr(ranges[i], first), getattr(ranges[i], last)] for i in places]
    return np.array(values, np.float64)  # None becomes NaN; a time in ms is exact

  return {
    machine: _Places(
      np.array(places),
      np.array([ranges[i].series for i in places], object),
      pairs(places, "start_row", "end_row"),
      pairs(places, "start_ms", "end_ms"),
    )
    for machine, places in by_machine.items()
  }


def find_overlaps(index: RangeIndex, found: Range) -> list[int]:
  """Returns the places, in order, of the indexed ranges that share at least one row with `found`."""
  own = index.get(found.machine)
  if own is None:
    return []
  shares = np.zeros(len(own.places), bool)
  if found.start_row is not None and found.end_row is not None:
    by_rows = (own.rows[:, 0] < found.end_row) & (found.start_row < own.rows[:, 1])
    shares = by_rows & (own.series == found.series)
  if found.start_ms is not None and found.end_ms is not None:
    by_time = (own.times[:, 0] <= found.end_ms) & (found.start_ms <= own.times[:, 1])
    shares = np.where(np.isnan(own.times[:, 0]), shares, by_time)
  return own.places[shares].tolist()
