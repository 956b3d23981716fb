"""A rehearsal of deployment on a training split alone: which settings of `detect` find faults, without a label.

In: a machine's training rows. Out: the errors that a light model makes on them, with faults put in and without, and
what a scoring rule and threshold make of those errors. The first rows fit a linear autoregression (the floor of
`baselines.py`), the next calibrate, and the rest is deployment: half of the split lies after the calibration, so what
drifts in the training data drifts here. No network takes part: settings are compared, not detectors.
"""

import itertools
from typing import NamedTuple

import numpy as np

from mtad_jax.config import DetectConfig, ModelConfig
from mtad_jax.detect.calibration import quiet_rows
from mtad_jax.detect.combine import metric_scores, row_scores
from mtad_jax.detect.errors import Errors, fit_error_model, take_rows
from mtad_jax.detect.thresholds import critical_rate, fit_threshold, row_thresholds
from mtad_jax.evaluate.baselines import AR_ORDER, CLIP_HIGH, CLIP_LOW, fit_autoregression, lagged, scale
from mtad_jax.evaluate.metrics import average_precision, best_f1, point_scores

FIT_SHARE, CALIBRATION_SHARES = 0.35, (0.38, 0.48)  # of the rows; what follows is deployment
KINDS = ("spike", "level_shift", "drift", "frozen", "swapped", "decorrelated")
ROWS_PER_FAULT = 900  # of deployment, on average
MIN_ROWS = 400  # of the training split
_NUM_ROWS = (5, 200)  # that a fault lasts, log-uniform; a spike the least of them
_DEVIATIONS = (1.5, 10.0)  # of a metric in deployment, that a fault adds, log-uniform
_SMALLEST_DEVIATION = 0.02  # scaled units
_MARGIN_ROWS = 60  # before the first fault
_LONGEST_SHARE = 0.6  # of the room that a fault has


class Rehearsal(NamedTuple):
  """Errors of the rows from the first calibration row on [n, F'], as they were and with faults in deployment.

  num_calibration: rows before deployment. is_fault: [n - num_calibration] bool, of the deployed rows.
  """

  quiet: Errors
  faulty: Errors
  num_calibration: int
  is_fault: np.ndarray


class Judgement(NamedTuple):
  """What settings make of a rehearsal.

  average_precision, f1: of the deployed rows with faults; f1 at the threshold fitted on the calibration rows.
  best_f1: at the best threshold of all, which looks at the faults.
  alarm_share: of the deployed rows without faults, those in alarm. promised_share: what the threshold promised.
  """

  average_precision: float
  f1: float
  best_f1: float
  alarm_share: float
  promised_share: float


def _put_fault(
  values: np.ndarray, start: int, num_rows: int, kind: str, movable: np.ndarray, rng: np.random.Generator
) -> None:
  """Puts a fault into some movable metrics of rows [start, start + num_rows) of values [n, F], in place."""
  rows = np.arange(start, start + num_rows)
  count = int(rng.integers(1, max(2, len(movable) // 3)))
  metrics = rng.choice(movable, count, replace=False)
  here = np.ix_(rows, metrics)
  if kind in ("spike", "level_shift", "drift"):
    least, most = np.log(_DEVIATIONS)
    height = np.exp(rng.uniform(least, most, count)) * rng.choice([-1.0, 1.0], count)
    height *= np.maximum(values[:, metrics].std(axis=0), _SMALLEST_DEVIATION)
    shape = np.linspace(0, 2, num_rows) if kind == "drift" else np.ones(num_rows)
    values[here] += shape[:, None] * height[None, :]
  elif kind == "frozen":
    values[here] = values[start - 1, metrics]
  elif kind == "swapped":
    pairs = rng.permutation(movable)[: 2 * max(1, count // 2)]
    first, second = np.array_split(pairs, 2)
    values[np.ix_(rows, [*first, *second])] = values[np.ix_(rows, [*second, *first])]
  else:  # the metrics' own values of another time: as usual, out of step with all others
    shift = int(rng.integers(num_rows, max(num_rows + 1, start)))
    values[here] = values[np.ix_((rows - shift) % len(values), metrics)]


def put_faults(
  values: np.ndarray, columns: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the rows with faults put in, one in each of equal stretches, and where: [n, F], [n] bool.

  Args:
    values: [n, F] scaled rows of deployment, more than `_MARGIN_ROWS`. columns: of metrics that may be touched.
  """
  values, is_fault = values.copy(), np.zeros(len(values), bool)
  kinds = [kind for kind in KINDS if kind != "swapped" or len(columns) > 1]
  edges = np.linspace(_MARGIN_ROWS, len(values), max(1, len(values) // ROWS_PER_FAULT) + 1).astype(int)
  for first, last in itertools.pairwise(edges):
    kind = kinds[int(rng.integers(len(kinds)))]
    drawn = _NUM_ROWS[0] if kind == "spike" else int(np.exp(rng.uniform(*np.log(_NUM_ROWS))))
    num_rows = max(1, min(drawn, int(_LONGEST_SHARE * (last - first))))
    start = int(first + rng.integers(0, last - first - num_rows))
    _put_fault(values, start, num_rows, kind, columns, rng)
    is_fault[start : start + num_rows] = True
  return values, is_fault


def rehearse(train: np.ndarray, targets: tuple[int, ...], seed: int) -> Rehearsal:
  """Returns the errors of a machine's training split played as calibration and deployment.

  Args:
    train: [T, F] without NaN, at least `MIN_ROWS` rows. targets: columns that are scored, and get the faults.
    seed: of the faults; one of the machine's own.

  Raises:
    ValueError: too few rows, a NaN, or no scored metric that moves while the model is fitted.
  """
  if len(train) < MIN_ROWS:
    raise ValueError(f"{len(train)} training rows; a rehearsal needs {MIN_ROWS}")
  num_fit, begin, deployed = (int(share * len(train)) for share in (FIT_SHARE, *CALIBRATION_SHARES))
  fit, rest = scale(train[:num_fit], train[num_fit:])
  columns = list(targets)
  movable = np.array([column for column in columns if np.ptp(fit[:, column]) > 0])
  if not len(movable):
    raise ValueError(
      f"no scored metric moves in the first {num_fit} rows; a rehearsal has nothing to put faults into"
    )
  centre = fit.mean(axis=0)
  weights = fit_autoregression(fit - centre)

  def errors_of(rows: np.ndarray) -> Errors:
    series = np.concatenate([fit[-AR_ORDER:], rows]) - centre
    inputs, actual = lagged(series)
    away = (actual - inputs @ weights)[begin - num_fit :, columns]
    return Errors(away, None, None, actual[begin - num_fit :, columns])

  faulty, is_fault = put_faults(rest[deployed - num_fit :], movable, np.random.default_rng(seed))
  with_faults = np.concatenate([rest[: deployed - num_fit], np.clip(faulty, CLIP_LOW, CLIP_HIGH)])
  return Rehearsal(errors_of(rest), errors_of(with_faults), deployed - begin, is_fault)


def judge(rehearsal: Rehearsal, settings: DetectConfig, step_s: float | None) -> Judgement:
  """Returns what a scoring rule and its threshold make of a rehearsal.

  Args:
    settings: rule, threshold and all that belongs to them. step_s: seconds from row to row; None: a row is a minute.

  Raises:
    ValueError: rule density, which has no mixture here, or as `fit_threshold`.
  """
  first = rehearsal.num_calibration
  model = fit_error_model(take_rows(rehearsal.quiet, np.arange(first)))

  def scored(errors: Errors) -> np.ndarray:
    seen = np.zeros(errors.level.shape, bool)
    floor = ModelConfig().variance_floor  # of a decoder, which there is none of here
    by_metric = metric_scores(errors, model, seen, settings.rule, settings, floor)
    return row_scores(by_metric, np.arange(len(by_metric)), settings.rule, settings, step_s)

  quiet, faulty = scored(rehearsal.quiet), scored(rehearsal.faulty)[first:]
  own, quiet = quiet[:first], quiet[first:]
  rate, run_rows = critical_rate(settings), quiet_rows(settings, step_s)
  pot, value, streaming = fit_threshold("rehearsal", own, [own], step_s, settings, run_rows, rate)
  flagged = faulty > row_thresholds(value, streaming, faulty)
  return Judgement(
    average_precision(rehearsal.is_fault, faulty),
    point_scores(rehearsal.is_fault, flagged).f1,
    best_f1(rehearsal.is_fault, faulty).f1,
    float(np.mean(quiet > row_thresholds(value, streaming, quiet))),
    pot.q,
  )
