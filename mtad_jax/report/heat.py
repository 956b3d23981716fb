"""Heat maps as small codes: the highest value of each stretch of time, in 8 or 16 bits.

A stretch keeps its highest value, so no spike is lost however long the series is. The codes rise with what they stand
for, so that the script may take the highest of several once more where the screen has fewer columns than there are
stretches. assets/heat.js reads them.
"""

import base64

import numpy as np

from mtad_jax.report.inputs import MachineScores

NONE = 0  # no score: no row, or one without a full window
WARNING_FROM, CRITICAL_FROM, LAST = 20_000, 40_000, 65_535
HIGHEST_RATIO = 1000.0  # score/threshold that the last code stands for; what is higher is drawn alike


def ratio_of(scores: MachineScores) -> np.ndarray:
  """Returns [T] score/threshold; NaN where a row has none."""
  with np.errstate(invalid="ignore", divide="ignore"):
    return scores.score / scores.threshold


def is_warning(scores: MachineScores) -> np.ndarray:
  """Returns [T] bool: above the warning threshold, where there is one, or above the threshold."""
  if scores.warning is None:
    return scores.is_anomaly
  with np.errstate(invalid="ignore"):
    return scores.is_anomaly | (scores.score > scores.warning)


def ratio_codes(scores: MachineScores) -> np.ndarray:
  """Returns [T] uint16: 0 without a score, then three bands: quiet, a warning, above the threshold.

  The first two are linear in score/threshold from 0 to 1, the last is its logarithm up to `HIGHEST_RATIO`.
  """
  ratio = ratio_of(scores)
  known = ~np.isnan(ratio)
  below = np.clip(np.where(known, ratio, 0), 0, 1)
  above = np.log(np.clip(np.where(known, ratio, 1), 1, HIGHEST_RATIO)) / np.log(HIGHEST_RATIO)
  codes = 1 + np.round(below * (WARNING_FROM - 2))
  codes = np.where(is_warning(scores), WARNING_FROM + np.round(below * (CRITICAL_FROM - 1 - WARNING_FROM)), codes)
  codes = np.where(scores.is_anomaly, CRITICAL_FROM + np.round(above * (LAST - CRITICAL_FROM)), codes)
  return np.where(known, codes, NONE).astype(np.uint16)


def metric_codes(values: np.ndarray, top: float) -> np.ndarray:
  """Returns uint8 of the values' shape: 0 for NaN, then 1 to 255 by log(1 + value) from 0 to that of `top`."""
  known = ~np.isnan(values)
  share = np.log1p(np.clip(np.where(known, values, 0), 0, top)) / np.log1p(top) if top > 0 else np.zeros(values.shape)
  return np.where(known, 1 + np.round(share * 254), 0).astype(np.uint8)


def bin_maxima(place: np.ndarray, values: np.ndarray, num_bins: int) -> np.ndarray:
  """Returns [num_bins, ...]: the highest value of the rows in each bin, 0 where a bin has none.

  Args:
    place: [N] int, the bin of each row, rising, 0 to num_bins - 1.
    values: [N, ...] codes.
  """
  found = np.zeros((num_bins, *values.shape[1:]), values.dtype)
  if len(place):
    bins, starts = np.unique(place, return_index=True)
    found[bins] = np.maximum.reduceat(values, starts, axis=0)
  return found


def bins_of(axis: np.ndarray, first: float, last: float, num_bins: int) -> np.ndarray:
  """Returns [N] int64: the bin of each place on the axis, of `num_bins` equal ones from `first` to `last`."""
  share = (axis - first) / (last - first) if last > first else np.zeros(len(axis))
  return np.clip((share * num_bins).astype(np.int64), 0, num_bins - 1)


def text_of(codes: np.ndarray) -> str:
  """Returns the codes, any shape in C order, as base64 of little-endian numbers."""
  return base64.b64encode(np.ascontiguousarray(codes, codes.dtype.newbyteorder("<")).tobytes()).decode("ascii")
