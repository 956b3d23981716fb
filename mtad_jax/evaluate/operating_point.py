"""Recall at a fixed price: the true segments found where a fleet pays one false alarm a machine-day.

Alarms are counted as events, so a second price is needed: a score that is high half of every day would make one
event of that half, find every segment in it, and pay one false alarm. Hence the share of normal rows in alarm is
limited too.

In: labels and scores of every machine, on one scale (score / threshold). The threshold is chosen with the
labels: a figure for comparing detectors, not a setting.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mtad_jax.detect.events import find_events
from mtad_jax.evaluate.metrics import early_rows, event_scores

_GROWTH = 1.1  # the coarse search flags so many times more normal rows at each step


class Watched(NamedTuple):
  """One machine: labels [T] bool, scores [T] (NaN where a row has none), rows of a day."""

  labels: np.ndarray
  scores: np.ndarray
  rows_per_day: float


class OperatingPoint(NamedTuple):
  """threshold: on the scores. hits: per machine, [S] bool, its true segments with a valid row."""

  threshold: float
  false_alarms_per_day: float
  hits: tuple[np.ndarray, ...]


def find_operating_point(
  machines: Sequence[Watched],
  limit_per_day: float = 1.0,
  limit_share: float = 0.05,
  *,
  early_hit_rows: int = 0,
  delay_limit_rows: int = 0,
  merge_gap_rows: int = 0,
  min_event_rows: int = 1,
) -> OperatingPoint:
  """Returns the lowest threshold reached, from the top, before false alarms first exceed either limit.

  The rate is false-alarm events of all machines over their days together. It is not monotone in the
  threshold (alarms that grow together are one event), hence "first". Thresholds are the scores of normal
  rows, so that flagging every row is no candidate.

  Args:
    machines: at least one, scores on one scale.
    limit_per_day: false-alarm events a machine and day.
    limit_share: normal rows in alarm, of all normal rows of all machines, 0..1.
    early_hit_rows, delay_limit_rows, merge_gap_rows, min_event_rows: as `event_scores`.

  Raises:
    ValueError: no machine, or none with a normal row.
  """
  tolerance = {"early_hit_rows": early_hit_rows, "delay_limit_rows": delay_limit_rows}
  shape: dict[str, Any] = {"merge_gap_rows": merge_gap_rows, "min_event_rows": min_event_rows}
  watched = [(m, ~np.isnan(m.scores), early_rows(m.labels, early_hit_rows)) for m in machines]
  normal = [m.scores[valid & ~near] for m, valid, near in watched]
  falling, counts = np.unique(-np.concatenate(normal), return_counts=True) if normal else (np.zeros(0),) * 2
  if len(falling) == 0:
    raise ValueError("operating point: no normal row with a score; at least one is wanted")
  above = np.cumsum(counts) - counts  # normal rows above each candidate
  candidates = -falling[above <= limit_share * np.sum(counts)]
  days = sum(float(np.sum(valid)) / m.rows_per_day for m, valid, _ in watched)
  near_before = [np.concatenate([[0], np.cumsum(near)]) for _, _, near in watched]

  def rate(index: int) -> float:
    count = 0
    for (m, valid, _), before in zip(watched, near_before, strict=True):
      events = find_events(m.scores > candidates[index], valid, **shape)  # a NaN is above nothing
      count += int(np.sum(before[events[:, 1]] == before[events[:, 0]]))
    return count / days

  good, step = 0, 1.0
  bad = len(candidates)
  while good + 1 < bad:
    step = max(step * _GROWTH, 1.0)
    index = min(max(int(step), good + 1), len(candidates) - 1)
    if rate(index) > limit_per_day:
      bad = index
      break
    good = index
  while bad - good > 1:
    middle = (good + bad) // 2
    if rate(middle) > limit_per_day:
      bad = middle
    else:
      good = middle
  threshold = float(candidates[good])
  hits = tuple(
    event_scores(m.labels, m.scores > threshold, valid, **tolerance, **shape).hits for m, valid, _ in watched
  )
  return OperatingPoint(threshold, rate(good), hits)


def by_group(values: np.ndarray, kinds: Sequence[str], strengths: Sequence[str]) -> dict[str, Any]:
  """Returns means of `values` by kind, by strength and by both, each with its number of segments.

  Args:
    values: [S] numbers or bool, one a segment.
    kinds, strengths: [S] text; a segment without a kind is in no group.
  """
  groups: dict[str, dict[str, list[float]]] = {"by_kind": {}, "by_strength": {}, "by_kind_and_strength": {}}
  for value, kind, strength in zip(values, kinds, strengths, strict=True):
    if not kind:
      continue
    both = f"{kind}, {strength}" if strength else ""
    for name, key in (("by_kind", kind), ("by_strength", strength), ("by_kind_and_strength", both)):
      if key:
        groups[name].setdefault(key, []).append(float(value))
  return {
    name: {
      key: {"mean": float(np.mean(found)), "segments": len(found)} for key, found in sorted(group.items())
    }
    for name, group in groups.items()
  }
