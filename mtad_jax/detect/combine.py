"""From errors to per-metric scores, and from those to one score a row: the rules.

e is an error, u = max(0, |e| - mean |e|) / deviation of |e| its departure, mean and deviation those of the
calibration part: each metric against its own error distribution (Garg et al. 2021). w = gamma / (1 + gamma) is the
reconstruction's weight beside 1 - w of the forecast's (1 where a mode has one part). Every metric score is bounded
below by 0, so that a row's score over its threshold has a meaning.
- joint (default): u_f + u_r + min(u_l, limit), u_l that of the level, the distance from the fit part's mean. A row's
  score is the sum over its K largest metrics (faults touch few of them; noise touches all), averaged with those of
  the rows before it over several lengths, as faults last.
- density, of a role's mixture, on the rows themselves or on a network's errors (`residual_mixture.py`): the row's
  -log p(x) above the least it can be, averaged likewise; a metric's score is its surprise given the other metrics
  (`roles/attribution.py`).
The others sum over all metrics, and look at no other row:
- standardised: (1 - w) u_f + w u_r.
- surprise: (1 - w) r(z_f) + w r(z_r), r the two-sided tail surprise -log(2 min(Phi, 1 - Phi)); z_f the forecast
  error in calibration deviations, z_r the reconstruction error in the decoder's own.
- gamma: (1 - w) e_f^2 + w (-log(p / p_max)), the original's mixture: p the decoder's density, p_max the
  largest it can reach, at its variance floor (a density has no upper bound of its own).
- raw: e_f^2 + e_r^2.
"""

import math

import numpy as np
from scipy import special

from mtad_jax.config import DetectConfig
from mtad_jax.config_choices import ScoringRule
from mtad_jax.detect.errors import ErrorModel, Errors, Moments
from mtad_jax.detect.row_outputs import SMALLEST_VARIANCE
from mtad_jax.roles.prior import MetricPrior, know_nothing

LOG_TWO = math.log(2.0)
SMOOTHED = (ScoringRule.JOINT, ScoringRule.DENSITY)  # rules whose scores are means over several lengths


def tail_surprise(z: np.ndarray) -> np.ndarray:
  """Returns -log(2 min(Phi(z), 1 - Phi(z))): 0 at z = 0, Exp(1) under the model, monotone in |z|."""
  return -LOG_TWO - special.log_ndtr(-np.abs(z))


def _standardised(errors: np.ndarray, moments: Moments, floor: np.ndarray) -> np.ndarray:
  deviation = np.maximum(moments.absolute_deviation, floor)
  return np.maximum((np.abs(errors) - moments.absolute_mean[None, :]) / deviation[None, :], 0)


def _forecast_part(errors: np.ndarray, moments: Moments, rule: ScoringRule, floor: np.ndarray) -> np.ndarray:
  if rule is ScoringRule.STANDARDISED:
    return _standardised(errors, moments, floor)
  if rule is ScoringRule.SURPRISE:
    deviation = np.maximum(moments.deviation, floor)
    return tail_surprise((errors - moments.mean[None, :]) / deviation[None, :])
  return errors**2


def _reconstruction_part(
  errors: np.ndarray,
  log_variance: np.ndarray,
  moments: Moments,
  rule: ScoringRule,
  floor: np.ndarray,
  variance_floor: float,
) -> np.ndarray:
  if rule is ScoringRule.STANDARDISED:
    return _standardised(errors, moments, floor)
  if rule is ScoringRule.SURPRISE:
    return tail_surprise(errors * np.exp(-0.5 * log_variance))
  if rule is ScoringRule.GAMMA:
    above_floor = 0.5 * (log_variance - math.log(max(variance_floor, SMALLEST_VARIANCE)))
    return 0.5 * errors**2 * np.exp(-log_variance) + np.maximum(above_floor, 0)
  return errors**2


def metric_scores(
  errors: Errors,
  model: ErrorModel,
  filled: np.ndarray,
  rule: ScoringRule,
  settings: DetectConfig,
  variance_floor: float,
  prior: MetricPrior | None = None,
) -> np.ndarray:
  """Returns the per-metric scores [T, F'] float64, at least 0, NaN where a row has no window.

  Args:
    errors: of the rows. model: of the machine's calibration part.
    filled: [T, F'] bool, True where the actual value was not seen; its metric then scores 0: an invented
      value accuses nobody.
    rule: see the module's head. variance_floor: of the decoder, scaled units squared.
    prior: what is known of the F' metrics; None: nothing. Its floors hold where a deviation is measured in: not in
      raw and gamma, whose errors are taken as they are.

  Raises:
    ValueError: rule density without a role's mixture.
  """
  known = know_nothing(filled.shape[1]) if prior is None else prior
  floor = np.maximum(settings.error_floor, known.floor)
  silent = filled | known.is_ignored[None, :]
  errors = _without_harmless(errors, known.direction)
  if rule is ScoringRule.DENSITY:
    if errors.attribution is None:
      raise ValueError("rule density: there is no mixture of the role in this calibration; run calibrate.py")
    return np.where(silent, 0.0, errors.attribution)
  if rule is ScoringRule.JOINT:
    total = _joint(errors, model, floor, settings.level_limit)
    return np.where(silent & ~np.isnan(total), 0.0, total)
  weight = settings.gamma / (1 + settings.gamma)
  if errors.forecast is None or errors.reconstruction is None or rule is ScoringRule.RAW:
    weights = (1.0, 1.0)
  else:
    weights = (1 - weight, weight)
  parts = []
  if errors.forecast is not None and model.forecast is not None:
    part = _forecast_part(errors.forecast, model.forecast, rule, floor)
    parts.append(weights[0] * part)
  if (
    errors.reconstruction is not None and errors.log_variance is not None and model.reconstruction is not None
  ):
    part = _reconstruction_part(
      errors.reconstruction,
      errors.log_variance,
      model.reconstruction,
      rule,
      floor,
      variance_floor,
    )
    parts.append(weights[1] * part)
  total = np.sum(parts, axis=0)
  return np.where(silent & ~np.isnan(total), 0.0, total)


def _without_harmless(errors: Errors, direction: np.ndarray) -> Errors:
  """Returns the errors with those that go the way that does not matter set to 0; direction: [F'], `MetricPrior`'s."""
  if not np.any(direction):
    return errors

  def cut(part: np.ndarray | None) -> np.ndarray | None:
    return None if part is None else np.where(part * direction[None, :] < 0, 0.0, part)

  return errors._replace(
    forecast=cut(errors.forecast), reconstruction=cut(errors.reconstruction), level=np.asarray(cut(errors.level))
  )


def _joint(errors: Errors, model: ErrorModel, floor: np.ndarray, level_limit: float) -> np.ndarray:
  total = np.minimum(_standardised(errors.level, model.level, floor), level_limit)
  if errors.forecast is not None and model.forecast is not None:
    total = total + _standardised(errors.forecast, model.forecast, floor)
  if errors.reconstruction is not None and model.reconstruction is not None:
    total = total + _standardised(errors.reconstruction, model.reconstruction, floor)
  return total


def smoothed_rows(settings: DetectConfig, step_s: float | None) -> tuple[int, ...]:
  """Returns the lengths that scores are averaged over, in rows, at least 1, each once.

  Faults last as long on a machine that is looked at every ten minutes as on one that is every minute.

  Args:
    step_s: seconds from row to row; None, where the data have no clock, takes a row for a minute.
  """
  return tuple(sorted({max(1, round(60 * minutes / (step_s or 60.0))) for minutes in settings.smoothed_minutes}))


def row_scores(
  scores: np.ndarray,
  rows: np.ndarray,
  rule: ScoringRule,
  settings: DetectConfig,
  step_s: float | None,
  surprise: np.ndarray | None = None,
) -> np.ndarray:
  """Returns one score a row [N] from per-metric scores [N, F'] without NaN; see the module's head.

  Args:
    rows: [N] the rows' numbers, rising. A row missing among them is left out of the means of those after it.
    step_s: as `smoothed_rows`.
    surprise: [N] of the rows, which rule density reads in place of the metrics' scores.
  """
  if rule not in SMOOTHED:
    return np.sum(scores, axis=1)
  if rule is ScoringRule.DENSITY:
    if surprise is None:
      raise ValueError("rule density: the rows' surprise is missing")
    sums = surprise
  else:
    num_largest = min(settings.largest_metrics, scores.shape[1])
    sums = np.sum(np.partition(scores, scores.shape[1] - num_largest, axis=1)[:, -num_largest:], axis=1)
  if not len(rows):
    return sums
  series = np.full(int(rows[-1]) - int(rows[0]) + 1, np.nan)
  places = rows - rows[0]
  series[places] = sums
  means = [_causal_mean(series, length) for length in smoothed_rows(settings, step_s)]
  return np.mean(means, axis=0)[places]


def _causal_mean(values: np.ndarray, length: int) -> np.ndarray:
  """Returns [T], the mean of what is no NaN among each value and the length - 1 before it."""
  present = ~np.isnan(values)
  counts = _trailing_sum(present.astype(np.float64), length)
  return _trailing_sum(np.where(present, values, 0.0), length) / np.maximum(counts, 1)


def _trailing_sum(values: np.ndarray, length: int) -> np.ndarray:
  """Returns [T], the sum of each value and the length - 1 before it, zeros before the first.

  By sums of 1, 2, 4 ... values: unlike a difference of running totals, a sum is made of its own values alone, and so
  is the same to the bit in any series that holds them.
  """

  def shifted(sums: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([np.zeros(min(rows, len(sums))), sums[: max(len(sums) - rows, 0)]])

  total, block, size, done = np.zeros(len(values)), values, 1, 0
  while done < length:
    if length & size:
      total = total + shifted(block, done)
      done += size
    block, size = block + shifted(block, size), 2 * size
  return total
