"""Which metrics caused an event: shares that are never negative and sum to 1.

In: per-metric scores (surprises) of the event's rows and each metric's usual level. A metric's surprise
above its usual level is what it contributes to a row; the cause is sharpest at the onset and at the peak,
while the whole segment is steadier, so the three views are averaged.
"""

import numpy as np

ONSET_ROWS = 3  # an event's first rows; a fault spreads to other metrics soon after


def _shares(amounts: np.ndarray) -> np.ndarray:
  total = float(np.sum(amounts))
  return amounts / total if total > 0 else np.zeros_like(amounts)


def contributions(metric_scores: np.ndarray, usual: np.ndarray) -> np.ndarray:
  """Returns [F]: each metric's share of an event, summing to 1, or all zeros where the event has no cause.

  c = the mean of the shares of (a) the first `ONSET_ROWS` rows, (b) the peak row, the one with the largest
  sum over metrics, and (c) all rows, where a share is max(score - usual, 0), summed over the view's rows and
  divided by its sum over metrics. A view without any surprise is left out. Rows with a NaN have no score
  and are left out; where no row is left, the result is zeros, which the caller says.

  Args:
    metric_scores: [rows, F] per-metric scores of the event's rows, in the order of time.
    usual: [F] the metrics' usual level on normal rows, in the same unit.

  Raises:
    ValueError: shapes that do not match, or an infinite value.
  """
  metric_scores, usual = np.asarray(metric_scores, np.float64), np.asarray(usual, np.float64)
  if metric_scores.ndim != 2 or metric_scores.shape[1:] != usual.shape:
    raise ValueError(
      f"metric_scores has shape {metric_scores.shape}, usual {usual.shape}; [rows, F] and [F] are wanted"
    )
  if not np.all(np.isfinite(usual)):
    raise ValueError(f"usual: metric {int(np.argmin(np.isfinite(usual)))} has no finite usual level")
  kept = metric_scores[~np.any(np.isnan(metric_scores), axis=1)]
  if np.any(np.isinf(kept)):
    raise ValueError(f"metric_scores: metric {int(np.argwhere(np.isinf(kept))[0, 1])} has an infinite score")
  if len(kept) == 0:
    return np.zeros(len(usual))
  surprise = np.maximum(kept - usual[None, :], 0)  # [rows, F]
  peak_row = int(np.argmax(np.sum(surprise, axis=1)))
  views = [np.sum(surprise[:ONSET_ROWS], axis=0), surprise[peak_row], np.sum(surprise, axis=0)]
  return _shares(np.sum([_shares(view) for view in views], axis=0))


def rank_metrics(shares: np.ndarray) -> np.ndarray:
  """Returns [F] int64: metric indices, largest share first; ties keep the metrics' order.

  Args:
    shares: [F], as `contributions` returns them.
  """
  return np.argsort(-np.asarray(shares, np.float64), kind="stable")
