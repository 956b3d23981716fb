"""The alarms that figures count: events with their verdicts, each once, as they were first shown to a person.

An event counts for the change that first scored its rows. What a later change makes of the same rows, scored again,
is for comparing changes (effects.py), and rewrites no past week.
"""

from typing import NamedTuple

from mtad_jax.alerts.ranges import find_overlaps, index_ranges, start_of
from mtad_jax.alerts.records import Book, LedgerEvent
from mtad_jax.alerts.verdicts import Judged, judge
from mtad_jax.alerts.weeks import week_of

NO_CAUSE = "(none)"


class Alarm(NamedTuple):
  """An event and what was said of it. week: that it began in, see weeks.py."""

  event: LedgerEvent
  judged: Judged
  week: str

  @property
  def verdict(self) -> str | None:
    """True, false or expected; None while it is open."""
    return self.judged.verdict

  @property
  def first_cause(self) -> str:
    """The metric named first."""
    return self.event.causes[0][0] if self.event.causes else NO_CAUSE


def all_alarms(book: Book) -> list[Alarm]:
  """Returns every event of every change, in the order of recording."""
  steps = {(span.change_id, span.range.machine, span.range.series): span.step_s for span in book.spans}
  judged = judge([event.range for event in book.events], book.annotations)
  return [
    Alarm(
      event,
      found,
      week_of(event.range, steps.get((event.change_id, event.range.machine, event.range.series))),
    )
    for event, found in zip(book.events, judged, strict=True)
  ]


def shown_alarms(book: Book, change_id: int | None = None) -> list[Alarm]:
  """Returns the alarms that count, in the order of recording.

  Args:
    change_id: those of one change; None: of each row's first change.

  Raises:
    ValueError: there is no such change.
  """
  if change_id is not None and change_id not in [change.id for change in book.changes]:
    known = ", ".join(str(change.id) for change in book.changes)
    raise ValueError(f"change {change_id}: not in the ledger; there are {known or 'none'}")
  events = index_ranges([event.range for event in book.events])
  spans = index_ranges([span.range for span in book.spans])
  shown = []
  for place, alarm in enumerate(all_alarms(book)):
    own = alarm.event
    if change_id not in (None, own.change_id):
      continue
    # seen again from files that begin elsewhere, so that it begins elsewhere
    before = [at for at in find_overlaps(events, own.range) if at < place]
    if any(book.events[at].change_id == own.change_id for at in before):
      continue
    earlier = [book.spans[at].change_id for at in find_overlaps(spans, start_of(own.range))]
    if change_id is None and min(earlier, default=own.change_id) < own.change_id:
      continue
    shown.append(alarm)
  return shown
