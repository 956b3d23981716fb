"""The floors that measure distances to training rows or windows, by scikit-learn (the extra `baselines`).

In, protocol and out as in `baselines.py`. Both draw rows or windows from the training split, by a seed.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mtad_jax.evaluate.baselines import scale

NEIGHBOURS_FROM = 4000  # training rows at most
CENTRES = 20
WINDOW_ROWS = 10
CENTRES_FROM = 8000  # training windows at most


def _draw(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
  """Returns the rows, or that many of them, none twice, in their order."""
  return rows if len(rows) <= most else rows[np.sort(rng.choice(len(rows), most, replace=False))]


def nearest_neighbour(train: np.ndarray, test: np.ndarray, seed: int = 0) -> np.ndarray:
  """Returns [T]: the distance to the nearest of 4,000 training rows drawn at random.

  Args:
    train: [T_train, F] without NaN.
    test: [T, F] without NaN.
    seed: of the draw.

  Raises:
    ValueError: as `baselines.scale`. ImportError: there is no scikit-learn.
  """
  from sklearn.neighbors import NearestNeighbors

  scaled, rows = scale(train, test)
  known = _draw(scaled, NEIGHBOURS_FROM, np.random.default_rng(seed))
  return NearestNeighbors(n_neighbors=1).fit(known).kneighbors(rows)[0][:, 0]


def _windows(rows: np.ndarray) -> np.ndarray:
  """Returns [T - 9, 10 F], every window of 10 rows."""
  windows = sliding_window_view(rows, WINDOW_ROWS, axis=0)
  return windows.reshape(len(windows), -1)


def mean_of_windows(values: np.ndarray, window: int) -> np.ndarray:
  """Returns [N + window - 1], for each row the mean of the values [N] of the windows that hold it."""
  sums = np.concatenate([[0.0], np.cumsum(values)])
  rows = np.arange(len(values) + window - 1)
  first, last = np.maximum(rows - window + 1, 0), np.minimum(rows + 1, len(values))
  return (sums[last] - sums[first]) / (last - first)


def kmeans_windows(train: np.ndarray, test: np.ndarray, seed: int = 0) -> np.ndarray:
  """Returns [T]: the distance of windows of 10 rows to the nearest of 20 centres, mean over those that hold a row.

  The centres are those of mini-batch k-means on 8,000 training windows at most. The windows after a row count as
  those before it do, so that this floor sees nine rows ahead, which no detector on a stream can.

  Args:
    train: [T_train, F] without NaN, at least 10 rows; fewer than 29 leave fewer centres.
    test: [T, F] without NaN, at least 10 rows.
    seed: of the draw and of the centres.

  Raises:
    ValueError: as `baselines.scale`, or too few rows. ImportError: there is no scikit-learn.
  """
  from sklearn.cluster import MiniBatchKMeans

  scaled, rows = scale(train, test)
  for name, split in (("training", scaled), ("test", rows)):
    if len(split) < WINDOW_ROWS:
      raise ValueError(f"{len(split)} {name} rows; k-means on windows needs at least {WINDOW_ROWS}")
  known = _draw(_windows(scaled), CENTRES_FROM, np.random.default_rng(seed))
  model = MiniBatchKMeans(min(CENTRES, len(known)), random_state=seed, n_init=3).fit(known)
  return mean_of_windows(np.min(model.transform(_windows(rows)), axis=1), WINDOW_ROWS)
