"""From alarm rows to events: merged stretches of rows, each with a level, a severity and the metrics that caused it.

In: one machine's alarm rows [T]. Out: rows [E, 2], end exclusive, and the `Event` that events.parquet holds.
"""

from typing import NamedTuple

import numpy as np

CRITICAL, WARNING = "critical", "warning"


class Event(NamedTuple):
  """One alarm as a person reads it; one row of events.parquet.

  start_row, end_row: input rows from 0, end exclusive. start, end: timestamps of the first and the last row,
  or None where the data have none. severity: 0..1, see `severity`. peak: the largest score of the event.
  contributors: (metric, contribution), best first; contributions sum to 1; empty where the event has none.
  level: CRITICAL where a row of it is above the machine's threshold, WARNING where none is.
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
  level: str


def runs(mask: np.ndarray) -> np.ndarray:
  """Returns [E, 2] int64: first row and exclusive end of every stretch of true rows.

  Args:
    mask: [T] bool.
  """
  edges = np.diff(np.concatenate([[0], np.asarray(mask, bool).astype(np.int8), [0]]))
  return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], axis=1)


def _from_first(stretches: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Returns the stretches [E, 2] from the first true row of `mask` [T] in each; those without one are left out."""
  rows = np.append(np.flatnonzero(mask), len(mask))
  first = rows[np.searchsorted(rows[:-1], stretches[:, 0])]
  return np.stack([first, stretches[:, 1]], axis=1)[first < stretches[:, 1]]


def _join(stretches: np.ndarray, gap_rows: int) -> np.ndarray:
  """Returns the stretches [E, 2], those with at most `gap_rows` rows between them as one."""
  if len(stretches) == 0:
    return stretches
  is_new = stretches[1:, 0] - stretches[:-1, 1] > gap_rows
  return np.stack([stretches[np.r_[True, is_new], 0], stretches[np.r_[is_new, True], 1]], axis=1)


def _confirmed(alarms: np.ndarray, valid: np.ndarray, checks: int, window_checks: int) -> np.ndarray:
  """Returns [T] bool: alarm rows that are the `checks`-th or later among the last `window_checks` valid rows."""
  among = alarms[valid]
  before = np.concatenate([[0], np.cumsum(among)])
  last = np.arange(1, len(before))
  confirmed = np.zeros(len(alarms), bool)
  confirmed[valid] = among & (before[last] - before[np.maximum(last - window_checks, 0)] >= checks)
  return confirmed


def find_events(
  is_anomaly: np.ndarray,
  valid: np.ndarray,
  *,
  merge_gap_rows: int,
  min_event_rows: int,
  is_held: np.ndarray | None = None,
  alarm_checks: int = 1,
  alarm_window_checks: int = 1,
  cooldown_rows: int = 0,
) -> np.ndarray:
  """Returns [E, 2] int64: first row and exclusive end of every event, in order.

  1. From an alarm row a stretch goes on while rows are held; with at most `merge_gap_rows` quiet rows between them,
     two stretches are one.
  2. It is an event from the first of its rows at which `alarm_checks` of the last `alarm_window_checks` valid rows
     are alarm rows, itself among them; without such a row it is none.
  3. Events with fewer than `min_event_rows` alarm rows are dropped.
  4. An event that begins at most `cooldown_rows` after the end of the one before is joined to it: nothing is hidden
     by a cool-down, what came again prolongs the event that was told already.
  Where an event begins depends on no later row; where it ends, and with `min_event_rows` above 1 whether it is one,
  is known only then. Every event begins with an alarm row and ends with a held one.

  Args:
    is_anomaly: [T] bool, score above threshold.
    valid: [T] bool; a row without a score is quiet.
    merge_gap_rows: rows, 0 merges nothing.
    min_event_rows: rows, at least 1.
    is_held: [T] bool, score high enough for an event to go on; None: where it is above the threshold.
    alarm_checks, alarm_window_checks: valid rows, at least 1, the first at most the second.
    cooldown_rows: rows, 0 joins nothing.

  Raises:
    ValueError: arrays of different lengths, or a setting out of range.
  """
  is_anomaly, valid = np.asarray(is_anomaly, bool), np.asarray(valid, bool)
  if is_anomaly.ndim != 1 or is_anomaly.shape != valid.shape:
    raise ValueError(f"is_anomaly has shape {is_anomaly.shape}, valid {valid.shape}; both must be [T]")
  for name, value, least in (
    ("merge_gap_rows", merge_gap_rows, 0),
    ("min_event_rows", min_event_rows, 1),
    ("alarm_checks", alarm_checks, 1),
    ("alarm_window_checks", alarm_window_checks, alarm_checks),
    ("cooldown_rows", cooldown_rows, 0),
  ):
    if value < least:
      raise ValueError(f"{name}: {value} is out of range; allowed: {least} and above")
  alarms = is_anomaly & valid
  held = alarms if is_held is None else alarms | (np.asarray(is_held, bool) & valid)
  found = _join(_from_first(runs(held), alarms), merge_gap_rows)
  found = _from_first(found, _confirmed(alarms, valid, alarm_checks, alarm_window_checks))
  alarm_rows_before = np.concatenate([[0], np.cumsum(alarms)])
  num_alarm_rows = alarm_rows_before[found[:, 1]] - alarm_rows_before[found[:, 0]]
  return _join(found[num_alarm_rows >= min_event_rows], cooldown_rows)


def severity(peak_ratio: np.ndarray | float) -> np.ndarray:
  """Returns 1 - 1 / ratio, in 0..1: 0 up to the threshold, 0.5 at twice, 0.9 at ten times the threshold.

  Args:
    peak_ratio: largest score / threshold of an event, any shape; NaN stays NaN.
  """
  ratio = np.asarray(peak_ratio, np.float64)
  return np.where(np.isnan(ratio), np.nan, 1 - 1 / np.maximum(ratio, 1.0))
