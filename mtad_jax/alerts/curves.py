"""The ledger's figures as plain data, for the report and for `annotate.py summary`."""

import math
from collections.abc import Sequence
from typing import Any

from etils import epath

from mtad_jax.alerts.alarms import Alarm, shown_alarms
from mtad_jax.alerts.effects import effects
from mtad_jax.alerts.ledger import ledger_path, open_ledger
from mtad_jax.alerts.records import Book, Change, read_book
from mtad_jax.alerts.statistics import CONFIDENCE, Precision, covering_causes, precision, precision_by
from mtad_jax.alerts.weeks import first_moments, machine_weeks

_KINDS = {
  "model": ("run_id", "checkpoint_steps"),
  "thresholds": ("thresholds",),
  "prior": ("prior",),
  "settings": ("rule", "settings"),
}  # what can differ from one change to the next, by the fields that tell it


def ledger_curves(workdir: epath.PathLike, change_id: int | None = None) -> dict[str, Any] | None:
  """Returns the figures of a work directory's ledger, or None where it has none; all of it is ready for JSON.

  Args:
    change_id: of one change's events; None: of each row's first change, as people were shown them.

  Returns:
    confidence: of the intervals. num_reviewers. total: precision figures of all alarms. weeks: a list in the order of
    time, each its "week", precision figures, "machine_weeks" scored and "false_per_machine_week". roles,
    machines, metrics (first cause): precision figures by name. causes: that cover most of the false alarms, see
    `Cover`. changes: each with its note, time, kinds (what differs from the change before: model, thresholds, prior,
    settings; of the first nothing), since_week and since_ms (where it begins to count, see `first_moments`; None:
    nowhere, or no clock), and `Effect`. Precision figures: num_true, num_false, num_expected, num_open, value (None:
    nothing reviewed), low, high.

  Raises:
    ValueError: a ledger that cannot be read, or no such change.
  """
  if not epath.Path(ledger_path(workdir)).exists():
    return None
  with open_ledger(workdir) as connection:
    return curves(read_book(connection), change_id)


def curves(book: Book, change_id: int | None = None) -> dict[str, Any]:
  """Returns what `ledger_curves` does, of a ledger that was read."""
  alarms = shown_alarms(book, change_id)
  keys = {
    "roles": lambda alarm: alarm.event.role,
    "machines": lambda alarm: alarm.event.range.machine,
    "metrics": lambda alarm: alarm.first_cause,
  }
  return {
    "confidence": CONFIDENCE,
    "num_reviewers": len({alarm.judged.annotation.author for alarm in alarms if alarm.judged.annotation}),
    "total": _plain(precision(alarm.verdict for alarm in alarms)),
    "weeks": _weeks(book, alarms, change_id),
    **{
      name: {group: _plain(found) for group, found in precision_by(alarms, key).items()}
      for name, key in keys.items()
    },
    "causes": [found._asdict() for found in covering_causes(alarms)],
    "changes": _changes(book),
  }


def _plain(found: Precision) -> dict[str, Any]:
  return {**found._asdict(), "value": None if math.isnan(found.value) else found.value}


def _weeks(book: Book, alarms: Sequence[Alarm], change_id: int | None) -> list[dict[str, Any]]:
  """Returns a week each, those without an alarm too."""
  scored = machine_weeks(span for span in book.spans if change_id in (None, span.change_id))
  by_week = precision_by(alarms, lambda alarm: alarm.week)
  result = []
  for week in dict.fromkeys([*scored, *by_week]):
    found = by_week.get(week, precision([]))
    weeks = scored.get(week)
    rate = found.num_false / weeks if weeks else None
    result.append({"week": week, **_plain(found), "machine_weeks": weeks, "false_per_machine_week": rate})
  return result


def _changes(book: Book) -> list[dict[str, Any]]:
  found, moments = {effect.change_id: effect for effect in effects(book)}, first_moments(book.spans)
  result = []
  for before, change in zip([None, *book.changes], book.changes, strict=False):
    since = moments.get(change.id)
    effect = found.get(change.id)
    entry: dict[str, Any] = {
      "change": change.id,
      "note": change.note,
      "kinds": _kinds(before, change),
      "since_week": since.week if since else None,
      "since_ms": since.ms if since else None,
      "recorded_ms": change.recorded_ms,
      "run_id": change.run_id,
      "num_events": sum(event.change_id == change.id for event in book.events),
      "before_change": effect.before_id if effect else None,
    }
    for name in ("own", "before", "after"):
      raised = getattr(effect, name) if effect else None
      entry[name] = None if raised is None else raised._asdict()
    result.append(entry)
  return result


def _kinds(before: Change | None, change: Change) -> list[str]:
  if before is None:
    return []
  return [
    kind
    for kind, fields in _KINDS.items()
    if any(getattr(before, field) != getattr(change, field) for field in fields)
  ]
