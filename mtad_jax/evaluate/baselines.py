"""The floors that NumPy computes: simple detectors that a figure must beat before it means anything.

In: one machine's raw training and test values. Protocol of all floors: min-max by the training rows, flat
metrics divided by 1, test clipped to [-4, 5], all columns. Out: one score a test row, larger is stranger.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

CLIP_LOW, CLIP_HIGH = -4.0, 5.0  # scaled units
AR_ORDER = 8  # rows that a row is foretold from
AR_RIDGE = 0.01  # squared length of the weights, beside the training rows' summed squared errors
AR_ERROR_FLOOR = 1e-3  # smallest deviation of an error, scaled units
AR_LARGEST = 3  # metrics whose errors make a row's score
AR_SMOOTHED_ROWS = 10


def fill_forward(values: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
  """Returns the values with every NaN replaced by the last value seen, else the next one, else 0.

  Args:
    values: [T, F], NaN where missing.
    before: [F] the values that precede the first row (the last training row), or None.
  """
  values = np.array(values, np.float64)
  if before is not None:
    values = np.concatenate([np.asarray(before, np.float64)[None, :], values])
  rows = np.arange(len(values))[:, None]
  seen = np.maximum.accumulate(np.where(np.isnan(values), -1, rows), axis=0)
  columns = np.arange(values.shape[1])[None, :]
  first = np.argmax(~np.isnan(values), axis=0)[None, :] if len(values) else seen
  filled = values[np.where(seen >= 0, seen, first), columns]
  filled = np.where(np.isnan(filled), 0.0, filled)  # a metric without any value
  return filled if before is None else filled[1:]


def scale(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns both splits in units of the training range, the test clipped.

  Args:
    train: [T_train, F] without NaN, at least one row.
    test: [T_test, F] without NaN.

  Raises:
    ValueError: no training row, other metrics in test, or a NaN.
  """
  train, test = np.asarray(train, np.float64), np.asarray(test, np.float64)
  if train.ndim != 2 or test.ndim != 2 or len(train) == 0 or train.shape[1] != test.shape[1]:
    raise ValueError(
      f"train has shape {train.shape}, test {test.shape}; [rows, F] with the same F are wanted"
    )
  for name, values in (("train", train), ("test", test)):
    if np.any(np.isnan(values)):
      row, metric = np.argwhere(np.isnan(values))[0]
      raise ValueError(f"{name}: row {row}, metric {metric} is NaN; fill it before the floors are computed")
  low, span = np.min(train, axis=0), np.ptp(train, axis=0)
  span = np.where(span > 0, span, 1.0)
  return (train - low) / span, np.clip((test - low) / span, CLIP_LOW, CLIP_HIGH)


def random_scores(num_rows: int, seed: int) -> np.ndarray:
  """Returns [T] uniform numbers.

  Args:
    num_rows: T.
    seed: one per machine, or the machines share their luck.
  """
  return np.random.default_rng(seed).uniform(size=num_rows)


def all_positive(num_rows: int) -> np.ndarray:
  """Returns [T] ones: every row is equally strange, so that any threshold flags all or none."""
  return np.ones(num_rows)


def training_range(train: np.ndarray, test: np.ndarray) -> np.ndarray:
  """Returns [T]: how far a row leaves the training minimum and maximum, summed over metrics.

  Args:
    train: [T_train, F] without NaN.
    test: [T, F] without NaN.

  Raises:
    ValueError: as `scale`.
  """
  scaled, rows = scale(train, test)
  low, high = np.min(scaled, axis=0), np.max(scaled, axis=0)
  return np.sum(np.maximum(rows - high, 0) + np.maximum(low - rows, 0), axis=1)


def l2_norm(train: np.ndarray, test: np.ndarray) -> np.ndarray:
  """Returns [T]: the length of a row in units of the training range.

  Args:
    train: [T_train, F] without NaN.
    test: [T, F] without NaN.

  Raises:
    ValueError: as `scale`.
  """
  return np.linalg.norm(scale(train, test)[1], axis=1)


def causal_mean(values: np.ndarray, length: int) -> np.ndarray:
  """Returns [T], the mean of a row and of the length - 1 rows before it, fewer where the series begins.

  Args:
    values: [T] finite.
    length: rows, at least 1.
  """
  sums = np.concatenate([[0.0], np.cumsum(values)])
  ends = np.arange(1, len(values) + 1)
  starts = np.maximum(ends - length, 0)
  return (sums[ends] - sums[starts]) / (ends - starts)


def linear_autoregression(train: np.ndarray, test: np.ndarray) -> np.ndarray:
  """Returns [T]: how badly a ridge regression on the last 8 rows of all metrics foretells a row.

  A metric's absolute error is measured in the mean and deviation that it has on the training rows; a row's three
  largest are summed, and averaged with those of the nine rows before. The test's first rows are foretold from
  the training split's last.

  Args:
    train: [T_train, F] without NaN, at least 9 rows.
    test: [T, F] without NaN.

  Raises:
    ValueError: as `scale`, or too few training rows.
  """
  scaled, rows = scale(train, test)
  if len(scaled) <= AR_ORDER:
    raise ValueError(f"{len(scaled)} training rows; a linear autoregression needs more than {AR_ORDER}")
  centre = np.mean(scaled, axis=0)
  weights = fit_autoregression(scaled - centre)
  inputs, targets = lagged(scaled - centre)
  usual = np.abs(targets - inputs @ weights)
  inputs, targets = lagged(np.concatenate([scaled[-AR_ORDER:], rows]) - centre)
  errors = np.abs(targets - inputs @ weights)
  deviations = np.maximum(np.std(usual, axis=0), AR_ERROR_FLOOR)
  surprise = np.sort((errors - np.mean(usual, axis=0)) / deviations, axis=1)
  return causal_mean(np.sum(surprise[:, -AR_LARGEST:], axis=1), AR_SMOOTHED_ROWS)


def fit_autoregression(values: np.ndarray) -> np.ndarray:
  """Returns the weights [8 F, F] of a ridge regression of a row on the AR_ORDER rows before it.

  Args:
    values: [T, F] centred, without NaN, more than AR_ORDER rows.
  """
  inputs, targets = lagged(values)
  penalty = AR_RIDGE * np.eye(inputs.shape[1])
  return np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ targets)


def lagged(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the AR_ORDER rows before each row, side by side, and the rows: [T - 8, 8 F], [T - 8, F].

  Args:
    values: [T, F], more than AR_ORDER rows.
  """
  before = sliding_window_view(values, AR_ORDER, axis=0)[:-1]  # [T - 8, F, 8]
  return before.reshape(len(before), -1), values[AR_ORDER:]


def pca_error(train: np.ndarray, test: np.ndarray, variance: float = 0.9) -> np.ndarray:
  """Returns [T]: squared distance to the training rows' principal subspace, summed over metrics.

  Args:
    train: [T_train, F] without NaN.
    test: [T, F] without NaN.
    variance: share of the training variance that the subspace keeps, 0..1; the fewest components that do.

  Raises:
    ValueError: as `scale`.
  """
  scaled, rows = scale(train, test)
  centre = np.mean(scaled, axis=0)
  values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(scaled, rowvar=False, bias=True)))
  values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
  total = float(np.sum(values))
  # a split that never moved has no component to keep: every departure from it is error
  kept = int(np.searchsorted(np.cumsum(values), variance * total)) + 1 if total > 0 else 0
  rest = vectors[:, kept:]  # projecting on what is left out loses no digits to a difference of two sums
  return np.sum(((rows - centre) @ rest) ** 2, axis=1)
