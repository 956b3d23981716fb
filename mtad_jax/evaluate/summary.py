"""The whole evaluation of a fleet as one dict, the content of evaluation.json.

In: labels, scores, thresholds and floors of every machine, as arrays. Out: figures per machine, their mean
over named machines, and pooled, each beside its floors on the same rows, and what was chosen with labels.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtad_jax.config import DetectConfig, EvaluateConfig
from mtad_jax.data.track import Track, untracked
from mtad_jax.evaluate import operating_point
from mtad_jax.evaluate.causes import cause_figures, grouped_recall
from mtad_jax.evaluate.figures import (
  Flagged,
  flag_as_many,
  mean_of,
  ranking_figures,
  series_figures,
  threshold_figures,
)
from mtad_jax.evaluate.metrics import event_scores
from mtad_jax.evaluate.scored import ScoredMachine
from mtad_jax.evaluate.segments import Rows, pool, rows_of, segments_of

SCHEMA_VERSION = 1
ROWS_PER_DAY = 1440.0  # one row a minute, where the data have no clock; said beside the figure
_LIMIT_PER_DAY = 1.0
_LIMIT_SHARE = 0.05  # of normal rows, in alarm
NOTES = {
  "rows": "valid rows only: rows without a full window have no score and are in no figure, nor in a floor's",
  "threshold": "an alarm is a score strictly above the threshold of its row; at_threshold uses no label; pot is the "
  "run's own threshold, of the kind that config.detect.threshold names",
  "floors": "at_threshold, a floor flags as many rows of each machine as the detector does",
  "point_adjusted": "point_adjusted (printed because papers print them; random scores win)",
  "false_alarms": "events that touch no true segment; one long event can touch many, see flagged_share",
  "volumes": "vus_pr and vus_roc (TSB-AD's family) are of one machine's rows or the mean of machines, never pooled",
  "ranges": "range-based (flat bias; alpha 0 for precision, 0.2 for recall) and affiliation figures are of alarms",
  "mean": "mean over the machines named; machines without an anomaly are left out and listed",
}
PEEKED = {
  "oracle": "its threshold is chosen with the test labels",
  "point_adjusted_oracle": "its threshold is chosen with the test labels",
  "composite_f1_oracle": "its threshold is chosen with the test labels",
  "pa_k_area_oracle": "its threshold is chosen with the test labels, for each K",
  "operating_point": "its threshold is chosen with the test labels",
  "root_cause": "ranked within true segments, which the labels give",
}


def _valid(machine: ScoredMachine) -> np.ndarray:
  return ~np.isnan(machine.scores)


def _labels(machine: ScoredMachine) -> np.ndarray:
  if machine.labels is None:
    raise ValueError(f"{machine.name}: no labels; it cannot be evaluated")
  return np.asarray(machine.labels, bool)


def _check(machine: ScoredMachine) -> None:
  num_rows = len(machine.scores)
  named = {**machine.other_scores, **machine.baselines}
  if machine.labels is not None and len(machine.labels) != num_rows:
    raise ValueError(
      f"{machine.name}: {len(machine.labels)} labels for {num_rows} scores; one a row is wanted"
    )
  for name, scores in named.items():
    if len(scores) != num_rows:
      raise ValueError(
        f"{machine.name}: {len(scores)} rows of {name} for {num_rows} scores; one a row is wanted"
      )
    missing = _valid(machine) & np.isnan(scores)
    if np.any(missing):
      raise ValueError(f"{machine.name}: {name} is NaN in row {int(np.argmax(missing))}, which has a score")


def _rows(machine: ScoredMachine, scores: np.ndarray) -> Rows:
  return rows_of(_labels(machine), scores, _valid(machine))


def _flagged(machine: ScoredMachine, flagged: np.ndarray) -> Flagged:
  return Flagged(_labels(machine), flagged & _valid(machine), _valid(machine), machine.rows_per_day)


def _alarms(machine: ScoredMachine, threshold_name: str, floor: str | None = None) -> Flagged:
  alarms = machine.scores > machine.thresholds[threshold_name]  # false where the score is NaN
  if floor is not None:
    alarms = flag_as_many(machine.baselines[floor], _valid(machine), int(np.sum(alarms)))
  return _flagged(machine, alarms)


def _block(
  machines: Sequence[ScoredMachine],
  settings: EvaluateConfig,
  detect: DetectConfig,
  scores: Sequence[np.ndarray],
) -> dict[str, Any]:
  """Returns detector, other scores and floors on the rows of these machines; `scores` rank the detector's."""
  first = machines[0]
  # a threshold that some machine lacks would give a figure on other rows than its neighbours
  names = [n for n in first.thresholds if all(np.all(np.isfinite(m.thresholds[n])) for m in machines)]

  def ranked(columns: Sequence[np.ndarray]) -> dict[str, Any]:
    rows = pool([_rows(m, column) for m, column in zip(machines, columns, strict=True)])
    return {**ranking_figures(rows), **(series_figures(rows, settings) if len(machines) == 1 else {})}

  def at(name: str, floor: str | None = None) -> dict[str, Any]:
    return threshold_figures([_alarms(m, name, floor) for m in machines], settings, detect)

  return {
    "detector": {**ranked(scores), "at_threshold": {name: at(name) for name in names}},
    "other_scores": {name: ranked([m.other_scores[name] for m in machines]) for name in first.other_scores},
    "floors": {
      floor: {
        **ranked([m.baselines[floor] for m in machines]),
        "at_threshold": {name: at(name, floor) for name in names},
      }
      for floor in first.baselines
    },
  }


def _with_best_floor(block: dict[str, Any]) -> dict[str, Any]:
  floors = {name: figures["average_precision"] for name, figures in block["floors"].items()}
  if floors:
    best = max(floors, key=lambda name: floors[name])
    own = block["detector"]["average_precision"]
    block["best_floor"] = {
      "name": best,
      "average_precision": floors[best],
      "detector_over_floor": own / floors[best] if floors[best] > 0 else float("nan"),
    }
  return block


def _told(values: float | np.ndarray) -> float | dict[str, float]:
  """Returns a threshold for the JSON: the number, or of one that changes from row to row its range."""
  if not isinstance(values, np.ndarray):
    return values
  return {"lowest": float(np.min(values)), "median": float(np.median(values)), "highest": float(np.max(values))}


def _machine_entry(machine: ScoredMachine, settings: EvaluateConfig, detect: DetectConfig) -> dict[str, Any]:
  labels, valid = _labels(machine), _valid(machine)
  segments = segments_of(labels)
  return {
    "role": machine.role,
    "rows": len(labels),
    "valid_rows": int(np.sum(valid)),
    "anomalous_rows": int(np.sum(labels & valid)),
    "segments": len(segments),
    "segments_without_a_score": int(sum(not np.any(valid[start:end]) for start, end in segments)),
    "thresholds": {name: _told(values) for name, values in machine.thresholds.items()},
    **_with_best_floor(_block([machine], settings, detect, [machine.scores])),
  }


def _has_ratio(machine: ScoredMachine) -> bool:
  threshold = np.asarray(machine.thresholds.get("pot", float("nan")))
  return bool(np.all(np.isfinite(threshold) & (threshold > 0)))


def _operating_point(
  machines: Sequence[ScoredMachine],
  scores: Sequence[np.ndarray],
  settings: EvaluateConfig,
  detect: DetectConfig,
) -> dict[str, Any]:
  watched = [
    operating_point.Watched(_labels(m), np.where(_valid(m), column, np.nan), m.rows_per_day or ROWS_PER_DAY)
    for m, column in zip(machines, scores, strict=True)
  ]
  point = operating_point.find_operating_point(
    watched,
    _LIMIT_PER_DAY,
    _LIMIT_SHARE,
    early_hit_rows=settings.early_hit_rows,
    delay_limit_rows=settings.delay_limit_rows,
    merge_gap_rows=detect.merge_gap_rows,
    min_event_rows=detect.min_event_rows,
  )
  return {
    "threshold": point.threshold,
    "false_alarms_per_day": point.false_alarms_per_day,
    **grouped_recall(machines, point.hits),
  }


def _detected(machine: ScoredMachine, settings: EvaluateConfig, detect: DetectConfig) -> np.ndarray:
  alarms = _alarms(machine, "pot")
  return event_scores(
    alarms.labels,
    alarms.flagged,
    alarms.valid,
    early_hit_rows=settings.early_hit_rows,
    delay_limit_rows=settings.delay_limit_rows,
    merge_gap_rows=detect.merge_gap_rows,
    min_event_rows=detect.min_event_rows,
  ).hits


def to_json(value: Any) -> Any:
  """Returns the value with NumPy numbers as Python's and NaN and infinity as None, at any depth."""
  if isinstance(value, dict):
    return {key: to_json(inner) for key, inner in value.items()}
  if isinstance(value, (list, tuple)):
    return [to_json(inner) for inner in value]
  if isinstance(value, np.generic):
    value = value.item()
  return None if isinstance(value, float) and not math.isfinite(value) else value


def evaluate_fleet(
  machines: Sequence[ScoredMachine],
  settings: EvaluateConfig,
  detect_settings: DetectConfig,
  track: Track = untracked,
) -> dict[str, Any]:
  """Returns the content of evaluation.json: settings, notes, machines, mean, pooled, operating point, causes.

  Pooled figures rank rows by score / POT threshold, over the machines that have a positive one (the others
  are listed); where none has, by raw score, which is said. Floors are pooled by their own scores.

  Args:
    machines: with the same names in thresholds, other_scores and baselines.
    settings: tolerances.
    detect_settings: how alarm rows become events.
    track: watches the machines' figures, then the floors over all of them.

  Raises:
    ValueError: no machine with labels, columns of different lengths, or a missing score in a valid row.
  """
  for machine in machines:
    _check(machine)
  labelled = [m for m in machines if m.labels is not None and np.any(_valid(m))]
  if not labelled:
    raise ValueError("evaluation: no machine has labels and a scored row; at least one is wanted")
  left_out = {m.name: "no labels" if m.labels is None else "no scored row" for m in machines}
  for machine in labelled:
    del left_out[machine.name]
  entries = {m.name: _machine_entry(m, settings, detect_settings) for m in track(labelled, "figures")}
  averaged = [m for m in labelled if entries[m.name]["anomalous_rows"]]
  without_anomaly = [m.name for m in labelled if not entries[m.name]["anomalous_rows"]]

  pooled_machines = [m for m in labelled if _has_ratio(m)]
  by = "score / POT threshold" if pooled_machines else "raw score: no machine has a positive POT threshold"
  pooled_machines = pooled_machines or labelled
  # where thresholds change from row to row, each row by its own
  ratios = [m.scores / m.thresholds["pot"] if _has_ratio(m) else m.scores for m in pooled_machines]
  point = {"detector": _operating_point(pooled_machines, ratios, settings, detect_settings)}
  for floor in track(labelled[0].baselines, "operating points"):
    columns = [m.baselines[floor] for m in pooled_machines]
    point[floor] = _operating_point(pooled_machines, columns, settings, detect_settings)

  mean: dict[str, Any] = {"machines": [m.name for m in averaged], "left_out": left_out}
  mean["without_an_anomaly"] = without_anomaly
  if averaged:
    parts = ("detector", "other_scores", "floors")
    common = [{key: entries[m.name][key] for key in parts} for m in averaged]
    mean.update(_with_best_floor(mean_of(common)))
  pooled_block = _block(pooled_machines, settings, detect_settings, ratios)
  result = {
    "schema_version": SCHEMA_VERSION,
    "tolerances": {
      "early_hit_rows": settings.early_hit_rows,
      "delay_limit_rows": settings.delay_limit_rows,
      "merge_gap_rows": detect_settings.merge_gap_rows,
      "min_event_rows": detect_settings.min_event_rows,
    },
    "notes": NOTES,
    "peeked": PEEKED,
    "machines": entries,
    "mean": mean,
    "pooled": {
      "machines": [m.name for m in pooled_machines],
      "left_out": [m.name for m in labelled if m not in pooled_machines],
      "by": by,
      **_with_best_floor(pooled_block),
    },
    "operating_point": {
      "limit": f"{_LIMIT_PER_DAY:g} false-alarm event a machine and day, {_LIMIT_SHARE:.0%} of normal rows in "
      "alarm, threshold chosen with the labels",
      "assumed_rows_per_day": {m.name: ROWS_PER_DAY for m in pooled_machines if not m.rows_per_day},
      "by": by,
      **point,
    },
    "root_cause": cause_figures(labelled, [_detected(m, settings, detect_settings) for m in labelled]),
  }
  return to_json(result)
