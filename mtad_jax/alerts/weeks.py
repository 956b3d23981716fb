"""Weeks: of a range, and how many machine-weeks of each were scored.

Where the data have a clock a week is named by its Monday (UTC), else counted from the series' first row.
"""

import datetime
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from mtad_jax.alerts.ranges import Range
from mtad_jax.alerts.records import Span

NO_CLOCK = "-"
_WEEK_MS = 7 * 86_400_000
_MONDAY_MS = 4 * 86_400_000  # 1970-01-05, the first Monday


class Moment(NamedTuple):
  """A row's time: ms since 1970, None where the data have no clock; and the week that it is in."""

  ms: int | None
  week: str


class _Stretch(NamedTuple):
  """Rows that a change scored, in ms since the first Monday or the series' first row; series: "" by a clock."""

  change_id: int
  machine: str
  series: str
  first: float
  last: float


def week_of(found: Range, step_s: float | None) -> str:
  """Returns the name of the week that a range begins in.

  Args:
    step_s: seconds from row to row of its series, None where nothing says.
  """
  if found.start_ms is not None:
    return _monday((found.start_ms - _MONDAY_MS) // _WEEK_MS)
  if step_s is None or found.start_row is None:
    return NO_CLOCK
  return _counted(found.series, int(1000 * step_s * found.start_row) // _WEEK_MS)


def machine_weeks(spans: Iterable[Span]) -> dict[str, float]:
  """Returns, by week in the order of time, the machine-weeks that the spans cover; rows covered twice count once.

  Spans without a clock are in none.
  """
  covered: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
  for found in _stretches(spans):
    covered[found.machine, found.series].append((found.first, found.last))
  sums: dict[tuple[str, int], float] = defaultdict(float)
  for (_, series), stretches in covered.items():
    reached = float("-inf")
    for first, last in sorted(stretches):
      at = max(first, reached)
      reached = max(reached, last)
      while at < last:
        number = int(at // _WEEK_MS)
        until = min(last, (number + 1) * _WEEK_MS)
        sums[series, number] += (until - at) / _WEEK_MS
        at = until
  return {_name(*key): sums[key] for key in sorted(sums)}


def first_moments(spans: Iterable[Span]) -> dict[int, Moment]:
  """Returns, by change, the first row of any machine behind all that the changes before it scored of that machine.

  From there on its alarms are those that count. A change that only scored known rows again is not in it, nor is one
  without a clock.
  """
  reached: dict[tuple[str, str], float] = {}
  found: dict[int, tuple[str, float]] = {}
  for each in sorted(_stretches(spans), key=lambda each: (each.change_id, each.first)):
    place = (each.machine, each.series)
    at = max(each.first, reached.get(place, each.first))
    if at < each.last:
      found[each.change_id] = min(found.get(each.change_id, (each.series, at)), (each.series, at))
    reached[place] = max(each.last, reached.get(place, each.last))
  return {
    change_id: Moment(None if series else int(at) + _MONDAY_MS, _name(series, int(at // _WEEK_MS)))
    for change_id, (series, at) in found.items()
  }


def _stretches(spans: Iterable[Span]) -> list[_Stretch]:
  """Returns the spans on the clock, else on their series' own; those without either are left out."""
  found = []
  for span in spans:
    own, step_ms = span.range, 0.0 if span.step_s is None else 1000 * span.step_s
    if own.start_ms is not None and own.end_ms is not None:
      ends: tuple[float, float] = (own.start_ms - _MONDAY_MS, own.end_ms - _MONDAY_MS + step_ms)
      found.append(_Stretch(span.change_id, own.machine, "", *ends))
    elif step_ms and own.start_row is not None and own.end_row is not None:
      ends = (own.start_row * step_ms, own.end_row * step_ms)
      found.append(_Stretch(span.change_id, own.machine, own.series, *ends))
  return found


def _name(series: str, number: int) -> str:
  return _counted(series, number) if series else _monday(number)


def _monday(number: int) -> str:
  return (datetime.date(1970, 1, 5) + datetime.timedelta(weeks=number)).isoformat()


def _counted(series: str, number: int) -> str:
  return f"{series} week {number + 1}"
