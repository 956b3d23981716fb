"""The figures of one score on a set of machines: as a ranking, and at given alarm rows.

One machine is a set of one, so that per-machine and pooled figures are the same code. Missing figures are
NaN here and null in the JSON.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mtad_jax.config import DetectConfig, EvaluateConfig
from mtad_jax.evaluate import metrics, segment_metrics
from mtad_jax.evaluate.range_scores import RangeScores, harmonic, range_scores
from mtad_jax.evaluate.segments import Rows, point_adjust, pool, rows_of
from mtad_jax.evaluate.volume import volume


class Flagged(NamedTuple):
  """One machine's alarm rows: labels, flagged, valid [T] bool; rows of a day or None."""

  labels: np.ndarray
  flagged: np.ndarray
  valid: np.ndarray
  rows_per_day: float | None


def ranking_figures(rows: Rows) -> dict[str, Any]:
  """Returns the figures that need no threshold, and the oracles, whose threshold the labels choose.

  Args:
    rows: valid rows of one machine or pooled.
  """
  adjusted = point_adjust(rows)
  return {
    "average_precision": metrics.average_precision(rows.labels, rows.scores),
    "oracle": metrics.best_f1(rows.labels, rows.scores)._asdict(),
    "auc_roc": segment_metrics.auc_roc(rows),
    "composite_f1_oracle": segment_metrics.best_composite_f1(rows),
    "pa_k_area_oracle": segment_metrics.pa_k_area(rows),
    "point_adjusted_oracle": metrics.best_f1(adjusted.labels, adjusted.scores)._asdict(),
  }


def series_figures(rows: Rows, settings: EvaluateConfig) -> dict[str, Any]:
  """Returns the figures that need rows next to one another: of one machine, never pooled."""
  return volume(rows.labels, rows.scores, settings.vus_buffer_rows)._asdict()


def _mean(values: Sequence[np.ndarray]) -> float:
  """Returns the mean of what is no NaN in all arrays together; NaN where there is nothing."""
  joined = np.concatenate(values)
  joined = joined[~np.isnan(joined)]
  return float(np.mean(joined)) if len(joined) else float("nan")


def _range_figures(found: Sequence[RangeScores]) -> dict[str, float]:
  means = {name: _mean([getattr(one, name) for one in found]) for name in RangeScores._fields}
  return {
    **means,
    "range_f1": harmonic(means["range_precision"], means["range_recall"]),
    "affiliation_f1": harmonic(means["affiliation_precision"], means["affiliation_recall"]),
  }


def threshold_figures(
  parts: Sequence[Flagged], settings: EvaluateConfig, detect: DetectConfig
) -> dict[str, Any]:
  """Returns the figures of given alarm rows: point-wise, point-adjusted and by event.

  Args:
    parts: at least one machine; more are pooled: rows and segments count once each.
    settings: early_hit_rows and delay_limit_rows are read.
    detect: merge_gap_rows and min_event_rows are read.
  """
  rows = pool([rows_of(p.labels, p.flagged.astype(np.float64), p.valid) for p in parts])
  plain = metrics.point_scores(rows.labels, rows.scores > 0)
  adjusted = metrics.point_scores(rows.labels, point_adjust(rows).scores > 0)
  found = [
    metrics.event_scores(
      p.labels, p.flagged, p.valid,
      early_hit_rows=settings.early_hit_rows, delay_limit_rows=settings.delay_limit_rows,
      merge_gap_rows=detect.merge_gap_rows, min_event_rows=detect.min_event_rows,
    )
    for p in parts
  ]  # fmt: skip
  hits = np.concatenate([f.hits for f in found])
  delays = np.concatenate([f.delays for f in found])[hits]
  num_false = sum(f.num_false_events for f in found)
  num_rows = sum(f.num_rows for f in found)
  # one machine without a clock leaves the whole without one
  days = sum(f.num_rows / p.rows_per_day if p.rows_per_day else np.nan for f, p in zip(found, parts))
  nan = float("nan")
  return {
    "f1": plain.f1,
    "precision": plain.precision,
    "recall": plain.recall,
    "point_adjusted_f1": adjusted.f1,
    **_range_figures([range_scores(p.labels[p.valid], p.flagged[p.valid]) for p in parts]),
    "flagged_share": float(np.mean(rows.scores > 0)) if num_rows else nan,
    "segments": len(hits),
    "segments_detected": int(np.sum(hits)),
    "event_recall": float(np.mean(hits)) if len(hits) else nan,
    "delay_rows_mean": float(np.mean(delays)) if len(delays) else nan,
    "delay_rows_median": float(np.median(delays)) if len(delays) else nan,
    "false_alarm_events": num_false,
    "false_alarms_per_1000_rows": 1000 * num_false / num_rows if num_rows else nan,
    "false_alarms_per_day": num_false / days if days else nan,
    "alarms_per_week": 7 * sum(f.num_events for f in found) / days if days else nan,
  }


def flag_as_many(scores: np.ndarray, valid: np.ndarray, num_rows: int) -> np.ndarray:
  """Returns [T] bool: the `num_rows` valid rows with the largest scores, as a floor's alarms.

  Rows that tie with the first one left out are not flagged either; where that would leave none, all rows
  with the largest score are flagged (a constant score flags every row or none).

  Args:
    scores: [T].
    valid: [T] bool.
    num_rows: alarm rows of the detector.
  """
  ranked = np.sort(scores[valid])[::-1]
  if num_rows == 0 or len(ranked) == 0:
    return np.zeros(len(scores), bool)
  if num_rows >= len(ranked):
    return np.array(valid)
  flagged = valid & (scores > ranked[num_rows])
  return flagged if np.any(flagged) else valid & (scores == ranked[0])


def mean_of(trees: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Returns the leaf-wise mean of dicts of figures; a missing figure is left out of its leaf's mean.

  Where a leaf or a branch is missing for some, `machines_with` beside it says how many had it.

  Args:
    trees: dicts, nested alike; leaves are numbers.
  """
  result: dict[str, Any] = {}
  partial: dict[str, int] = {}
  for key in dict.fromkeys(key for tree in trees for key in tree):
    if key == "threshold":  # thresholds of different machines have no common scale
      continue
    values = [tree[key] for tree in trees if key in tree]
    if isinstance(values[0], dict):
      result[key], num_present = mean_of(values), len(values)
    else:
      present = [value for value in values if not np.isnan(value)]
      result[key], num_present = float(np.mean(present)) if present else float("nan"), len(present)
    if num_present < len(trees):
      partial[key] = num_present
  if partial:
    result["machines_with"] = partial
  return result
