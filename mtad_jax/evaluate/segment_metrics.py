"""Ranking figures that look at segments, and the area under the ROC curve.

In: `Rows` of one machine or pooled. Out: one number each, NaN where the rows have no anomaly (or nothing else).
"""

import numpy as np
from scipy import stats

from mtad_jax.evaluate.segments import Rows, point_adjust

K_VALUES = tuple(range(101))  # percent


def auc_roc(rows: Rows) -> float:
  """Returns the probability that an anomalous row scores above a normal one, ties counting half."""
  num_true = int(np.sum(rows.labels))
  num_normal = len(rows.labels) - num_true
  if num_true == 0 or num_normal == 0:
    return float("nan")
  ranks = stats.rankdata(rows.scores)
  return float((np.sum(ranks[rows.labels]) - num_true * (num_true + 1) / 2) / (num_true * num_normal))


def _at_or_above(rising: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
  """Returns how many of the rising values are at or above each threshold."""
  return len(rising) - np.searchsorted(rising, thresholds, side="left")


def best_composite_f1(rows: Rows) -> float:
  """Returns the highest composite F1 over all thresholds, an oracle: point-wise precision with segment recall.

  Garg et al. 2021 (Fc1): precision of the flagged rows, and the share of true segments with one flagged row.
  """
  if not np.any(rows.labels):
    return float("nan")
  thresholds = np.unique(rows.scores[rows.labels])  # at others precision can only be lower
  inside, normal = np.sort(rows.scores[rows.labels]), np.sort(rows.scores[~rows.labels])
  _, first = np.unique(rows.segment[rows.labels], return_index=True)
  peaks = np.sort(point_adjust(rows).scores[rows.labels][first])
  hits = _at_or_above(inside, thresholds)
  precision = hits / (hits + _at_or_above(normal, thresholds))
  recall = _at_or_above(peaks, thresholds) / len(peaks)
  return float(np.max(2 * precision * recall / (precision + recall)))


def pa_k_area(rows: Rows) -> float:
  """Returns the mean over K = 0 .. 100 of the best F1 under PA%K, each an oracle.

  Kim et al. 2022: a true segment counts as flagged whole only if more than K percent of its rows are flagged; else
  its own flagged rows count. K = 0 is point adjustment, K = 100 none.
  """
  if not np.any(rows.labels):
    return float("nan")
  normal = np.sort(rows.scores[~rows.labels])
  order = np.lexsort((-rows.scores[rows.labels], rows.segment[rows.labels]))  # by segment, falling in each
  scores = rows.scores[rows.labels][order]
  _, segment, lengths = np.unique(rows.segment[rows.labels][order], return_inverse=True, return_counts=True)
  starts = np.cumsum(lengths) - lengths
  best = []
  for k in K_VALUES:
    wanted = k * lengths // 100  # the score that this many rows of the segment are above
    level = np.where(wanted < lengths, scores[starts + np.minimum(wanted, lengths - 1)], -np.inf)
    adjusted = np.sort(np.maximum(scores, level[segment]))
    hits = np.arange(len(adjusted), 0, -1)  # at or above each, but where values are equal: the first has them all
    false = _at_or_above(normal, adjusted)
    best.append(np.max(2 * hits / (hits + false + len(adjusted))))
  return float(np.mean(best))
