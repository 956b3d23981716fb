"""The events of one scored machine, each with its severity and its causes; and the causes of given segments."""

import numpy as np

from mtad_jax.config import DetectConfig
from mtad_jax.detect.calibration import MachineCalibration
from mtad_jax.detect.events import CRITICAL, WARNING, Event, find_events, severity
from mtad_jax.detect.score_machine import ScoredRows
from mtad_jax.explain.contributions import contributions, rank_metrics


def list_events(
  machine: str,
  scored: ScoredRows,
  calibration: MachineCalibration,
  metrics: tuple[str, ...],
  timestamps: np.ndarray | None,
  settings: DetectConfig,
) -> list[Event]:
  """Returns the machine's events in order; with a warning threshold it is that one which begins and holds them.

  Args:
    calibration: the one the rows were scored with; thresholds and the metrics' usual scores are read.
    metrics: the F' scored metrics' names. timestamps: [T] or None.
  """
  usual, warning = calibration.usual, calibration.warning
  threshold = scored.threshold if warning is None else np.full(len(scored.score), warning.threshold)
  with np.errstate(invalid="ignore"):
    is_above, is_held = (scored.score > share * threshold for share in (1.0, settings.release_ratio))
  found = find_events(
    is_above,
    scored.valid,
    merge_gap_rows=settings.merge_gap_rows,
    min_event_rows=settings.min_event_rows,
    is_held=is_held,
    alarm_checks=settings.alarm_checks,
    alarm_window_checks=settings.alarm_window_checks,
    cooldown_rows=settings.cooldown_rows,
  )
  events = []
  for start, end in found.tolist():
    shares = contributions(scored.metric_scores[start:end], usual)
    order = rank_metrics(shares)
    events.append(
      Event(
        event_id=f"{machine}:{start}-{end}",
        machine=machine,
        start_row=start,
        end_row=end,
        start=None if timestamps is None else timestamps[start],
        end=None if timestamps is None else timestamps[end - 1],
        severity=float(severity(np.nanmax(scored.ratio[start:end]))),
        peak=float(np.nanmax(scored.score[start:end])),
        contributors=tuple((metrics[i], float(shares[i])) for i in order if shares[i] > 0),
        level=CRITICAL if scored.is_anomaly[start:end].any() else WARNING,
      )
    )
  return events


def count_events(events: list[Event], calibration: MachineCalibration) -> str:
  """Returns how many there are for a person, of each level where there are two."""
  if calibration.warning is None:
    return f"{len(events)} events"
  num = sum(event.level == CRITICAL for event in events)
  return f"{len(events)} events ({num} critical, {len(events) - num} warning)"


def rank_segments(
  scored: ScoredRows, segments: np.ndarray, usual: np.ndarray, metrics: tuple[str, ...]
) -> list[list[str]]:
  """Returns, for each of the segments [S, 2], the metrics best first; empty where it has no scored row."""
  ranked: list[list[str]] = []
  for start, end in segments.tolist():
    if not scored.valid[start:end].any():
      ranked.append([])
      continue
    order = rank_metrics(contributions(scored.metric_scores[start:end], usual))
    ranked.append([metrics[i] for i in order])
  return ranked


def near_events(events: list[Event], num_rows: int, margin: int) -> np.ndarray:
  """Returns [T] bool: rows of events and `margin` rows on both sides."""
  near = np.zeros(num_rows, bool)
  for event in events:
    near[max(event.start_row - margin, 0) : event.end_row + margin] = True
  return near
