"""A machine's threshold of the kind that the settings ask for, and the threshold of each of its rows.

`pot` and `conformal` give one number; `spot` and `dspot` begin with POT's, at calibration, and follow the scores.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtad_jax.config import DetectConfig
from mtad_jax.config_limits import SENSITIVITIES
from mtad_jax.detect import spot
from mtad_jax.detect.conformal import fit_conformal
from mtad_jax.detect.pot import PotFit, fit_pot, rate_of_alarms

SMALLEST_THRESHOLD = 1e-9  # a threshold of 0 (all calibration scores 0) would make the ratio meaningless
WEEK_S = 7 * 86_400.0
STREAMS = ("spot", "dspot")


class Rate(NamedTuple):
  """Promised alarms of a machine in a week, 0: by `pot_q`; and the setting that asks for them."""

  alarms_per_week: float
  asked_by: str


def critical_rate(settings: DetectConfig) -> Rate:
  """Returns what the threshold of critical events, or the only one, must keep."""
  if settings.sensitivity == "given":
    return Rate(settings.alarms_per_week, "alarms_per_week")
  return Rate(settings.critical_alarms_per_week[SENSITIVITIES.index(settings.sensitivity)], "sensitivity")


def warning_rate(settings: DetectConfig) -> Rate | None:
  """Returns what the threshold of warnings must keep; None where there is none."""
  if settings.warning == "off":
    return None
  return Rate(settings.warning_alarms_per_week[SENSITIVITIES.index(settings.warning)], "warning")


class Streaming(NamedTuple):
  """A threshold that follows the scores: its state after calibration, and what it was made with."""

  start: spot.Stream
  settings: spot.StreamSettings


class FittedThreshold(NamedTuple):
  """What is known of the fit, the threshold of the row after calibration, and how it goes on; None where it stays."""

  pot: PotFit
  value: float
  streaming: Streaming | None


def _rows(minutes: int, step_s: float | None) -> int:
  """Returns the rows of so many minutes, at least 1; without a clock, a row is taken for a minute."""
  return max(1, round(60 * minutes / (step_s or 60.0)))


def _level_rows(settings: DetectConfig, step_s: float | None) -> int:
  return _rows(settings.level_minutes, step_s) if settings.threshold == "dspot" else 0


def fit_threshold(
  name: str,
  own: np.ndarray,
  series: Sequence[np.ndarray],
  step_s: float | None,
  settings: DetectConfig,
  run_rows: int,
  rate: Rate,
) -> FittedThreshold:
  """Returns the threshold that keeps the rate of alarms, or `pot_q` where none is asked for.

  Args:
    name: of the machine. own: [N] its calibration scores in the order of time, from which its level goes on.
    series: the scores that are fitted on: its own, or those of all machines that it is pooled with.
    run_rows: quiet rows that two alarms have more of between them. rate: `critical_rate` or `warning_rate`.

  Raises:
    ValueError: no threshold can be had, or a number of alarms a week is asked for and the data have no clock.
  """
  rows_per_week = WEEK_S / step_s if step_s else None
  level_rows = _level_rows(settings, step_s)
  normal = spot.departures(series, level_rows) if level_rows else np.concatenate(series)
  q = settings.pot_q
  if rate.alarms_per_week > 0:
    if rows_per_week is None:
      raise ValueError(
        f"machine {name}: config.detect.{rate.asked_by} needs a clock: timestamps or config.data.sampling_step_s"
      )
    q = rate_of_alarms(normal, settings.initial_quantile, rate.alarms_per_week / rows_per_week, run_rows)
  fit = fit_conformal if settings.threshold == "conformal" else fit_pot
  pot = fit(
    normal, initial_quantile=settings.initial_quantile, q=q, rows_per_week=rows_per_week, run_rows=run_rows
  )
  if not np.isfinite(pot.threshold):
    raise ValueError(f"machine {name}: no threshold from {len(normal)} calibration rows: {pot.status}")
  if settings.threshold not in STREAMS:
    return FittedThreshold(pot, max(pot.threshold, SMALLEST_THRESHOLD), None)
  # a machine without a row of its own begins at the level that those it is pooled with end at
  ends = [spot.levels(scores, level_rows)[2] for scores in ([own] if len(own) else series) if len(scores)]
  level = float(np.mean(ends))
  shifted = {field: getattr(pot, field) + level for field in ("initial", "threshold", "low", "high")}
  pot = pot._replace(**shifted)
  if pot.method == "empirical quantile":  # a stream keeps the tail alone
    status = pot.status.replace("the empirical quantile", "where the tail begins")
    pot = pot._replace(threshold=pot.initial, method="initial quantile", status=status)
  floor = max(float(np.quantile(np.concatenate(series), settings.initial_quantile)), SMALLEST_THRESHOLD)
  stream_settings = spot.StreamSettings(q, level_rows, _rows(settings.learn_minutes, step_s), floor)
  start = spot.start(normal, level, settings.initial_quantile)
  streaming = Streaming(start, stream_settings)
  return FittedThreshold(pot, spot.next_threshold(start, stream_settings), streaming)


def row_thresholds(value: float, streaming: Streaming | None, scores: np.ndarray) -> np.ndarray:
  """Returns the thresholds [T] of rows that come after calibration; a stream begins at its start at every call.

  Args:
    value: the threshold after calibration. scores: [T] in the order of time, NaN where a row has none.
  """
  if streaming is None:
    return np.full(len(scores), value)
  return spot.run(streaming.start, scores, streaming.settings)[1]


def calibration_thresholds(value: float, streaming: Streaming | None, scores: np.ndarray) -> np.ndarray:
  """Returns the thresholds [N] that the calibration rows have under the fit: at the level before each of them.

  Args:
    scores: [N] the machine's own, that the fit was made on.
  """
  if streaming is None:
    return np.full(len(scores), value)
  found, _, _ = spot.levels(scores, streaming.settings.level_rows)
  return np.maximum(found + (value - streaming.start.level), streaming.settings.floor)
