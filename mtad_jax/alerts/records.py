"""What the ledger holds, as records; adding them, each only once, and reading all of them.

Nothing is changed or taken away: an event seen again in another form is a further sighting, a verdict taken back is a
further annotation.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from mtad_jax.alerts.ledger import reading, writing
from mtad_jax.alerts.ranges import Range, end_key, start_key

VERDICTS = ("true", "false", "expected")
NO_VERDICT = "none"  # taken back: what was marked before is open again


class Change(NamedTuple):
  """A version of what raises alarms. digest: of all that follows it, up to `prior`.

  checkpoint_steps: of each group's weights. thresholds: by machine. settings: of config.detect that form events.
  prior: a digest of the prior that the model was made with, None where it has none. note: what brought it.
  """

  id: int
  digest: str
  run_id: str
  checkpoint_steps: tuple[int, ...]
  rule: str
  thresholds: dict[str, float]
  settings: dict[str, Any]
  prior: str | None
  note: str
  recorded_ms: int


class Span(NamedTuple):
  """Rows of a machine that a change scored. step_s: seconds from row to row, None where nothing says."""

  change_id: int
  range: Range
  step_s: float | None


class LedgerEvent(NamedTuple):
  """An event as it was last seen. causes: (metric, contribution), best first."""

  id: int
  change_id: int
  role: str
  range: Range
  severity: float
  peak: float
  threshold: float
  causes: tuple[tuple[str, float], ...]
  recorded_ms: int


class Annotation(NamedTuple):
  """A person's verdict on a range of rows, whatever version raised an alarm there. time_ms: when it was given."""

  id: int
  range: Range
  verdict: str
  author: str
  comment: str
  time_ms: int


class Recording(NamedTuple):
  """What one scoring adds: its change, the rows it scored and its events; their ids are given by the ledger."""

  change: Change
  spans: tuple[Span, ...]
  events: tuple[LedgerEvent, ...]


class Added(NamedTuple):
  """What was new to the ledger. num_seen_again: events known before that have another end, peak or causes now."""

  change_id: int
  is_new_change: bool
  num_events: int
  num_seen_again: int
  num_known: int


class Book(NamedTuple):
  """All of the ledger as of one moment, in the order of recording."""

  changes: list[Change]
  spans: list[Span]
  events: list[LedgerEvent]
  annotations: list[Annotation]


def _find(connection: sqlite3.Connection, table: str, wanted: dict[str, Any]) -> int | None:
  condition = " AND ".join(f"{name} IS ?" for name in wanted)  # IS: null equals null
  found = connection.execute(
    f"SELECT id FROM {table} WHERE {condition} ORDER BY id DESC LIMIT 1", (*wanted.values(),)
  ).fetchone()
  return None if found is None else found[0]


def _insert(connection: sqlite3.Connection, table: str, values: dict[str, Any]) -> int:
  names, marks = ", ".join(values), ", ".join("?" * len(values))
  row_id = connection.execute(
    f"INSERT INTO {table} ({names}) VALUES ({marks})", (*values.values(),)
  ).lastrowid
  assert row_id is not None
  return row_id


def _columns(found: Range) -> dict[str, Any]:
  return {name: value for name, value in found._asdict().items() if name != "machine"}


def add_change(connection: sqlite3.Connection, change: Change, now_ms: int) -> tuple[int, bool]:
  """Returns (the change's id, whether it is new), inside the caller's transaction."""
  known = _find(connection, "changes", {"digest": change.digest})
  if known is not None:
    return known, False
  values = {
    "digest": change.digest,
    "run_id": change.run_id,
    "checkpoint_steps": json.dumps(change.checkpoint_steps),
    "rule": change.rule,
    "thresholds": json.dumps(change.thresholds, allow_nan=False),
    "settings": json.dumps(change.settings, allow_nan=False),
    "prior": change.prior,
    "note": change.note,
    "recorded_ms": now_ms,
  }
  return _insert(connection, "changes", values), True


def add_recording(connection: sqlite3.Connection, recording: Recording, now_ms: int) -> Added:
  """Adds what is new of a scoring, all of it or nothing; the same one again adds nothing."""
  counts = {"new": 0, "again": 0, "known": 0}
  with writing(connection):
    change_id, is_new = add_change(connection, recording.change, now_ms)
    for span in recording.spans:
      values = {"change_id": change_id, "machine": span.range.machine, **_columns(span.range)}
      if _find(connection, "spans", values) is None:
        _insert(connection, "spans", {**values, "step_s": span.step_s, "recorded_ms": now_ms})
    for event in recording.events:
      counts[_add_event(connection, event, change_id, now_ms)] += 1
  return Added(change_id, is_new, counts["new"], counts["again"], counts["known"])


def _add_event(connection: sqlite3.Connection, event: LedgerEvent, change_id: int, now_ms: int) -> str:
  key = {"change_id": change_id, "machine": event.range.machine, "start_key": start_key(event.range)}
  event_id = _find(connection, "events", key)
  is_new = event_id is None
  if event_id is None:
    event_id = _insert(connection, "events", {**key, "role": event.role, "recorded_ms": now_ms})
  seen = {
    "event_id": event_id,
    "end_key": end_key(event.range),
    "severity": event.severity,
    "peak": event.peak,
    "threshold": event.threshold,
    "causes": json.dumps(event.causes, allow_nan=False),
  }
  if _find(connection, "sightings", seen) is not None:
    return "known"
  _insert(connection, "sightings", {**seen, **_columns(event.range), "recorded_ms": now_ms})
  return "new" if is_new else "again"


def add_annotations(
  connection: sqlite3.Connection, annotations: Sequence[Annotation], now_ms: int
) -> list[int]:
  """Adds the annotations in their order, all or none; returns their ids."""
  with writing(connection):
    return [insert_annotation(connection, found, now_ms) for found in annotations]


def insert_annotation(connection: sqlite3.Connection, found: Annotation, now_ms: int) -> int:
  """Adds one annotation inside the caller's transaction; returns its id."""
  values = {name: getattr(found, name) for name in ("verdict", "author", "comment", "time_ms")}
  place = {"machine": found.range.machine, **_columns(found.range)}
  return _insert(connection, "annotations", {**place, **values, "recorded_ms": now_ms})


def read_annotations(connection: sqlite3.Connection) -> list[Annotation]:
  """Returns every annotation ever made, in the order of recording."""
  names = "id, machine, series, start_row, end_row, start_ms, end_ms, verdict, author, comment, time_ms"
  return [
    Annotation(row[0], Range(*row[1:7]), *row[7:])
    for row in connection.execute(f"SELECT {names} FROM annotations ORDER BY id")
  ]


def read_event_roles(connection: sqlite3.Connection) -> dict[str, str]:
  """Returns {machine: role} of every event; of machines without a model, no other file of the run has it."""
  return dict(connection.execute("SELECT machine, role FROM events ORDER BY id"))


def read_book(connection: sqlite3.Connection) -> Book:
  """Returns all of the ledger as of one moment."""
  with reading(connection):
    changes = [
      Change._make(row)._replace(
        checkpoint_steps=tuple(json.loads(row[3])), thresholds=json.loads(row[5]), settings=json.loads(row[6])
      )
      for row in connection.execute(f"SELECT {', '.join(Change._fields)} FROM changes ORDER BY id")
    ]
    names = "change_id, machine, series, start_row, end_row, start_ms, end_ms, step_s"
    spans = [
      Span(row[0], Range(*row[1:7]), row[7])
      for row in connection.execute(f"SELECT {names} FROM spans ORDER BY id")
    ]
    names = (
      "events.id, change_id, role, machine, series, start_row, end_row, start_ms, end_ms, severity, peak, threshold,"
      " causes, events.recorded_ms"
    )
    last = "SELECT max(id) FROM sightings GROUP BY event_id"
    query = f"SELECT {names} FROM events JOIN sightings ON event_id = events.id WHERE sightings.id IN ({last})"
    events = [
      LedgerEvent._make((*row[:3], Range(*row[3:9]), *row[9:]))._replace(
        causes=tuple((metric, share) for metric, share in json.loads(row[12]))
      )
      for row in connection.execute(f"{query} ORDER BY events.id")
    ]
    return Book(changes, spans, events, read_annotations(connection))
