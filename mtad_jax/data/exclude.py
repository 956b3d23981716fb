"""Ranges kept out of training: "MACHINE:START-END" rows or "MACHINE:TIME/TIME", MACHINE may be "*".

Rows count from 0 in the machine's own training file, times are ISO 8601 (UTC where none is said); both ends
of a range of times and the start of a range of rows belong to it, the end row does not.
"""

import datetime
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

ANY_MACHINE = "*"
_FORM = "MACHINE:START-END (rows, end exclusive) or MACHINE:TIME/TIME (ISO 8601)"


class Exclusion(NamedTuple):
  """One range: rows [start, end) where `times` is None, otherwise both ends of `times` included.

  text: as the user wrote it, for messages.
  """

  machine: str
  rows: tuple[int, int] | None
  times: tuple[np.datetime64, np.datetime64] | None
  text: str


def read_time(text: str) -> np.datetime64:
  """Returns an ISO 8601 time in UTC, ms; raises ValueError where the text is none."""
  moment = datetime.datetime.fromisoformat(text.strip())
  if moment.tzinfo is not None:
    moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
  return np.datetime64(moment, "ms")


def _parse_time(part: str, text: str) -> np.datetime64:
  try:
    return read_time(part)
  except ValueError:
    raise ValueError(f"exclusion {text!r}: {part!r} is not an ISO 8601 time; wanted {_FORM}") from None


def parse_exclusions(texts: Sequence[str]) -> tuple[Exclusion, ...]:
  """Returns the exclusions that the texts describe.

  Raises:
    ValueError: a text of another form, or a range that ends before it starts.
  """
  exclusions = []
  for text in texts:
    machine, colon, span = text.partition(":")
    if not colon or not machine.strip() or not span.strip():
      raise ValueError(f"exclusion {text!r} is not understood; wanted {_FORM}")
    rows = times = None
    if "/" in span:
      first, _, last = span.partition("/")
      times = (_parse_time(first, text), _parse_time(last, text))
      if times[1] < times[0]:
        raise ValueError(f"exclusion {text!r}: the end {times[1]} lies before the start {times[0]}")
    else:
      match = re.fullmatch(r"\s*([0-9]+)-([0-9]+)\s*", span)
      if match is None:
        raise ValueError(f"exclusion {text!r}: {span!r} is not a range; wanted {_FORM}")
      rows = (int(match[1]), int(match[2]))
      if rows[1] <= rows[0]:
        raise ValueError(f"exclusion {text!r}: end row {rows[1]} must be above start row {rows[0]}")
    exclusions.append(Exclusion(machine.strip(), rows, times, text))
  return tuple(exclusions)


def check_machine(machine: str, names: Collection[str], what: str) -> None:
  """Raises ValueError where `machine` is neither * nor one of the names; what: was asked for it, for the message."""
  if machine != ANY_MACHINE and machine not in names:
    known = ", ".join(sorted(names)[:8]) + (", ..." if len(names) > 8 else "")
    raise ValueError(f"{what}: no machine is called {machine!r}; known: {known} or *")


def check_machines(exclusions: Sequence[Exclusion], names: Collection[str]) -> None:
  """Raises ValueError where an exclusion names a machine that is not there."""
  for exclusion in exclusions:
    check_machine(exclusion.machine, names, f"exclusion {exclusion.text!r}")


def excluded_rows(
  exclusions: Sequence[Exclusion], machine: str, num_rows: int, timestamps: np.ndarray | None
) -> np.ndarray:
  """Returns which rows of one machine's training split are excluded, [T] bool.

  Args:
    exclusions: of all machines.
    machine: the machine's name.
    num_rows: T.
    timestamps: [T] datetime64[ms], or None.

  Raises:
    ValueError: a range of times where the machine has no timestamps, or rows beyond its last one.
  """
  is_excluded = np.zeros(num_rows, bool)
  for exclusion in exclusions:
    if exclusion.machine not in (ANY_MACHINE, machine):
      continue
    if exclusion.rows is not None:
      start, end = exclusion.rows
      if exclusion.machine == machine and end > num_rows:
        raise ValueError(f"exclusion {exclusion.text!r}: machine {machine} has only {num_rows} training rows")
      is_excluded[start:end] = True
    elif exclusion.times is not None:
      if timestamps is None:
        raise ValueError(
          f"exclusion {exclusion.text!r}: machine {machine} has no timestamps; give rows, {machine}:START-END"
        )
      first, last = exclusion.times
      is_excluded |= (timestamps >= first) & (timestamps <= last)
  return is_excluded
