"""Machines' rows scored: outputs and calibration in, per-metric and per-row figures out, per input row."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtad_jax.config import Config
from mtad_jax.config_choices import ScoringRule
from mtad_jax.data.preparation import Preparation, PreparedSplit
from mtad_jax.data.scaling import unscale
from mtad_jax.data.track import Track, untracked
from mtad_jax.data.windows import usable_targets
from mtad_jax.detect.calibration import MachineCalibration
from mtad_jax.detect.combine import metric_scores, row_scores
from mtad_jax.detect.errors import find_errors
from mtad_jax.detect.residual_mixture import with_density
from mtad_jax.detect.row_outputs import RowOutputs, compute_row_outputs, expect_constants
from mtad_jax.detect.thresholds import row_thresholds
from mtad_jax.roles.prior import of_columns

BAND_DEVIATIONS = 3.0  # half width of the expected band, calibration deviations of the signed error


class ScoredRows(NamedTuple):
  """One machine's scores, one entry per input row T; NaN where `valid` is false.

  score, ratio: [T]. threshold: [T], every row has one, with or without a score.
  is_anomaly, valid: [T] bool. by_rule: {rule: [T]}. metric_scores: [T, F'].
  forecast, reconstruction, expected_low, expected_high, actual: [T, F'] in the metrics' own units (a counter:
  per step).
  """

  score: np.ndarray
  threshold: np.ndarray
  ratio: np.ndarray
  is_anomaly: np.ndarray
  valid: np.ndarray
  by_rule: dict[str, np.ndarray]
  metric_scores: np.ndarray
  forecast: np.ndarray
  reconstruction: np.ndarray
  expected_low: np.ndarray
  expected_high: np.ndarray
  actual: np.ndarray


def with_context(split: PreparedSplit, context: PreparedSplit | None, window: int) -> np.ndarray:
  """Returns the scaled values that the network reads: the split's, after the last W rows of the context."""
  if context is None:
    return split.values
  return np.concatenate([context.values[-window:], split.values])


def score_rows(
  split: PreparedSplit,
  outputs: RowOutputs,
  targets: tuple[int, ...],
  preparation: Preparation,
  calibration: MachineCalibration,
  config: Config,
  context: PreparedSplit | None = None,
) -> ScoredRows:
  """Returns one machine's scores; a row's score does not depend on what else is in the split.

  A threshold that streams does: it begins where calibration ended, and a row's is of the rows before it in the split.

  Args:
    split: the rows to score; outputs: of `with_context`'s values.
    targets: columns that are scored.
    context: the training split that goes on into `split`, or None: then the first W rows have no score.
  """
  window = config.model.window_size
  num_context = 0 if context is None else len(context.values[-window:])
  filled = split.filled if context is None else np.concatenate([context.filled[-window:], split.filled])
  usable = split.usable if context is None else np.concatenate([context.usable[-window:], split.usable])
  rows = usable_targets(usable, filled, window, len(filled), window, config.data.max_filled_share)
  valid = np.zeros(len(filled), bool)
  valid[rows] = True

  step_s = preparation.step_s or (config.data.sampling_step_s or None)
  here = slice(num_context, None)
  columns = np.array(targets)
  actual = with_context(split, context, window)[:, columns]
  outputs = expect_constants(
    outputs, preparation.scaler.is_constant[columns], config.model.variance_floor
  )
  errors = find_errors(actual, outputs, calibration.centre)
  prior = of_columns(calibration.prior, targets)
  if calibration.residual is not None:
    errors = with_density(errors, calibration.residual, prior)
  by_rule = {}
  for rule in ScoringRule:
    if rule is ScoringRule.DENSITY and errors.surprise is None:
      continue
    found = metric_scores(
      errors, calibration.errors, filled[:, columns], rule, config.detect, config.model.variance_floor, prior
    )
    on_grid = np.full(len(filled), np.nan)
    surprise = None if errors.surprise is None else errors.surprise[rows]
    on_grid[rows] = row_scores(found[rows], rows, rule, config.detect, step_s, surprise)
    by_rule[rule.value] = on_grid[here][split.row_to_grid]
    if rule is config.detect.rule:
      thresholds = row_thresholds(calibration.threshold, calibration.streaming, on_grid)
      chosen = np.where(valid[:, None], found, np.nan)[here][split.row_to_grid]
  score = by_rule[config.detect.rule.value]
  threshold = thresholds[here][split.row_to_grid]
  valid = valid[here][split.row_to_grid]

  def own_units(values: np.ndarray | None) -> np.ndarray:
    if values is None:
      return np.full((len(score), len(columns)), np.nan)
    exact = unscale(values.astype(np.float64), preparation.scaler, columns)
    return exact[here][split.row_to_grid]

  predicted = outputs.forecast if outputs.forecast is not None else outputs.reconstruction
  model = calibration.errors.forecast or calibration.errors.reconstruction
  if predicted is None or model is None:
    raise ValueError("neither forecast nor reconstruction; every run mode has one of them")
  centre = predicted + model.mean[None, :]
  half = BAND_DEVIATIONS * np.maximum(model.deviation, config.detect.error_floor)[None, :]
  with np.errstate(invalid="ignore"):
    is_anomaly = valid & (score > threshold)
  return ScoredRows(
    score=score,
    threshold=threshold,
    ratio=score / threshold,
    is_anomaly=is_anomaly,
    valid=valid,
    by_rule=by_rule,
    metric_scores=chosen,
    forecast=own_units(outputs.forecast),
    reconstruction=own_units(outputs.reconstruction),
    expected_low=own_units(centre - half),
    expected_high=own_units(centre + half),
    actual=own_units(actual),
  )


def score_machines(
  splits: Sequence[PreparedSplit],
  params: Any,
  targets: tuple[int, ...],
  preparations: Sequence[Preparation],
  calibrations: Sequence[MachineCalibration],
  config: Config,
  contexts: Sequence[PreparedSplit | None],
  track: Track = untracked,
) -> Iterator[ScoredRows]:
  """Yields the scores of machines of equal metrics, one after the other; the network runs for all at once.

  Args:
    params: stacked, [M, ...]. contexts: as `score_rows`, one a machine.
    track: watches the model's batches, then the machines.
  """
  series = [with_context(split, context, config.model.window_size) for split, context in zip(splits, contexts)]
  outputs = compute_row_outputs(params, series, config, len(targets), track)
  for i in track(range(len(splits)), "scoring"):
    yield score_rows(splits[i], outputs[i], targets, preparations[i], calibrations[i], config, contexts[i])
