"""VUS-PR and VUS-ROC: areas under range-aware curves, averaged over how wide a buffer lies around true segments.

Paparrizos et al. 2022, in TSB-AD's family (250 thresholds, every buffer width from 0 to the longest); aeon's family
gives other figures (0.844 against 0.999 on one near-perfect score). Rows near a segment count in part, so that a
score that rises a little early or late is not punished as a false alarm.
"""

from typing import NamedTuple

import numpy as np

from mtad_jax.detect.events import runs

NUM_THRESHOLDS = 250  # scores at evenly spaced ranks
BUFFER_ROWS = 100  # the widest buffer, both sides of a segment together (TSB-AD's default)


class Volume(NamedTuple):
  """The two volumes; NaN where the rows hold no anomaly, or nothing else."""

  vus_pr: float
  vus_roc: float


class _Edges(NamedTuple):
  """Normal rows near segments, a row once per segment and side: its number and its distance in rows."""

  rows: np.ndarray
  distances: np.ndarray


def _edges(labels: np.ndarray, segments: np.ndarray, reach: int) -> _Edges:
  steps = np.arange(1, reach + 1)
  rows = np.concatenate([segments[:, :1] - steps[None, :], segments[:, 1:] - 1 + steps[None, :]])
  distances = np.broadcast_to(steps, rows.shape)
  kept = (rows >= 0) & (rows < len(labels))
  rows, distances = rows[kept], distances[kept]
  normal = ~labels[rows]  # rows of segments count whole anyway
  return _Edges(rows[normal], distances[normal])


def _zones(segments: np.ndarray, reach: int, num_rows: int) -> np.ndarray:
  """Returns [Z, 2]: the segments widened by `reach` rows on both sides, those that touch joined, end exclusive."""
  joined = segments[1:, 0] - segments[:-1, 1] + 1 <= 2 * reach
  starts = segments[np.r_[True, ~joined], 0] - reach
  ends = segments[np.r_[~joined, True], 1] + reach
  return np.stack([np.maximum(starts, 0), np.minimum(ends, num_rows)], axis=1)


def volume(labels: np.ndarray, scores: np.ndarray, buffer_rows: int = BUFFER_ROWS) -> Volume:
  """Returns VUS-PR and VUS-ROC of one series.

  For a buffer of w rows, a normal row d rows from a segment, d <= w / 2, counts sqrt(1 - d / w) of an anomalous one;
  recall is multiplied by the share of widened segments with an alarm. The areas are averaged over
  w = 0 .. buffer_rows.

  Args:
    labels: [T] bool, consecutive rows of one machine.
    scores: [T] float64, no NaN.
    buffer_rows: the widest buffer, rows.

  Raises:
    ValueError: arrays of different lengths, or a negative buffer.
  """
  labels, scores = np.asarray(labels, bool), np.asarray(scores, np.float64)
  if labels.shape != scores.shape or labels.ndim != 1:
    raise ValueError(f"labels have shape {labels.shape}, scores {scores.shape}; both must be [T]")
  if buffer_rows < 0:
    raise ValueError(f"buffer_rows: {buffer_rows} is out of range; allowed: 0 and above")
  num_rows, num_true = len(labels), int(np.sum(labels))
  if num_true in (0, num_rows):
    return Volume(float("nan"), float("nan"))
  segments = runs(labels)
  falling = -np.sort(-scores)
  thresholds = falling[np.linspace(0, num_rows - 1, NUM_THRESHOLDS).astype(int)]
  num_flagged = np.searchsorted(-falling, -thresholds, side="right")  # rows at or above each threshold
  flagged_from = np.searchsorted(-thresholds, -scores, side="left")  # a row's first threshold

  def summed(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns the sum of the flagged rows' weights at each threshold."""
    return np.cumsum(np.bincount(flagged_from[rows], weights, NUM_THRESHOLDS))

  hits = summed(np.ones(num_true), np.flatnonzero(labels))
  edges = _edges(labels, segments, buffer_rows // 2)
  near, place = np.unique(edges.rows, return_inverse=True)
  areas = []
  for width in range(buffer_rows + 1):
    reach = width // 2
    weights = np.zeros(len(near))
    if reach:
      inside = edges.distances <= reach
      parts = np.sqrt(1 - edges.distances[inside] / width)
      weights = np.minimum(np.bincount(place[inside], parts, len(near)), 1.0)
    buffered = summed(weights, near)
    zones = _zones(segments, reach, num_rows)
    peaks = np.sort([np.max(scores[start:end]) for start, end in zones])
    existence = 1 - np.searchsorted(peaks, thresholds, side="left") / len(peaks)
    positives = num_true + buffered / 2
    recall = np.minimum((hits + buffered) / positives, 1) * existence
    false_rate = (num_flagged - hits - buffered) / (num_rows - positives)
    precision = (hits + buffered) / num_flagged
    curve_x, curve_y = np.r_[0, false_rate, 1], np.r_[0, recall, 1]
    area_roc = float(np.sum(np.diff(curve_x) * (curve_y[1:] + curve_y[:-1]) / 2))
    areas.append((float(np.sum(np.diff(np.r_[0, recall]) * precision)), area_roc))
  means = np.mean(areas, axis=0)
  return Volume(float(means[0]), float(means[1]))
