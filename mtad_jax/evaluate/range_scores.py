"""Range-based and affiliation precision and recall of given alarm rows, stretch by stretch, so that machines pool.

In: labels and alarm rows of one machine, consecutive. Out: `RangeScores`, one value a true or an alarmed stretch;
their means are the published figures. Range-based: Tatbul et al. 2018, flat bias, one over the number of overlaps,
alpha 0 for precision and 0.2 for recall, as TSB-AD. Affiliation: Huet et al. 2022; a stretch of alarm rows is judged
by how near it lies to the true segment it belongs to, against where a random row would lie.
"""

from typing import NamedTuple

import numpy as np

from mtad_jax.detect.events import runs

EXISTENCE_WEIGHT = 0.2  # of a true segment that is touched at all, in range-based recall


class RangeScores(NamedTuple):
  """range_precision: [A] of alarmed stretches. range_recall: [S] of true segments. affiliation_precision: [S], NaN
  for a segment to which no alarm belongs. affiliation_recall: [S].
  """

  range_precision: np.ndarray
  range_recall: np.ndarray
  affiliation_precision: np.ndarray
  affiliation_recall: np.ndarray


def _covered(stretches: np.ndarray, others: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns (the share of each stretch that `rows` [T] bool covers, how many of `others` overlap it)."""
  before = np.concatenate([[0], np.cumsum(rows)])
  share = (before[stretches[:, 1]] - before[stretches[:, 0]]) / (stretches[:, 1] - stretches[:, 0])
  count = np.searchsorted(others[:, 0], stretches[:, 1]) - np.searchsorted(
    others[:, 1], stretches[:, 0], side="right"
  )
  return share, count


def _ramp(distance: np.ndarray, limit: float) -> np.ndarray:
  """Returns the integral of min(x, limit) from 0 to each distance."""
  short = np.minimum(distance, limit)
  return 0.5 * short**2 + limit * (distance - short)


def _zone_precision(alarms: np.ndarray, segment: np.ndarray, zone: np.ndarray) -> float:
  """Returns the mean over the alarmed rows of a zone of P(a random row of it lies no nearer to the segment)."""
  start, end = segment
  length = zone[1] - zone[0]
  left, right = start - zone[0], zone[1] - end  # the farthest that a row of either side can be

  def outside(near: np.ndarray, far: np.ndarray) -> float:
    """Returns the integral of that probability over distances from near to far."""
    ramps = _ramp(far, left) + _ramp(far, right) - _ramp(near, left) - _ramp(near, right)
    return float(np.sum((far - near) * (1 - (end - start) / length) - ramps / length))

  first, last = alarms[:, 0], alarms[:, 1]
  inside = np.sum(np.maximum(np.minimum(last, end) - np.maximum(first, start), 0))
  before = outside(np.maximum(start - last, 0), np.maximum(start - first, 0))
  after = outside(np.maximum(first - end, 0), np.maximum(last - end, 0))
  return float((inside + before + after) / np.sum(last - first))


def _zone_recall(alarms: np.ndarray, segment: np.ndarray, zone: np.ndarray) -> float:
  """Returns the mean over a segment's rows of P(a random row of the zone lies no nearer to it than the alarms do)."""
  start, end = segment
  edges = np.concatenate([[-np.inf], alarms.ravel(), [np.inf]])
  lows, highs = edges[:-1:2], edges[1::2]  # the gaps between alarms
  with np.errstate(invalid="ignore"):
    bends = np.concatenate([edges, (lows + highs) / 2, (highs + zone[0]) / 2, (lows + zone[1]) / 2])
  bends = bends[np.isfinite(bends)]
  points = np.unique(np.concatenate([[start, end], bends[(bends > start) & (bends < end)]]))
  index = np.searchsorted(edges, points, side="right")  # odd: in a gap
  nearest = np.minimum(points - edges[index - 1], edges[np.minimum(index, len(edges) - 1)] - points)
  distance = np.where(index % 2 == 1, nearest, 0.0)
  below = np.minimum(distance, points - zone[0]) + np.minimum(distance, zone[1] - points)
  values = 1 - below / (zone[1] - zone[0])
  return float(np.trapezoid(values, points) / (end - start))


def range_scores(labels: np.ndarray, flagged: np.ndarray) -> RangeScores:
  """Returns the figures of each stretch; empty arrays where there is none.

  Args:
    labels, flagged: [T] bool, consecutive rows of one machine.

  Raises:
    ValueError: arrays of different lengths.
  """
  labels, flagged = np.asarray(labels, bool), np.asarray(flagged, bool)
  if labels.shape != flagged.shape or labels.ndim != 1:
    raise ValueError(f"labels have shape {labels.shape}, flagged {flagged.shape}; both must be [T]")
  segments, alarms = runs(labels), runs(flagged)
  share, count = _covered(alarms, segments, labels)
  precision = share / np.maximum(count, 1)
  share, count = _covered(segments, alarms, flagged)
  recall = EXISTENCE_WEIGHT * (count > 0) + (1 - EXISTENCE_WEIGHT) * share / np.maximum(count, 1)

  between = (segments[:-1, 1] + segments[1:, 0]) / 2
  borders = np.concatenate([[0.0], between, [float(len(labels))]])
  near_precision, near_recall = np.full(len(segments), np.nan), np.zeros(len(segments))
  for i, segment in enumerate(segments.astype(np.float64)):
    zone = borders[i : i + 2]
    own = np.clip(alarms[(alarms[:, 1] > zone[0]) & (alarms[:, 0] < zone[1])], zone[0], zone[1])
    if len(own):
      near_precision[i] = _zone_precision(own, segment, zone)
      near_recall[i] = _zone_recall(own, segment, zone)
  return RangeScores(precision, recall, near_precision, near_recall)


def harmonic(precision: float, recall: float) -> float:
  """Returns F1: 0 where both are 0, NaN where one is missing."""
  total = precision + recall
  return 2 * precision * recall / total if total > 0 else total
