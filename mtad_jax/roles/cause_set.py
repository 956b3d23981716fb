"""The fewest metrics without which a row is normal under its role's mixture, found greedily.

In: one machine's `Scorer` and a row. Out: columns, the strongest first. What one metric's attribution smears over
those that follow it, a set does not: the rest is judged by the mixture's marginal over the rest.
"""

import numpy as np
from scipy import special, stats

from mtad_jax.roles.attribution import Scorer
from mtad_jax.roles.mixture import LOG_TWO_PI
from mtad_jax.roles.prior import BOTH

LEVEL = 0.99  # share of normal rows that count as normal


def find_cause_set(scorer: Scorer, row: np.ndarray, most: int = 8) -> tuple[int, ...]:
  """Returns at most `most` columns of `scorer.targets`' numbering, fewest first found; empty where the row is normal.

  A metric is added at a time, the one whose leaving lowers the surprise of the rest most, until twice the surprise of
  the rest is within chi-square's quantile for as many metrics. Metrics that are ignored, or no targets, or depart the
  way that does not matter, are never named; the latter two stay in what is judged.

  Args:
    scorer: of one machine, in NumPy. row: [F] in the machine's own scaled units.
  """
  x = row * scorer.factor + scorer.shift
  left = np.flatnonzero(~scorer.is_ignored)
  weights = np.exp(scorer.log_weights - special.logsumexp(scorer.log_weights))
  middle = weights @ scorer.means
  harmless = (scorer.direction != BOTH) & (np.sign(x - middle) == -scorer.direction)
  x = np.where(harmless, middle, x)
  allowed = np.isin(np.arange(len(row)), scorer.targets) & ~harmless
  place = {int(column): number for number, column in enumerate(scorer.targets)}
  named: list[int] = []
  while len(named) < most and len(left) and _excess(scorer, x, left[None, :])[0] > 0:
    choices = np.flatnonzero(allowed[left])
    if not len(choices):
      break
    if len(left) == 1:
      out = 0
    else:
      rests = np.stack([np.delete(left, choice) for choice in choices])  # [C, F_left - 1]
      out = int(choices[np.argmin(_excess(scorer, x, rests))])
    named.append(place[int(left[out])])
    left = np.delete(left, out)
  return tuple(named)


def _excess(scorer: Scorer, x: np.ndarray, columns: np.ndarray) -> np.ndarray:
  """Returns [C] twice the surprise of choices of columns [C, D] of a row, above chi-square's quantile."""
  is_there = np.isfinite(scorer.log_weights)
  means, covariances = scorer.means[is_there], scorer.covariances[is_there]
  inner = covariances[:, columns[:, :, None], columns[:, None, :]]  # [K, C, D, D]
  away = x[columns][None, :, :] - means[:, columns]  # [K, C, D]
  pull = np.linalg.solve(inner, away[..., None])[..., 0]
  log_det = np.linalg.slogdet(inner)[1]  # [K, C]
  norms = scorer.log_weights[is_there][:, None] - 0.5 * (log_det + columns.shape[1] * LOG_TWO_PI)
  joint = norms - 0.5 * np.sum(away * pull, axis=2)
  surprise = special.logsumexp(norms, axis=0) - special.logsumexp(joint, axis=0)
  return 2 * surprise - float(stats.chi2.ppf(LEVEL, columns.shape[1]))
