"""What settings would have raised in the last week of the training data, for a person who sets the sensitivity.

In: a run's groups with the calibrations to be tried, and the raw training data. Out: events and lines. The training
split is scored from its first row by the very steps that score.py --split=train takes, and its events are listed by
the same function, so that what is told here is what those settings then raise. The rows told of are held out from the
network; those of the calibration part set the threshold, those of the check part did not.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mtad_jax.config import Config
from mtad_jax.data.machine import Series
from mtad_jax.data.preparation import apply_preparation
from mtad_jax.data.track import Track, untracked
from mtad_jax.detect.calibration import MachineCalibration, Tried
from mtad_jax.detect.events import CRITICAL, Event
from mtad_jax.detect.score_machine import score_machines
from mtad_jax.detect.thresholds import WEEK_S
from mtad_jax.explain.event_list import count_events, list_events
from mtad_jax.train.fleet_file import StoredGroup

_NAMED = 3  # metrics of an event


class Preview(NamedTuple):
  """One machine's last week. events: those that begin in rows [first_row, num_rows) of the training split.

  num_held: slots of the training grid from the first held-out one of the week to the last.
  is_held_out, is_check: [T] bool, whether an input row lies in the calibration or check part; in the check part.
  """

  name: str
  calibration: MachineCalibration
  events: list[Event]
  first_row: int
  num_held: int
  step_s: float | None
  is_held_out: np.ndarray
  is_check: np.ndarray


def preview_group(
  group: StoredGroup,
  params: Any,
  series: Mapping[str, Series],
  calibrations: Mapping[str, MachineCalibration],
  tried: Mapping[str, Tried],
  config: Config,
  track: Track = untracked,
) -> list[Preview]:
  """Returns what would have been raised on each machine of a group that has held-out rows.

  Args:
    params: stacked, [M, ...]. series: the raw training splits by machine. tried: of `calibrate_blocks`, whose rows
      are the held-out ones.
    config: the settings to be tried. track: watches the model's batches, then the machines.
  """
  lanes = [i for i, machine in enumerate(group.machines) if len(tried[machine.name].rows)]
  members = [group.machines[i] for i in lanes]
  if not members:
    return []
  splits = [apply_preparation(m.preparation, series[m.name], config.data) for m in members]
  own = [calibrations[machine.name] for machine in members]
  metrics = tuple(group.metrics[i] for i in group.targets)
  all_scored = score_machines(
    splits,
    jax.tree.map(lambda leaf: leaf[np.array(lanes)], params),
    group.targets,
    [machine.preparation for machine in members],
    own,
    config,
    [None] * len(members),
    track,
  )
  found = []
  for machine, split, calibration, scored in zip(members, splits, own, all_scored, strict=True):
    held = tried[machine.name]
    first, last = int(held.rows[0]), int(held.rows[-1])
    if held.step_s is not None:
      first = max(first, last + 1 - int(WEEK_S / held.step_s))
    first_row = int(np.searchsorted(split.row_to_grid, first))
    events = list_events(
      machine.name, scored, calibration, metrics, series[machine.name].timestamps, config.detect
    )
    found.append(
      Preview(
        name=machine.name,
        calibration=calibration,
        events=[event for event in events if event.start_row >= first_row],
        first_row=first_row,
        num_held=last + 1 - first,
        step_s=held.step_s,
        is_held_out=np.isin(split.row_to_grid, held.rows),
        is_check=np.isin(split.row_to_grid, held.rows[held.is_check]),
      )
    )
  return found


def _event_line(event: Event, preview: Preview) -> str:
  rows = slice(event.start_row, event.end_row)
  is_held_out = preview.is_held_out[rows]
  part = "calibration part"
  if not is_held_out.any():
    part = "left out of both parts"  # excluded, much of it missing, or in the gap between the two
  elif preview.is_check[rows][is_held_out].all():
    part = "check part"
  when = f"rows {event.start_row} to {event.end_row - 1}"
  if event.start is not None:
    when += f" ({str(event.start)[:16]} to {str(event.end)[:16]})"
  level = "" if preview.calibration.warning is None else f"{event.level}, "
  ratio = event.peak / preview.calibration.threshold
  causes = ", ".join(f"{metric} {share:.0%}" for metric, share in event.contributors[:_NAMED])
  return f"  {level}{when}, {part}, {ratio:.2f} times the threshold: {causes or 'no metric stands out'}"


def preview_lines(previews: Sequence[Preview]) -> list[str]:
  """Returns the events of each machine's last week of held-out rows, one a line under a line that counts them, and
  what they sum to.
  """
  lines = []
  for preview in previews:
    length = f"{preview.num_held} held-out rows"
    if preview.step_s is not None:
      length = f"{preview.num_held * preview.step_s / 86_400:.1f} held-out days"
    lines.append(f"{preview.name}: {count_events(preview.events, preview.calibration)} in its last {length}")
    lines += [_event_line(event, preview) for event in preview.events]
  levels = [event.level == CRITICAL for preview in previews for event in preview.events]
  total = f"{len(previews)} machines: {len(levels)} events"
  if any(preview.calibration.warning is not None for preview in previews):
    total += f" ({sum(levels)} critical, {len(levels) - sum(levels)} warning)"
  return [*lines, total]
