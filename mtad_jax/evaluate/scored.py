"""One scored machine as the evaluation takes it: labels, scores, thresholds and floors, all as arrays."""

from typing import NamedTuple

import numpy as np

from mtad_jax.data.machine import Interpretation


class ScoredMachine(NamedTuple):
  """One machine's scores and what they are held against.

  labels: [T] bool, or None. scores: [T], NaN where a row has none. thresholds: by name ("initial", "pot", the
  run's own, of whatever kind): one number or, where it follows the scores, [T]; NaN where there is none.
  other_scores, baselines: [T] by name, finite wherever `scores` is.
  cause_ranking: for each true segment of `labels`, in order, metric indices best first, or None.
  rows_per_day: None where the data have no clock. num_metrics: how many are
  scored, for the random ranking.
  """

  name: str
  role: str
  labels: np.ndarray | None
  scores: np.ndarray
  thresholds: dict[str, float | np.ndarray]
  other_scores: dict[str, np.ndarray]
  baselines: dict[str, np.ndarray]
  interpretation: tuple[Interpretation, ...]
  cause_ranking: tuple[tuple[int, ...] | None, ...]
  rows_per_day: float | None
  num_metrics: int
