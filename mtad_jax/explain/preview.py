"""What a threshold would have raised in the last week of the training data, for a person who sets the sensitivity.

In: calibrations and the held-out rows as they score them. Out: lines. The rows are held out from the network; those
of the calibration part set the threshold, those of the check part did not.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from mtad_jax.config import DetectConfig
from mtad_jax.data.machine import Series
from mtad_jax.detect.calibration import MachineCalibration, Tried
from mtad_jax.detect.events import find_events
from mtad_jax.detect.thresholds import WEEK_S
from mtad_jax.explain.contributions import contributions, rank_metrics

_NAMED = 3  # metrics of an event


def _when(start: int, end: int, series: Series, step_s: float | None) -> str:
  """Returns an event's rows on the training grid, and their times where the series has a clock."""
  text = f"rows {start} to {end - 1}"
  if series.timestamps is not None and step_s is not None:
    first, step = np.min(series.timestamps), np.timedelta64(round(1000 * step_s), "ms")
    text += f" ({str(first + start * step)[:16]} to {str(first + (end - 1) * step)[:16]})"
  return text


def preview_lines(
  name: str,
  calibration: MachineCalibration,
  tried: Tried,
  metrics: Sequence[str],
  series: Series,
  settings: DetectConfig,
) -> list[str]:
  """Returns the events of a machine's last week of held-out rows, one a line, under a line that counts them.

  Args:
    metrics: the scored metrics' names. series: the raw training split, for its clock.
    settings: merge_gap_rows and min_event_rows are read.
  """
  week_rows = len(tried.rows) if tried.step_s is None else int(WEEK_S / tried.step_s)
  first = int(tried.rows[-1]) + 1 - week_rows
  kept = tried.rows >= first
  rows = tried.rows[kept]
  begin, num = int(rows[0]), int(rows[-1]) - int(rows[0]) + 1
  scored, alarm = np.zeros(num, bool), np.zeros(num, bool)
  scored[rows - begin] = True
  alarm[rows - begin] = tried.scores[kept] > tried.thresholds[kept]
  events = find_events(
    alarm, scored, merge_gap_rows=settings.merge_gap_rows, min_event_rows=settings.min_event_rows
  )
  length = f"{num} held-out rows"
  if tried.step_s is not None:
    length = f"{num * tried.step_s / 86_400:.1f} held-out days"
  lines = [f"{name}: {len(events)} events in its last {length}"]
  by_row = dict(zip(rows.tolist(), np.flatnonzero(kept).tolist(), strict=True))
  for start, end in (events + begin).tolist():
    index = [by_row[row] for row in range(start, end) if row in by_row]
    shares = contributions(tried.metric_scores[index], calibration.usual)
    named = [f"{metrics[i]} {shares[i]:.0%}" for i in rank_metrics(shares)[:_NAMED] if shares[i] > 0]
    ratio = np.max(tried.scores[index] / tried.thresholds[index])
    part = "check" if tried.is_check[index].all() else "calibration"
    when = _when(start, end, series, tried.step_s)
    causes = ", ".join(named) or "no metric stands out"
    lines.append(f"  {when}, {part} part, {ratio:.2f} times the threshold: {causes}")
  return lines


def previews(
  found: Mapping[str, MachineCalibration],
  tried: Mapping[str, Tried],
  metrics: Mapping[str, Sequence[str]],
  series: Mapping[str, Series],
  settings: DetectConfig,
) -> list[str]:
  """Returns the lines of all machines, and what they sum to."""
  lines, total = [], 0
  for name, calibration in found.items():
    if len(tried[name].rows):
      own = preview_lines(name, calibration, tried[name], metrics[name], series[name], settings)
      total += len(own) - 1
      lines += own
  return [*lines, f"{len(found)} machines: {total} events"]
