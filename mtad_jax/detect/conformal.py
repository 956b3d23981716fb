"""Conformal thresholds: a rank of the normal scores, with no assumption on their tail.

The ceil((n + 1) (1 - q))-th smallest of n normal scores: a new normal score exceeds it with probability q at most, if
it is exchangeable with them (Vovk et al. 2005). It cannot say anything of a q below 1 / (n + 1); extreme-value theory
can, by assuming a tail.
"""

import math

import numpy as np

from mtad_jax.detect.pot import RUN_ROWS, PotFit, count_clusters


def fit_conformal(
  scores: np.ndarray,
  *,
  initial_quantile: float,
  q: float,
  rows_per_week: float | None = None,
  run_rows: int = RUN_ROWS,
) -> PotFit:
  """Returns the threshold; where the scores are too few for q, the status says so and it is the largest score.

  Args:
    scores: [N] finite normal scores in the order of time, at least one, held out from fitting.
    initial_quantile: above which rows are counted in clusters, in (0, 1), as POT's.
    q: promised share of alarm rows, in (0, 1).
    rows_per_week, run_rows: as `pot.fit_pot`.

  Raises:
    ValueError: no score, or one that is not finite.
  """
  scores = np.asarray(scores, np.float64)
  num_rows, nan = len(scores), float("nan")
  if not num_rows or not np.all(np.isfinite(scores)):
    raise ValueError(f"{num_rows} scores, {int(np.sum(~np.isfinite(scores)))} not finite: no conformal threshold")
  initial = float(np.quantile(scores, initial_quantile))
  is_above = scores > initial
  count, clusters = int(np.sum(is_above)), count_clusters(is_above, run_rows)
  rank = math.ceil((num_rows + 1) * (1 - q))
  status = "ok"
  if rank > num_rows:
    needed = math.ceil(1 / q) - 1
    status = f"refused: q {q:g} needs {needed} rows, there are {num_rows}; threshold is the largest score"
  threshold = float(np.sort(scores)[min(rank, num_rows) - 1])
  weekly = q * rows_per_week if rows_per_week and status == "ok" else nan
  per_cluster = weekly * clusters / count if count else nan
  found = (initial, threshold, num_rows, count, clusters, nan, nan, nan, nan, weekly, per_cluster)
  return PotFit(*found, "conformal", status, q)
