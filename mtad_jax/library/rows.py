"""What a detector says of rows: one finite figure a row, and the events with their causes.

In: a `Judged` machine, whose scores are NaN where a row has no window. Out: `RowScores` and `Explanation`s.
"""

from typing import NamedTuple

import numpy as np

from mtad_jax.config import Config
from mtad_jax.detect.events import Event
from mtad_jax.detect.score_run import Judged
from mtad_jax.explain.attention_change import Changes
from mtad_jax.explain.event_list import list_events, near_events
from mtad_jax.library.score_tables import find_attention_changes, find_causes

_OF_ROWS = ("metric_scores", "forecast", "reconstruction", "expected_low", "expected_high", "actual")


class RowScores(NamedTuple):
  """One machine's rows; [T] each.

  score: finite in every row; where `valid` is false, that of the last row before that has one, and before the first
  such row, the first's. threshold: of the row. ratio: score / threshold. is_anomaly: bool, whether the score is above
  the threshold; false where `valid` is. valid: bool, whether the row has a window, and so a score of its own.
  """

  score: np.ndarray
  threshold: np.ndarray
  ratio: np.ndarray
  is_anomaly: np.ndarray
  valid: np.ndarray


class Explanation(NamedTuple):
  """An event and what its metrics did.

  event: as events.parquet has it: rows, times, severity, peak, level, contributors that sum to 1.
  cause_set: the fewest metrics that make its strongest row unusual under its role's mixture; None where a network
    scored it.
  attention_change: (metric, change) pairs as in events.parquet; None of a model without any. model: as there.
  metrics: F' names. rows: [R] of the event and a margin, those with a score.
  metric_scores, forecast, reconstruction, expected_low, expected_high, actual: [R, F'], as in metric_scores.parquet.
  """

  event: Event
  cause_set: list[str] | None
  attention_change: Changes | None
  model: str
  metrics: tuple[str, ...]
  rows: np.ndarray
  metric_scores: np.ndarray
  forecast: np.ndarray
  reconstruction: np.ndarray
  expected_low: np.ndarray
  expected_high: np.ndarray
  actual: np.ndarray


def complete(
  score: np.ndarray, threshold: np.ndarray, is_anomaly: np.ndarray, valid: np.ndarray, told: str
) -> RowScores:
  """Returns the rows with a score in each.

  Args:
    score: [T], NaN where `valid` is false. threshold, is_anomaly, valid: [T]. told: why no row may have one, for the
      message.

  Raises:
    ValueError: no row has a score.
  """
  if not valid.any():
    raise ValueError(told)
  rows = np.where(valid, np.arange(len(score)), int(np.argmax(valid)))
  full = np.where(np.isfinite(score), score, 0.0)[np.maximum.accumulate(rows)]
  return RowScores(full, threshold, full / threshold, is_anomaly & valid, valid)


def row_scores(judged: Judged, window_size: int) -> RowScores:
  """Returns one machine's rows; raises ValueError where none of them has a window."""
  scored, name = judged.scored, judged.machine.name
  told = (
    f"X, machine {name}: none of {len(scored.score)} rows has a score; it takes a window of {window_size} rows and"
    f" the row after, so at least {window_size + 1} rows, at most half of them missing"
  )
  return complete(scored.score, scored.threshold, scored.is_anomaly, scored.valid, told)


def probabilities(rows: RowScores) -> np.ndarray:
  """Returns [T, 2]: r / (1 + r) in the second column, r = score / threshold, and what is left to 1 in the first.

  It is .5 at the threshold and .9 at nine times it: a monotone map of the score to 0..1 and no share of anything. A
  row without a window has .5 at most, as it is no alarm; so has a score below 0.
  """
  ratio = np.maximum(rows.ratio, 0.0)
  second = ratio / (1.0 + ratio)
  second = np.where(rows.valid, second, np.minimum(second, 0.5))
  return np.stack([1.0 - second, second], axis=1)


def explain_rows(judged: Judged, metrics: tuple[str, ...], config: Config) -> list[Explanation]:
  """Returns one machine's events in order, explained; metrics: the F' scored ones' names."""
  scored, machine = judged.scored, judged.machine
  events = list_events(machine.name, scored, judged.calibration, metrics, machine.test.timestamps, config.detect)
  changes = find_attention_changes(judged, events, len(metrics), config) if events else None
  found = []
  for i, event in enumerate(events):
    near = near_events([event], len(scored.score), config.detect.event_margin_rows)
    rows = np.flatnonzero(near & scored.valid)
    fields = [getattr(scored, name)[rows] for name in _OF_ROWS]
    changed = None if changes is None else changes[i]
    causes = find_causes(judged, event, metrics)
    found.append(Explanation(event, causes, changed, judged.model, metrics, rows, *fields))
  return found
