"""Figures of one ranking or one threshold, point-wise and by event.

Everywhere an alarm is a score strictly above the threshold. `average_precision` is the step sum, never the
trapezoid; rows with equal scores enter as one group, so that their order does not matter. A figure that does
not exist (no true row, nothing detected) is NaN.
"""

from typing import NamedTuple

import numpy as np

from mtad_jax.detect.events import find_events
from mtad_jax.evaluate.segments import segments_of


class PointScores(NamedTuple):
  """Point-wise figures at one threshold."""

  f1: float
  precision: float
  recall: float
  threshold: float


class EventScores(NamedTuple):
  """Event figures at one threshold.

  hits: [S] bool, true segments detected. delays: [S] rows from a segment's start to its first counted alarm
  (0 for an early hit), NaN where missed. num_false_events: events that touch no true segment.
  num_events: all, false or not. num_rows: valid rows.
  """

  hits: np.ndarray
  delays: np.ndarray
  num_false_events: int
  num_events: int
  num_rows: int


def _groups(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns distinct scores, falling, and the true and all rows at or above each: [G], [G], [G]."""
  labels, scores = np.asarray(labels, bool), np.asarray(scores, np.float64)
  if labels.shape != scores.shape or labels.ndim != 1:
    raise ValueError(f"labels have shape {labels.shape}, scores {scores.shape}; both must be [N]")
  if np.any(np.isnan(scores)):
    raise ValueError(f"scores: row {int(np.argmax(np.isnan(scores)))} is NaN; leave rows without a score out")
  order = np.argsort(-scores, kind="stable")
  sorted_scores = scores[order]
  last = np.flatnonzero(np.append(sorted_scores[1:] != sorted_scores[:-1], True)) if len(scores) else order
  return sorted_scores[last], np.cumsum(labels[order])[last], last + 1


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
  """Returns sum_g (recall_g - recall_{g-1}) precision_g over groups of equal scores; NaN without a true row.

  Args:
    labels: [N] bool.
    scores: [N] without NaN.

  Raises:
    ValueError: shapes that differ, or a NaN.
  """
  _, true_above, above = _groups(labels, scores)
  if len(above) == 0 or true_above[-1] == 0:
    return float("nan")
  gained = np.diff(true_above, prepend=0) / true_above[-1]
  return float(np.sum(gained * true_above / above))


def best_f1(labels: np.ndarray, scores: np.ndarray) -> PointScores:
  """Returns the highest F1 over all thresholds: an oracle, chosen with the labels; NaN without a true row.

  Args:
    labels: [N] bool.
    scores: [N] without NaN.

  Raises:
    ValueError: shapes that differ, or a NaN.
  """
  values, true_above, above = _groups(labels, scores)
  if len(above) == 0 or true_above[-1] == 0:
    return PointScores(*[float("nan")] * 4)
  f1 = 2 * true_above / (above + true_above[-1])
  best = int(np.argmax(f1))
  # strictly above the next lower score is the same as at or above this one
  threshold = values[best + 1] if best + 1 < len(values) else np.nextafter(values[best], -np.inf)
  hits = float(true_above[best])
  return PointScores(
    float(f1[best]), hits / float(above[best]), hits / float(true_above[-1]), float(threshold)
  )


def point_scores(labels: np.ndarray, flagged: np.ndarray, threshold: float = np.nan) -> PointScores:
  """Returns F1, precision and recall of flagged rows; precision is NaN where nothing is flagged.

  Args:
    labels: [N] bool.
    flagged: [N] bool.
    threshold: carried into the result.
  """
  hits, num_true, num_flagged = (int(np.sum(x)) for x in (labels & flagged, labels, flagged))
  if num_true == 0:
    return PointScores(float("nan"), 0.0 if num_flagged else float("nan"), float("nan"), threshold)
  precision = hits / num_flagged if num_flagged else float("nan")
  return PointScores(2 * hits / (num_true + num_flagged), precision, hits / num_true, threshold)


def _early_starts(segments: np.ndarray, early_hit_rows: int) -> np.ndarray:
  """Returns [S]: the first row whose alarm counts for each segment; never inside the one before."""
  previous_end = np.concatenate([[0], segments[:-1, 1]]) if len(segments) else np.zeros(0, np.int64)
  return np.maximum(segments[:, 0] - early_hit_rows, previous_end)


def early_rows(labels: np.ndarray, early_hit_rows: int) -> np.ndarray:
  """Returns [T] bool: rows of true segments and the rows before them where an alarm counts as early.

  Args:
    labels: [T] bool.
    early_hit_rows: rows.
  """
  near = np.array(labels, bool)
  segments = segments_of(labels)
  for start, end in zip(_early_starts(segments, early_hit_rows), segments[:, 0]):
    near[start:end] = True
  return near


def event_scores(
  labels: np.ndarray,
  flagged: np.ndarray,
  valid: np.ndarray,
  *,
  early_hit_rows: int = 0,
  delay_limit_rows: int = 0,
  merge_gap_rows: int = 0,
  min_event_rows: int = 1,
) -> EventScores:
  """Returns which true segments of one machine are detected, how late, and how many events are false.

  A segment is detected by a flagged row from `early_hit_rows` before its start (but after the previous
  segment) to its end, or to `delay_limit_rows` after its start where that is set and earlier; rows outside of
  events do not count. An event is
  false where no row of it lies in any segment or its early rows. Segments without a valid row are left out.

  Args:
    labels, flagged, valid: [T] bool, one machine's rows in order.
    early_hit_rows: rows.
    delay_limit_rows: rows; 0: no limit.
    merge_gap_rows, min_event_rows: how alarm rows become events, as `find_events`.
  """
  flagged = np.asarray(flagged, bool) & valid
  events = find_events(flagged, valid, merge_gap_rows=merge_gap_rows, min_event_rows=min_event_rows)
  edges = np.zeros(len(flagged) + 1, np.int64)
  edges[events[:, 0]] += 1
  edges[events[:, 1]] -= 1
  flagged &= np.cumsum(edges)[:-1] > 0  # what is too short to be an event finds nothing either
  segments = segments_of(labels)
  alarm_rows_before = np.concatenate([[0], np.cumsum(flagged)])
  valid_rows_before = np.concatenate([[0], np.cumsum(valid)])
  scored = valid_rows_before[segments[:, 1]] > valid_rows_before[segments[:, 0]]
  early = _early_starts(segments, early_hit_rows)
  segments = segments[scored]
  early = early[scored]
  late = segments[:, 1]
  if delay_limit_rows > 0:
    late = np.minimum(late, segments[:, 0] + delay_limit_rows + 1)
  hits = alarm_rows_before[late] > alarm_rows_before[early]
  alarm_rows = np.flatnonzero(flagged)
  first = np.searchsorted(alarm_rows, early)
  delays = np.full(len(segments), np.nan)
  delays[hits] = np.maximum(alarm_rows[first[hits]] - segments[hits, 0], 0)

  near_before = np.concatenate([[0], np.cumsum(early_rows(labels, early_hit_rows))])
  is_false = near_before[events[:, 1]] == near_before[events[:, 0]]
  return EventScores(hits, delays, int(np.sum(is_false)), len(events), int(np.sum(valid)))
