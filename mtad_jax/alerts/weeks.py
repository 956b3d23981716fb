"""Weeks: of a range, and how many machine-weeks of each were scored.

Where the data have a clock a week is named by its Monday (UTC), else counted from the series' first row.
"""

import datetime
from collections import defaultdict
from collections.abc import Iterable

from mtad_jax.alerts.ranges import Range
from mtad_jax.alerts.records import Span

NO_CLOCK = "-"
_WEEK_MS = 7 * 86_400_000
_MONDAY_MS = 4 * 86_400_000  # 1970-01-05, the first Monday


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
  for span in spans:
    found = span.range
    step_ms = 0.0 if span.step_s is None else 1000 * span.step_s
    if found.start_ms is not None and found.end_ms is not None:
      covered[found.machine, ""].append((found.start_ms - _MONDAY_MS, found.end_ms - _MONDAY_MS + step_ms))
    elif step_ms and found.start_row is not None and found.end_row is not None:
      covered[found.machine, found.series].append((found.start_row * step_ms, found.end_row * step_ms))
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
  return {_counted(*key) if key[0] else _monday(key[1]): sums[key] for key in sorted(sums)}


def _monday(number: int) -> str:
  return (datetime.date(1970, 1, 5) + datetime.timedelta(weeks=number)).isoformat()


def _counted(series: str, number: int) -> str:
  return f"{series} week {number + 1}"
