"""Segments by kind and strength, and how often their named causes are right, over a fleet.

Both use the labels: segments are the true ones. Kinds and strengths exist for simulated faults only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtad_jax.data.machine import Interpretation
from mtad_jax.evaluate import root_cause
from mtad_jax.evaluate.operating_point import by_group
from mtad_jax.evaluate.scored import ScoredMachine
from mtad_jax.evaluate.segments import segments_of


def _scored_segments(machine: ScoredMachine) -> list[int]:
  """Returns the numbers of the true segments with a valid row, as `event_scores` counts them."""
  valid = ~np.isnan(machine.scores)
  segments = segments_of(np.asarray(machine.labels, bool))
  return [index for index, (start, end) in enumerate(segments) if np.any(valid[start:end])]


def _truths(machine: ScoredMachine) -> list[Interpretation | None]:
  """Returns the interpretation of each true segment, or None."""
  spans = [(item.start, item.end) for item in machine.interpretation]
  matches = root_cause.match_segments(segments_of(np.asarray(machine.labels, bool)), spans)
  return [None if match is None else machine.interpretation[match] for match in matches]


def grouped_recall(machines: Sequence[ScoredMachine], hits: Sequence[np.ndarray]) -> dict[str, Any]:
  """Returns the segment recall, in all and by kind and strength.

  Args:
    machines: labelled.
    hits: per machine, [S] bool, its true segments with a valid row.
  """
  found = [_truths(m)[index] for m in machines for index in _scored_segments(m)]
  values = np.concatenate(hits) if hits else np.zeros(0, bool)
  kinds = ["" if item is None else item.kind for item in found]
  strengths = ["" if item is None else item.strength for item in found]
  recall = float(np.mean(values)) if len(values) else float("nan")
  return {"recall": recall, "segments": len(values), **by_group(values, kinds, strengths)}


def cause_figures(machines: Sequence[ScoredMachine], hits: Sequence[np.ndarray]) -> dict[str, Any] | None:
  """Returns how often causes are right over all true segments with known metrics, or None without any.

  Args:
    machines: labelled.
    hits: per machine, [S] bool, the segments detected at the POT threshold.

  Raises:
    ValueError: a machine has interpretations but another number of rankings than true segments.
  """
  rows, kinds, strengths = [], [], []
  for machine, detected in zip(machines, hits, strict=True):
    truths = _truths(machine)
    if not any(item is not None and item.metrics for item in truths):
      continue
    if len(machine.cause_ranking) != len(truths):
      raise ValueError(
        f"{machine.name}: {len(machine.cause_ranking)} cause rankings for {len(truths)} true segments; "
        "one each is wanted"
      )
    for index, is_hit in zip(_scored_segments(machine), detected, strict=True):
      truth, ranking = truths[index], machine.cause_ranking[index]
      if truth is None or not truth.metrics:
        continue
      named, count = ranking or (), len(truth.metrics)
      rows.append(
        {
          "is_detected": float(is_hit),
          "first_named_right": float(root_cause.first_named_right(named, truth.metrics)),
          "first_named_right_random": min(count / machine.num_metrics, 1.0),  # a true metric may be input only
          "hit_rate_100": root_cause.hit_rate(named, truth.metrics, 100),
          "hit_rate_100_random": root_cause.random_hit_rate(count, machine.num_metrics, 100),
          "hit_rate_150": root_cause.hit_rate(named, truth.metrics, 150),
          "hit_rate_150_random": root_cause.random_hit_rate(count, machine.num_metrics, 150),
          "ndcg_100": root_cause.ndcg(named, truth.metrics, 100),
        }
      )
      kinds.append(truth.kind)
      strengths.append(truth.strength)
  if not rows:
    return None

  def mean(chosen: list[dict[str, float]]) -> dict[str, Any]:
    names = [name for name in rows[0] if name != "is_detected"]
    figures = {
      name: float(np.mean([row[name] for row in chosen])) if chosen else float("nan") for name in names
    }
    return {"segments": len(chosen), **figures}

  right = np.array([row["first_named_right"] for row in rows])
  is_detected = np.array([row["is_detected"] for row in rows], bool)
  detected_rows = [row for row in rows if row["is_detected"]]
  chosen = np.flatnonzero(is_detected)
  return {
    "all_true_segments": {**mean(rows), "first_named_right_groups": by_group(right, kinds, strengths)},
    "detected_segments": {
      **mean(detected_rows),
      "first_named_right_groups": by_group(
        right[chosen], [kinds[i] for i in chosen], [strengths[i] for i in chosen]
      ),
    },
  }
