"""One machine's raw series, as every reader returns it and every later stage takes it.

Host-side NumPy in float64: a counter near 2e9 keeps its unit steps. Missing values are NaN here and nowhere
later; `data/gaps.py` fills and counts them.
"""

from typing import NamedTuple

import numpy as np


class Series(NamedTuple):
  """One split of one machine.

  values: [T, F] float64, NaN where missing.
  timestamps: [T] datetime64[ms], strictly rising, or None where the files have none.
  """

  values: np.ndarray
  timestamps: np.ndarray | None = None


class Interpretation(NamedTuple):
  """A true segment and the metrics that caused it.

  start, end: test rows from 0, end exclusive. metrics: column indices from 0.
  kind, strength: of a simulated fault ("spike", "middle"); empty on real data.
  """

  start: int
  end: int
  metrics: tuple[int, ...]
  kind: str = ""
  strength: str = ""


class Machine(NamedTuple):
  """One machine: names, its two splits, and what is known of the test split.

  labels: [T_test] bool, or None where the data have none.
  """

  name: str
  role: str
  metrics: tuple[str, ...]
  train: Series
  test: Series
  labels: np.ndarray | None = None
  interpretation: tuple[Interpretation, ...] = ()


def empty_series(num_metrics: int) -> Series:
  """Returns a split without rows, for a machine whose source has none."""
  return Series(np.zeros((0, num_metrics)), None)
