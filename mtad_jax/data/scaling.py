"""Min-max scaling per metric by training statistics, with a floor, clipped to a stated range.

(x - min)/scale, where scale = max - min but never below a share of the metric's own magnitude, so that the
rounding noise of a flat metric is not blown up.
"""

from typing import NamedTuple

import numpy as np

TINY_MAGNITUDE = 1e-12  # a metric's own units; below it a metric is zero for all purposes


class Scaler(NamedTuple):
  """Training statistics of F metrics, each [F] float64 (is_constant: bool)."""

  minimum: np.ndarray
  maximum: np.ndarray
  scale: np.ndarray
  is_constant: np.ndarray


def fit_scaler(values: np.ndarray, floor: float) -> Scaler:
  """Returns the statistics that `scale` uses.

  A metric that moved: scale = max(max - min, floor * max(|min|, |max|)). A metric that never moved has no
  range to measure by, so its scale is its own magnitude, and 1 where it is zero: it maps to 0, and leaving
  its constant by that constant's own size maps to 1, whatever the units.

  Args:
    values: [T, F] training rows, no NaN, T >= 1.
    floor: smallest scale, as a share of the largest magnitude.
  """
  minimum, maximum = values.min(axis=0).astype(np.float64), values.max(axis=0).astype(np.float64)
  magnitude = np.maximum(np.abs(minimum), np.abs(maximum))
  is_constant = maximum == minimum
  with np.errstate(over="ignore"):  # two opposite huge values
    spread = np.minimum(maximum - minimum, np.finfo(np.float64).max)
  moving = np.maximum(spread, floor * np.maximum(magnitude, TINY_MAGNITUDE))
  resting = np.where(magnitude > TINY_MAGNITUDE, magnitude, 1.0)
  return Scaler(minimum, maximum, np.where(is_constant, resting, moving), is_constant)


def scale(values: np.ndarray, scaler: Scaler, clip_margin: float) -> np.ndarray:
  """Returns [T, F] float64 scaled values, 0..1 inside the training range, clipped to [-margin, 1 + margin].

  Args:
    values: [T, F], no NaN; any finite magnitude.
    scaler: of the training rows.
    clip_margin: in training ranges.
  """
  with np.errstate(over="ignore"):  # an overflow is an infinity, which the clip takes in
    scaled = (values - scaler.minimum[None, :]) / scaler.scale[None, :]
  return np.clip(scaled, -clip_margin, 1.0 + clip_margin)


def outside_share(values: np.ndarray, scaler: Scaler) -> np.ndarray:
  """Returns [F] the share of rows outside the training range, 0 for a series without rows."""
  if len(values) == 0:
    return np.zeros(values.shape[1])
  outside = (values < scaler.minimum[None, :]) | (values > scaler.maximum[None, :])
  return np.mean(outside, axis=0)


def unscale(values: np.ndarray, scaler: Scaler, columns: np.ndarray) -> np.ndarray:
  """Returns scaled values [..., C] of the metrics `columns` [C] in the metrics' own units (of a step)."""
  return values * scaler.scale[columns] + scaler.minimum[columns]
