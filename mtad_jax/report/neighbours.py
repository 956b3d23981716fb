"""What the rest of an event's role did at that time: scores of all machines in, a line a person reads out."""

from typing import NamedTuple

import numpy as np

from mtad_jax.report.event_file import Event
from mtad_jax.report.heat import is_warning, ratio_of
from mtad_jax.report.inputs import Work


class Rest(NamedTuple):
  """The other machines of a role in the time of an event.

  role: empty where it is not known. num_others: those with a score then. alarmed: the names of those in alarm.
  highest: the largest score/threshold among them and its machine, or None.
  """

  role: str
  num_others: int
  alarmed: tuple[str, ...]
  highest: tuple[float, str] | None


class Neighbours:
  """The machines by role, each with its alarms and ratios, made once for all events."""

  def __init__(self, work: Work):
    self._role_of = work.role_of
    self._machines = work.machines
    self._ratio = {name: ratio_of(scores) for name, scores in work.machines.items()}
    self._in_alarm = {name: is_warning(scores) for name, scores in work.machines.items()}
    self._members: dict[str, list[str]] = {}
    for name in work.machines:
      self._members.setdefault(work.role_of.get(name, ""), []).append(name)

  def rest_of(self, event: Event) -> Rest:
    """Returns what the others did: at the event's times where both machines have a clock, else in its rows."""
    role = self._role_of.get(event.machine, "")
    own = self._machines[event.machine]
    found: list[tuple[float, str, bool]] = []
    for name in self._members[role] if role else []:
      other = self._machines[name]
      if name == event.machine:
        continue
      if own.times is None or other.times is None:
        start, end = np.searchsorted(other.row, [event.start_row, event.end_row])
      else:
        first, last = np.searchsorted(own.row, [event.start_row, event.end_row - 1])
        start = np.searchsorted(other.times, own.times[first])
        end = np.searchsorted(other.times, own.times[min(last, len(own.times) - 1)], side="right")
      ratio = self._ratio[name][start:end]
      if not np.isnan(ratio).all():
        found.append((float(np.nanmax(ratio)), name, bool(self._in_alarm[name][start:end].any())))
    alarmed = tuple(name for _, name, alarm in sorted(found, reverse=True) if alarm)
    highest = max(found)[:2] if found else None
    return Rest(role, len(found), alarmed, highest)


def rest_text(rest: Rest) -> str:
  """Returns the line for a person."""
  if not rest.role:
    return "Its role is not known."
  if rest.highest is None:
    return f"No other machine of role {rest.role} has a score then."
  ratio, name = rest.highest
  if rest.num_others == 1:
    was = "was" if rest.alarmed else "was not"
    said = f"The one other machine of role {rest.role}, {name}, {was} in alarm then"
    return f"{said}, at {ratio:.2f} times its threshold at most."
  count = f"{len(rest.alarmed):,} of" if rest.alarmed else "None of"
  verb = "were" if len(rest.alarmed) > 1 else "was"
  said = f"{count} the {rest.num_others:,} other machines of role {rest.role} {verb} in alarm then"
  return f"{said}; the highest, {name}, at {ratio:.2f} times its threshold."
