"""What people said of an event: its own last verdict, or else the one of annotated rows that it overlaps.

So an event of another version of the model or its thresholds has the verdict that the rows were given before.
"""

from collections.abc import Sequence
from typing import NamedTuple

from mtad_jax.alerts.ranges import Range, find_overlaps, index_ranges, start_key
from mtad_jax.alerts.records import NO_VERDICT, Annotation

_FIRST = ("true", "expected", "false")  # of several that an event overlaps: a real incident inside makes it right


class Judged(NamedTuple):
  """verdict: true, false, expected, or None while it is open. annotation: that it comes from, or None.

  is_carried: it was given to other rows that this range overlaps.
  """

  verdict: str | None
  annotation: Annotation | None
  is_carried: bool


OPEN = Judged(None, None, False)


def standing(annotations: Sequence[Annotation]) -> list[Annotation]:
  """Returns the verdicts that hold: of each beginning on a machine the last, where it was not taken back.

  Args:
    annotations: in the order of recording.
  """
  last = {(found.range.machine, start_key(found.range)): found for found in annotations}
  return sorted((found for found in last.values() if found.verdict != NO_VERDICT), key=lambda found: found.id)


def judge(ranges: Sequence[Range], annotations: Sequence[Annotation]) -> list[Judged]:
  """Returns what holds of each range.

  Args:
    ranges: of events. annotations: all, in the order of recording.
  """
  holding = standing(annotations)
  own = {(found.range.machine, start_key(found.range)): found for found in holding}
  index = index_ranges([found.range for found in holding])
  result = []
  for found in ranges:
    annotation = own.get((found.machine, start_key(found)))
    if annotation is not None:
      result.append(Judged(annotation.verdict, annotation, False))
      continue
    near = [holding[place] for place in find_overlaps(index, found)]
    carried = min(near, key=lambda each: (_FIRST.index(each.verdict), -each.id), default=None)
    result.append(OPEN if carried is None else Judged(carried.verdict, carried, True))
  return result
