"""Thresholds refitted from annotations: the smallest factor on what POT promised that silences the false alarms.

In: scores, the thresholds that calibration.json has, and the verdicts that hold on those rows. Out: per machine a
threshold, or why it has none of its own. No marked true event is lost on these rows: each candidate is tried on the
scores by the rule that makes events, and counted. The weights are never touched.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtad_jax.alerts.ranges import Range
from mtad_jax.alerts.records import Annotation
from mtad_jax.config import DetectConfig
from mtad_jax.detect.events import find_events
from mtad_jax.evaluate.inputs import ScoreTable

MIN_ANNOTATIONS = 5  # true and false ranges, below which a machine is refitted with the like of its role
MARGIN = 1e-4  # relative; a row scored in another batch or on another device agrees to a tenth of this
_SMALLEST = 1e-9  # of a threshold, as in the calibration


class Evidence(NamedTuple):
  """One machine's scores [T] (NaN: none) and the annotated rows in them, [N, 2] each, end exclusive.

  promised: POT's threshold. now: the one in force. floor: the lowest that may come out. num_outside: annotated ranges
  that these scores do not have.
  """

  machine: str
  role: str
  scores: np.ndarray
  promised: float
  now: float
  floor: float
  true: np.ndarray
  false: np.ndarray
  num_outside: int


class Refit(NamedTuple):
  """A machine's threshold and what it does on the same rows. basis: whose annotations; or why nothing was fitted.

  threshold: None where nothing was fitted. factor: threshold / promised. Of annotated ranges: raised now, and then.
  num_events_now, num_events_then: all events on these rows, annotated or not.
  """

  machine: str
  role: str
  basis: str
  promised: float
  now: float
  threshold: float | None
  factor: float | None
  num_true_now: int
  num_true_then: int
  num_false_now: int
  num_false_then: int
  num_events_now: int
  num_events_then: int


def raised_events(scores: np.ndarray, threshold: float, settings: DetectConfig) -> np.ndarray:
  """Returns the events [E, 2] that scores [T] make at a threshold, as scoring makes critical ones."""
  valid = ~np.isnan(scores)
  with np.errstate(invalid="ignore"):
    return find_events(
      scores > threshold,
      valid,
      merge_gap_rows=settings.merge_gap_rows,
      min_event_rows=settings.min_event_rows,
      is_held=scores > settings.release_ratio * threshold,
      alarm_checks=settings.alarm_checks,
      alarm_window_checks=settings.alarm_window_checks,
      cooldown_rows=settings.cooldown_rows,
    )


def gather_evidence(
  tables: Mapping[str, ScoreTable],
  series: str,
  annotations: Sequence[Annotation],
  calibration: Mapping[str, Any],
  roles: Mapping[str, str],
  *,
  may_lower: bool,
) -> list[Evidence]:
  """Returns what each scored machine has to be refitted by.

  A threshold that was refitted before may come down again as far as POT's, but only where every annotation of the
  machine can be seen in these scores; else the one in force is the floor.

  Args:
    annotations: those that hold, see `verdicts.standing`. calibration: calibration.json's content.
    may_lower: below what POT promised, too.
  """
  found = []
  for machine, table in tables.items():
    entry = calibration["machines"][machine]
    rows: dict[str, list[tuple[int, int]]] = {"true": [], "false": []}
    num_outside = 0
    for annotation in annotations:
      if annotation.range.machine != machine or annotation.verdict not in rows:
        continue
      place = _rows_of(annotation.range, series, table)
      if place is None:
        num_outside += 1
      else:
        rows[annotation.verdict].append(place)
    promised, now = max(entry["pot"]["threshold"], _SMALLEST), entry["threshold"]
    floor = 0.0 if may_lower else promised
    found.append(
      Evidence(
        machine,
        roles[machine],
        table.scores,
        promised,
        now,
        max(floor, now) if num_outside else floor,
        np.array(rows["true"], np.int64).reshape(-1, 2),
        np.array(rows["false"], np.int64).reshape(-1, 2),
        num_outside,
      )
    )
  return found


def _rows_of(found: Range, series: str, table: ScoreTable) -> tuple[int, int] | None:
  """Returns the range's rows in a table of scores; None where it has none of them, or none with a score."""
  if found.start_ms is not None and found.end_ms is not None and table.timestamps is not None:
    ms = table.timestamps.astype("datetime64[ms]").astype(np.int64)
    inside = np.flatnonzero((ms >= found.start_ms) & (ms <= found.end_ms))
    first, last = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)
  elif found.series == series and found.start_row is not None and found.end_row is not None:
    first, last = found.start_row, min(found.end_row, len(table.scores))
  else:
    return None
  return (first, last) if first < last and not np.isnan(table.scores[first:last]).all() else None


def refit(
  machines: Sequence[Evidence], settings: DetectConfig, min_annotations: int = MIN_ANNOTATIONS
) -> list[Refit]:
  """Returns each machine's refitted threshold.

  A machine with fewer than `min_annotations` annotated ranges shares one factor with the others of its role that have
  too few: a machine that can speak for itself would set theirs by its own noise.
  """
  result: dict[str, Refit] = {}
  few: dict[str, list[Evidence]] = {}
  for own in machines:
    if len(own.true) + len(own.false) >= min_annotations:
      result[own.machine] = _finish(own, _choose_factor([own], settings), "its own", settings)
    else:
      few.setdefault(own.role, []).append(own)
  for role, members in few.items():
    count = sum(len(own.true) + len(own.false) for own in members)
    factor = _choose_factor(members, settings) if count >= min_annotations else None
    basis = f"role {role}: {count} ranges of {len(members)} machines"
    if factor is None:
      basis += f", fewer than {min_annotations}"
    for own in members:
      result[own.machine] = _finish(own, factor, basis, settings)
  return [result[own.machine] for own in machines]


def _count_raised(ranges: np.ndarray, events: np.ndarray) -> int:
  """Returns how many of the ranges [N, 2] share a row with one of the events [E, 2], which are in order."""
  if len(events) == 0 or len(ranges) == 0:
    return 0
  next_event = np.minimum(np.searchsorted(events[:, 1], ranges[:, 0], side="right"), len(events) - 1)
  return int(np.sum((events[next_event, 0] < ranges[:, 1]) & (ranges[:, 0] < events[next_event, 1])))


def _is_raised(own: Evidence, place: np.ndarray, threshold: float, settings: DetectConfig) -> bool:
  return _count_raised(place[None, :], raised_events(own.scores, threshold, settings)) > 0


def _silencing_factors(own: Evidence, settings: DetectConfig) -> list[float]:
  """Returns, for each false range raised at what POT promised, the smallest factor at which it is not.

  Alarm rows only go as the threshold rises, and an event with them: the smallest is found by halving.
  """
  events = raised_events(own.scores, own.promised, settings)
  factors = []
  for place in own.false:
    touching = events[(events[:, 0] < place[1]) & (place[0] < events[:, 1])]
    if len(touching) == 0:
      continue
    values = np.unique(own.scores[touching[0, 0] : touching[-1, 1]])  # sorted; at the largest nothing is above
    values = values[values > own.promised]
    low, high = 0, len(values) - 1
    while low < high:
      middle = (low + high) // 2
      if _is_raised(own, place, values[middle], settings):
        low = middle + 1
      else:
        high = middle
    factors.append(float(values[low] / own.promised) * (1 + MARGIN))
  return factors


def _raising_factors(own: Evidence, settings: DetectConfig) -> list[float]:
  """Returns, for each true range not raised at what POT promised, the largest factor found at which it is.

  By its own rows' scores: more is not needed, since its largest row above the threshold is an event or part of one.
  """
  factors = []
  for place in own.true if own.floor < own.promised else ():
    if _is_raised(own, place, own.promised, settings):
      continue
    rows = own.scores[place[0] : place[1]]
    values = np.unique(rows[(rows > 0) & (rows <= own.promised)])[::-1] * (1 - 2 * MARGIN)
    found = next((value for value in values if _is_raised(own, place, value, settings)), None)
    factors += [] if found is None else [float(found / own.promised)]
  return factors


def _choose_factor(members: Sequence[Evidence], settings: DetectConfig) -> float:
  """Returns the factor that keeps the most true ranges, then raises the fewest false ones, then is nearest to 1.

  A true range is kept where it is raised by more than the margin; at a threshold that was there before, at all.
  """
  factors = {1.0}
  for own in members:
    factors |= set(_silencing_factors(own, settings)) | set(_raising_factors(own, settings))
  best: tuple[int, int, float] | None = None
  chosen = 1.0
  for factor in sorted(factors):
    num_true = num_false = 0
    for own in members:
      threshold = _threshold(own, factor)
      is_old = factor == 1.0 or threshold == own.floor
      at = threshold if is_old else threshold * (1 + MARGIN)
      num_true += _count_raised(own.true, raised_events(own.scores, at, settings))
      num_false += _count_raised(own.false, raised_events(own.scores, threshold, settings))
    found = (-num_true, num_false, abs(float(np.log(factor))))
    if best is None or found < best:
      best, chosen = found, factor
  return chosen


def _threshold(own: Evidence, factor: float) -> float:
  return max(factor * own.promised, own.floor)


def _finish(own: Evidence, factor: float | None, basis: str, settings: DetectConfig) -> Refit:
  threshold = None if factor is None else _threshold(own, factor)
  now = raised_events(own.scores, own.now, settings)
  then = now if threshold is None else raised_events(own.scores, threshold, settings)
  return Refit(
    own.machine,
    own.role,
    basis + (f"; {own.num_outside} annotated ranges are not in these scores" if own.num_outside else ""),
    own.promised,
    own.now,
    threshold,
    None if threshold is None else threshold / own.promised,
    _count_raised(own.true, now),
    _count_raised(own.true, then),
    _count_raised(own.false, now),
    _count_raised(own.false, then),
    len(now),
    len(then),
  )


def with_thresholds(calibration: Mapping[str, Any], refits: Sequence[Refit], when: str) -> dict[str, Any]:
  """Returns calibration.json's content with the refitted thresholds; all else in it stays.

  Each such machine's entry says what it was refitted from, in "refit"; what POT promised stays in "pot".

  Args:
    when: the time, as text.
  """
  machines = dict(calibration["machines"])
  for found in refits:
    if found.threshold is None:
      continue
    entry = {name: value for name, value in machines[found.machine].items() if name != "refit"}
    entry["threshold"] = found.threshold
    if "warning" in entry:  # never above the machine's own
      lower = min(entry["warning"]["threshold"], found.threshold)
      entry["warning"] = {**entry["warning"], "threshold": lower}
    if found.threshold != found.promised:
      about = {"when": when, "basis": found.basis, "factor": found.factor, "threshold_before": found.now}
      counts = {"num_true": found.num_true_then, "num_false": found.num_false_then}
      entry["refit"] = about | {f"{name}_raised": value for name, value in counts.items()}
    machines[found.machine] = entry
  return {**calibration, "machines": machines}
