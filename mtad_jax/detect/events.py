"""From alarm rows to events: merged stretches of rows, each with a severity and the metrics that caused it.

In: one machine's alarm rows [T]. Out: rows [E, 2], end exclusive, and the `Event` that events.parquet holds.
"""

from typing import NamedTuple

import numpy as np


class Event(NamedTuple):
  """One alarm as a person reads it; one row of events.parquet.

  start_row, end_row: input rows from 0, end exclusive. start, end: timestamps of the first and the last row,
  or None where the data have none. severity: 0..1, see `severity`. peak: the largest score of the event.
  contributors: (metric, contribution), best first; contributions sum to 1; empty where the event has none.
  """

  event_id: str
  machine: str
  start_row: int
  end_row: int
  start: np.datetime64 | None
  end: np.datetime64 | None
  severity: float
  peak: float
  contributors: tuple[tuple[str, float], ...]


def runs(mask: np.ndarray) -> np.ndarray:
  """Returns [E, 2] int64: first row and exclusive end of every stretch of true rows.

  Args:
    mask: [T] bool.
  """
  edges = np.diff(np.concatenate([[0], np.asarray(mask, bool).astype(np.int8), [0]]))
  return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], axis=1)


def find_events(
  is_anomaly: np.ndarray, valid: np.ndarray, *, merge_gap_rows: int, min_event_rows: int
) -> np.ndarray:
  """Returns [E, 2] int64: first row and exclusive end of every event, in order.

  Stretches with at most `merge_gap_rows` quiet rows between them are one event; after that, events with
  fewer than `min_event_rows` alarm rows (the quiet rows inside do not count) are dropped. Every event begins
  and ends with an alarm row.

  Args:
    is_anomaly: [T] bool, score above threshold.
    valid: [T] bool; a row without a score is quiet.
    merge_gap_rows: rows, 0 merges nothing.
    min_event_rows: rows, at least 1.

  Raises:
    ValueError: arrays of different lengths, or a setting out of range.
  """
  is_anomaly, valid = np.asarray(is_anomaly, bool), np.asarray(valid, bool)
  if is_anomaly.ndim != 1 or is_anomaly.shape != valid.shape:
    raise ValueError(f"is_anomaly has shape {is_anomaly.shape}, valid {valid.shape}; both must be [T]")
  if merge_gap_rows < 0:
    raise ValueError(f"merge_gap_rows: {merge_gap_rows} is out of range; allowed: 0 and above")
  if min_event_rows < 1:
    raise ValueError(f"min_event_rows: {min_event_rows} is out of range; allowed: 1 and above")
  alarms = is_anomaly & valid
  found = runs(alarms)
  if len(found) == 0:
    return found
  is_new = found[1:, 0] - found[:-1, 1] > merge_gap_rows
  merged = np.stack([found[np.r_[True, is_new], 0], found[np.r_[is_new, True], 1]], axis=1)
  alarm_rows_before = np.concatenate([[0], np.cumsum(alarms)])
  num_alarm_rows = alarm_rows_before[merged[:, 1]] - alarm_rows_before[merged[:, 0]]
  return merged[num_alarm_rows >= min_event_rows]


def severity(peak_ratio: np.ndarray | float) -> np.ndarray:
  """Returns 1 - 1 / ratio, in 0..1: 0 up to the threshold, 0.5 at twice, 0.9 at ten times the threshold.

  Args:
    peak_ratio: largest score / threshold of an event, any shape; NaN stays NaN.
  """
  ratio = np.asarray(peak_ratio, np.float64)
  return np.where(np.isnan(ratio), np.nan, 1 - 1 / np.maximum(ratio, 1.0))
