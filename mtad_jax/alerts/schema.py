"""The ledger's tables, version by version, and the step from any older version to this one, whole or not at all.

Every table is append-only by triggers of its own, whatever program opens the file: an UPDATE, a DELETE and an insert
in the place of a row that is there (which INSERT OR REPLACE would make) are aborted.
"""

import sqlite3

APPLICATION_ID = 0x4D544144  # "MTAD", in the file's header

_RANGE = """
  series TEXT NOT NULL,
  start_row INTEGER, end_row INTEGER CHECK (end_row > start_row),
  start_ms INTEGER, end_ms INTEGER CHECK (end_ms >= start_ms)"""
_KNOWN = "CHECK ((start_row IS NULL) = (end_row IS NULL) AND (start_ms IS NULL) = (end_ms IS NULL))"
_SOMEWHERE = "CHECK (start_row IS NOT NULL OR start_ms IS NOT NULL)"


def _append_only(table: str, key: str) -> tuple[str, ...]:
  """Returns the triggers of a table; `key`: the condition that a row is there already, by its unique columns."""
  told = f"SELECT RAISE(ABORT, 'the ledger is append-only: {table}');"
  return (
    f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} BEGIN {told} END",
    f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} BEGIN {told} END",
    f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table}"
    f" WHEN EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM {table} WHERE {key})"
    f" BEGIN {told} END",
  )


_SPAN_KEY = (
  "change_id = NEW.change_id AND machine = NEW.machine AND series = NEW.series"
  " AND start_row = NEW.start_row AND end_row = NEW.end_row"
  " AND start_ms IS NEW.start_ms AND end_ms IS NEW.end_ms"
)

_VERSION_1 = (
  # A version of what raises alarms: weights, thresholds, settings, prior. "recorded" is when the ledger saw it first.
  """CREATE TABLE changes (
  id INTEGER PRIMARY KEY CHECK (id > 0),
  digest TEXT NOT NULL UNIQUE,
  run_id TEXT NOT NULL, checkpoint_steps TEXT NOT NULL, rule TEXT NOT NULL,
  thresholds TEXT NOT NULL, settings TEXT NOT NULL, prior TEXT,
  note TEXT NOT NULL, recorded_ms INTEGER NOT NULL)""",
  *_append_only("changes", "digest = NEW.digest"),
  # Which rows of a machine a version scored: without it, rows without an event would say nothing.
  f"""CREATE TABLE spans (
  id INTEGER PRIMARY KEY CHECK (id > 0),
  change_id INTEGER NOT NULL REFERENCES changes (id),
  machine TEXT NOT NULL, {_RANGE},
  step_s REAL, recorded_ms INTEGER NOT NULL, {_KNOWN}, CHECK (start_row IS NOT NULL))""",
  "CREATE INDEX spans_by_machine ON spans (change_id, machine)",
  *_append_only("spans", _SPAN_KEY),
  """CREATE TABLE events (
  id INTEGER PRIMARY KEY CHECK (id > 0),
  change_id INTEGER NOT NULL REFERENCES changes (id),
  machine TEXT NOT NULL, role TEXT NOT NULL, start_key TEXT NOT NULL,
  recorded_ms INTEGER NOT NULL, UNIQUE (change_id, machine, start_key))""",
  *_append_only(
    "events", "change_id = NEW.change_id AND machine = NEW.machine AND start_key = NEW.start_key"
  ),
  # An event as it was seen: one that went on is seen again with another end. The last sighting counts.
  f"""CREATE TABLE sightings (
  id INTEGER PRIMARY KEY CHECK (id > 0),
  event_id INTEGER NOT NULL REFERENCES events (id), {_RANGE}, end_key TEXT NOT NULL,
  severity REAL NOT NULL, peak REAL NOT NULL, threshold REAL NOT NULL, causes TEXT NOT NULL,
  recorded_ms INTEGER NOT NULL, {_KNOWN}, CHECK (start_row IS NOT NULL),
  UNIQUE (event_id, end_key, peak, severity, threshold, causes))""",
  *_append_only(
    "sightings",
    "event_id = NEW.event_id AND end_key = NEW.end_key AND peak = NEW.peak AND severity = NEW.severity"
    " AND threshold = NEW.threshold AND causes = NEW.causes",
  ),
  # Of a range, not of an event, so that it holds for the events of later versions too.
  f"""CREATE TABLE annotations (
  id INTEGER PRIMARY KEY CHECK (id > 0),
  machine TEXT NOT NULL, {_RANGE},
  verdict TEXT NOT NULL CHECK (verdict IN ('true', 'false', 'expected', 'none')),
  author TEXT NOT NULL CHECK (author <> ''), comment TEXT NOT NULL, time_ms INTEGER NOT NULL,
  recorded_ms INTEGER NOT NULL, {_KNOWN}, {_SOMEWHERE})""",
  "CREATE INDEX annotations_by_machine ON annotations (machine)",
  *_append_only("annotations", "0"),
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_VERSION_1,)  # the n-th leads from version n to n + 1; none is ever edited


def migrate(connection: sqlite3.Connection, file: str) -> None:
  """Brings an open ledger to the newest version, in one transaction; one that is there already is only read.

  Args:
    connection: in autocommit mode. file: for messages.

  Raises:
    ValueError: the file is of a newer program, or another program's database.
  """
  if _version(connection, file) == len(MIGRATIONS):
    return
  connection.execute("BEGIN IMMEDIATE")
  try:
    # read again: another writer may have been first
    for number in range(_version(connection, file), len(MIGRATIONS)):
      for statement in MIGRATIONS[number]:
        connection.execute(statement)
      connection.execute(f"PRAGMA user_version = {number + 1}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("COMMIT")
  except BaseException:
    if connection.in_transaction:  # a full disk has ended it already
      connection.execute("ROLLBACK")
    raise


def _version(connection: sqlite3.Connection, file: str) -> int:
  version = connection.execute("PRAGMA user_version").fetchone()[0]
  owner = connection.execute("PRAGMA application_id").fetchone()[0]
  if owner != APPLICATION_ID and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
    raise ValueError(f"{file}: a database of another program; the ledger is not made in it")
  if version > len(MIGRATIONS):
    raise ValueError(
      f"{file}: schema version {version}, this program knows up to {len(MIGRATIONS)}; use a newer mtad_jax"
    )
  return version
