"""Peaks over threshold: from normal scores to the score that a share q of normal rows exceeds.

z_q = t + (sigma / gamma) ((q n / N_t)^-gamma - 1) (Siffer et al. 2017), t the initial quantile and N_t the
number of scores strictly above it. Never silent: where the data cannot carry q, the status says what the
threshold is instead. q counts rows; alarms come in clusters, so clusters are counted beside it.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from mtad_jax.detect import gpd

RUN_ROWS = 10  # exceedances with more quiet rows than this between them belong to two clusters
CONFIDENCE = 0.95  # of the interval for z_q
MIN_EXPECTED_ROWS = 0.01  # q n below this asks for a score 100 times rarer than the record is long: refused
_SHAPE_MAX = 5.0  # of the interval's search; a tail heavier than this has no use
_Z_SPAN = 1e6  # the interval's search ends here, in units of the threshold's excess


class PotFit(NamedTuple):
  """A threshold and what is known of it; what was not fitted is NaN.

  q: the share of rows that it was fitted for. initial, threshold, low, high, scale: in the scores' unit; low and high
  enclose the true z_q.
  num_clusters: exceedances after runs declustering.
  expected_alarm_rows_per_week: q times the rows of a week; expected_alarms_per_week: the same, declustered.
  status: "ok", "exponential: why", "moments: why" or "refused: why, and what the threshold is instead".
  """

  initial: float
  threshold: float
  num_rows: int
  num_excesses: int
  num_clusters: int
  shape: float
  scale: float
  low: float
  high: float
  expected_alarm_rows_per_week: float
  expected_alarms_per_week: float
  method: str
  status: str
  q: float


def count_clusters(is_above: np.ndarray, run_rows: int = RUN_ROWS) -> int:
  """Returns the number of clusters: exceedances at most `run_rows` quiet rows apart are one.

  Args:
    is_above: [N] bool, in the order of time.
    run_rows: the run length, in rows.
  """
  rows = np.flatnonzero(is_above)
  return int(len(rows) > 0) + int(np.sum(np.diff(rows) > run_rows + 1))


def _likelihood_interval(
  excesses: np.ndarray, fit: gpd.GpdFit, tail_share: float, weight: float
) -> tuple[float, float]:
  """Returns (low, high) of the excess quantile by profile likelihood; high is inf where nothing bounds it.

  `weight` is clusters / excesses: rows of one cluster are not independent, so a cluster counts as one.
  """
  depth, top, count = -np.log(tail_share), float(np.max(excesses)), len(excesses)
  drop = stats.chi2.ppf(CONFIDENCE, 1) / 2
  best = gpd.excess_quantile(fit.shape, fit.scale, tail_share)

  def gap(log_z: float) -> float:
    z = np.exp(log_z)
    low = gpd.SHAPE_MIN
    if z < top:  # the distribution must not end before the largest excess
      low = max(low, float(np.log1p(-z / top)) / depth + 1e-9)

    def loss(shape: float) -> float:
      return -gpd.log_likelihood(excesses, shape, z / gpd.excess_quantile(shape, 1.0, tail_share)) / count

    found = optimize.minimize_scalar(
      loss, bounds=(low, _SHAPE_MAX), method="bounded", options={"xatol": 1e-8}
    )
    return weight * (fit.log_likelihood + count * float(found.fun)) - drop

  centre = float(np.log(best))
  ends = []
  for direction in (-1.0, 1.0):
    step = 0.1
    while gap(centre + direction * step) < 0 and step < np.log(_Z_SPAN):
      step *= 2
    if gap(centre + direction * step) < 0:
      ends.append(0.0 if direction < 0 else np.inf)
    else:
      end = optimize.brentq(lambda s, d=direction: gap(centre + d * s), 0, step, xtol=1e-6)
      ends.append(float(np.exp(centre + direction * end)))
  return ends[0], ends[1]


def _interval(excesses: np.ndarray, fit: gpd.GpdFit, tail_share: float, clusters: int) -> tuple[float, float]:
  """Returns (low, high) of the excess quantile: profile likelihood, or exact for the exponential."""
  if fit.method is gpd.FitMethod.LIKELIHOOD:
    return _likelihood_interval(excesses, fit, tail_share, clusters / len(excesses))
  if fit.method is gpd.FitMethod.EXPONENTIAL:
    # 2 N mean / sigma is chi-squared with 2 N degrees of freedom; N the clusters
    tails = stats.chi2.ppf([(1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2], 2 * clusters)
    low, high = -np.log(tail_share) * 2 * clusters * fit.scale / tails
    return float(low), float(high)
  return np.nan, np.nan  # the moments have no likelihood to profile


def fit_pot(
  scores: np.ndarray,
  *,
  initial_quantile: float,
  q: float,
  rows_per_week: float | None = None,
  run_rows: int = RUN_ROWS,
) -> PotFit:
  """Returns the threshold that a share `q` of normal rows exceeds, its interval and its status.

  An alarm is a score strictly above the threshold. Refusals (the status has the reason and the threshold):
  scores that are not finite (NaN); fewer than two excesses, or q n below `MIN_EXPECTED_ROWS` (the largest
  score seen); q not below N_t / n (the empirical quantile, which is then inside the data).

  Args:
    scores: [N] normal scores in the order of time, held out from fitting.
    initial_quantile: where the tail begins, in (0, 1).
    q: promised share of alarm rows, in (0, 1).
    rows_per_week: rows of a week, for the expected alarms; None where the data have no clock.
    run_rows: quiet rows that two clusters have more of between them.

  Raises:
    ValueError: a quantile or q outside (0, 1), or scores that are not one row of numbers.

  Source: Siffer et al. 2017; the interval by profile likelihood (Coles 2001, section 4.3.3).
  """
  scores = np.asarray(scores, np.float64)
  if scores.ndim != 1:
    raise ValueError(f"scores: shape {scores.shape} given; one number a row is wanted")
  for name, value in (("initial_quantile", initial_quantile), ("q", q)):
    if not 0 < value < 1:
      raise ValueError(f"{name}: {value!r} is out of range; allowed: above 0 and below 1")
  num_rows = len(scores)
  num_bad = num_rows - int(np.sum(np.isfinite(scores)))
  expected = np.nan if rows_per_week is None else q * rows_per_week
  if num_rows == 0 or num_bad:
    reason = "no scores" if num_rows == 0 else f"{num_bad} of {num_rows} scores are not finite"
    nan = float("nan")
    status = f"refused: {reason}; there is no threshold"
    return PotFit(nan, nan, num_rows, 0, 0, nan, nan, nan, nan, nan, nan, "none", status, q)

  initial = float(np.quantile(scores, initial_quantile))
  is_above = scores > initial
  excesses = scores[is_above] - initial
  count, clusters = len(excesses), count_clusters(is_above, run_rows)
  per_cluster = expected * clusters / count if count else np.nan

  def refused(reason: str, threshold: float, method: str, weekly: tuple[float, float]) -> PotFit:
    nan = float("nan")
    found = (initial, threshold, num_rows, count, clusters, nan, nan, nan, nan, *weekly)
    return PotFit(*found, method, f"refused: {reason}", q)

  if count < 2:
    reason = f"{count} scores above the initial quantile; threshold is the largest score"
    return refused(reason, float(np.max(scores)), "maximum", (np.nan, np.nan))
  if q >= count / num_rows:
    reason = (
      f"q {q:g} is not below the tail's share {count / num_rows:g}; threshold is the empirical quantile"
    )
    return refused(reason, float(np.quantile(scores, 1 - q)), "empirical quantile", (expected, per_cluster))
  if q * num_rows < MIN_EXPECTED_ROWS:
    reason = f"{num_rows} rows cannot carry q {q:g}; threshold is the largest score"
    return refused(reason, float(np.max(scores)), "maximum", (np.nan, np.nan))

  fit = gpd.fit_gpd(excesses)
  tail_share = q * num_rows / count
  threshold = initial + gpd.excess_quantile(fit.shape, fit.scale, tail_share)
  low, high = _interval(excesses, fit, tail_share, clusters)
  status = "ok" if fit.method is gpd.FitMethod.LIKELIHOOD else f"{fit.method.value}: {fit.reason}"
  return PotFit(
    initial, threshold, num_rows, count, clusters, fit.shape, fit.scale, initial + low, initial + high,
    expected, per_cluster, fit.method.value, status, q,
  )  # fmt: skip


def rate_of_alarms(
  scores: np.ndarray, initial_quantile: float, alarms_per_row: float, run_rows: int = RUN_ROWS
) -> float:
  """Returns the q, a share of rows, at which so many alarms (clusters of rows) are expected; at most 1/2.

  The rows of a cluster above the initial quantile stand for those above the threshold, of which there are fewer: the
  alarms that come are more often too few than too many.

  Args:
    scores: [N] normal scores in the order of time. alarms_per_row: above 0. run_rows: as `fit_pot`.
  """
  is_above = scores > np.quantile(scores, initial_quantile) if len(scores) else np.zeros(0, bool)
  clusters = count_clusters(is_above, run_rows)
  rows_per_cluster = np.sum(is_above) / clusters if clusters else 1.0
  return float(min(alarms_per_row * rows_per_cluster, 0.5))


def describe(fit: PotFit) -> str:
  """Returns one line for a person: threshold, its interval, what it rests on, expected alarms, status."""
  parts = [f"threshold {fit.threshold:.6g}"]
  if np.isfinite(fit.low):
    parts[0] += f" ({CONFIDENCE:.0%} interval {fit.low:.4g} to {fit.high:.4g})"
  above = f"{fit.num_excesses} of {fit.num_rows} rows above in {fit.num_clusters} clusters"
  parts.append(f"initial {fit.initial:.6g}, {above}")
  if np.isfinite(fit.shape):
    parts.append(f"shape {fit.shape:.4g}, scale {fit.scale:.4g}")
  if np.isfinite(fit.expected_alarm_rows_per_week):
    rows, alarms = fit.expected_alarm_rows_per_week, fit.expected_alarms_per_week
    parts.append(f"expected a week: {rows:.3g} rows, {alarms:.3g} alarms")
  return "; ".join([*parts, fit.status])
