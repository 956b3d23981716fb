"""The ledger's file: append-only, whole under SIGKILL and two writers, migrated in one step, refused in one line.

python -m pytest -m slow tests/test_ledger.py kills a writer 50 times; MTAD_KILLS sets another number.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scored_run
from scored_run import bumps, make_run, minutes, score, write_thresholds

from mtad_jax.alerts import schema
from mtad_jax.alerts.ledger import LEDGER, open_ledger, writing
from mtad_jax.alerts.ranges import Range
from mtad_jax.alerts.recording import read_recording
from mtad_jax.alerts.records import (
  Annotation,
  Change,
  LedgerEvent,
  Recording,
  Span,
  add_annotations,
  add_recording,
  read_book,
)

NUM_KILLS = int(os.environ.get("MTAD_KILLS", "50"))
TABLES = ("changes", "spans", "events", "sightings", "annotations")

# Writes annotations, and every tenth time a whole recording of a change of its own; each is told when it is done.
WRITER = """
import sys
import time
from mtad_jax.alerts.ledger import open_ledger
from mtad_jax.alerts.records import add_annotations, add_recording
from test_ledger import annotation, recording
workdir, name, first, count, pause_s = *sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
with open_ledger(workdir, create=True) as connection:
  print("open", flush=True)
  sys.stdin.readline()
  for number in range(first, first + count):
    if number % 10 == 9:
      add_recording(connection, recording(f"{name} {number}"), 0)
    else:
      add_annotations(connection, [annotation(f"{name} {number}")], 0)
    print(number, flush=True)
    time.sleep(pause_s)
"""
EVENTS_A_RECORDING = 40


def annotation(comment: str, verdict: str = "true", start: int = 10) -> Annotation:
  return Annotation(0, Range("web-1", "test", start, start + 5, None, None), verdict, "ann", comment, 1)


def recording(digest: str) -> Recording:
  """Returns a change with one span and `EVENTS_A_RECORDING` events."""
  change = Change(0, digest, "run", (1,), "joint", {"web-1": 1.0}, {"merge_gap_rows": 5}, None, "made", 0)
  where = [Range("web-1", "test", 10 * i, 10 * i + 5, None, None) for i in range(EVENTS_A_RECORDING)]
  events = [LedgerEvent(0, 0, "web", place, 0.5, 2.0, 1.0, (("cpu", 1.0),), 0) for place in where]
  span = Span(0, Range("web-1", "test", 0, 1000, None, None), 60.0)
  return Recording(change, (span,), tuple(events))


def start_writer(workdir: Path, name: str, first: int, count: int, pause_s: float = 0) -> subprocess.Popen[str]:
  """Starts a writer in a process; it waits for `let_write`."""
  paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
  return subprocess.Popen(
    [sys.executable, "-c", WRITER, str(workdir), name, str(first), str(count), str(pause_s)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "PYTHONPATH": paths},
  )


def let_write(*processes: subprocess.Popen[str]) -> None:
  """Lets writers begin, once all have the ledger open."""
  for process in processes:
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
  for process in processes:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def written(workdir: Path) -> list[str]:
  """Returns the comments and digests in the ledger, after asserting that it is sound and each recording whole."""
  with open_ledger(workdir) as connection:
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    book = read_book(connection)
  for change in book.changes:
    assert sum(event.change_id == change.id for event in book.events) == EVENTS_A_RECORDING
    assert sum(span.change_id == change.id for span in book.spans) == 1
  return [found.comment for found in book.annotations] + [change.digest for change in book.changes]


def kill_writers(workdir: Path, num_kills: int, seed: int) -> None:
  """Kills a writer at random moments and asserts each time that nothing acknowledged is lost, nothing half there."""
  rng, acknowledged, first = random.Random(seed), [], 0
  for kill in range(num_kills):
    process = start_writer(workdir, "w", first, 100_000)
    let_write(process)
    time.sleep(rng.uniform(0, 0.25))
    process.send_signal(signal.SIGKILL)
    told, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    acknowledged += [f"w {number}" for number in told.splitlines()]
    found = written(workdir)
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)
    # at most the one that was being written when it was killed was done and not told
    assert len(found) <= len(acknowledged) + kill + 1
    first = max((int(name.split()[1]) for name in found), default=-1) + 1
  assert len(acknowledged) > 5 * num_kills, "the writer was killed before it wrote"


def test_killed_eight_times_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
  kill_writers(tmp_path, 8, seed=0)


@pytest.mark.slow
def test_killed_at_random_moments_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
  kill_writers(tmp_path, NUM_KILLS, seed=1)


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
  """They make the file together, too."""
  writers = [start_writer(tmp_path, name, 0, 60, pause_s=0.005) for name in ("a", "b")]
  let_write(*writers)
  for process in writers:
    told, _ = process.communicate(timeout=60)
    assert (process.returncode, told.splitlines()) == (0, [str(number) for number in range(60)])
  found = written(tmp_path)
  assert sorted(found) == sorted(f"{name} {number}" for name in "ab" for number in range(60))
  names = [comment[0] for comment in found]
  assert sum(one != other for one, other in pairwise(names)) > 4, "they took turns"


def test_nothing_is_updated_deleted_or_replaced_by_any_program(tmp_path: Path) -> None:
  with open_ledger(tmp_path, create=True) as connection:
    add_recording(connection, recording("one"), 0)
    add_annotations(connection, [annotation("kept")], 0)
    before = read_book(connection)
  with sqlite3.connect(tmp_path / LEDGER) as plain:  # one that knows nothing of our settings
    for table in TABLES:
      column = plain.execute(f"SELECT name FROM pragma_table_info('{table}')").fetchall()[-1][0]
      for statement in (
        f"UPDATE {table} SET {column} = {column}",
        f"DELETE FROM {table}",
        f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}",
      ):
        with pytest.raises(sqlite3.IntegrityError, match=f"the ledger is append-only: {table}"):
          plain.execute(statement)
    names = "change_id, machine, role, start_key, recorded_ms"
    with pytest.raises(sqlite3.IntegrityError, match="append-only: events"):  # another id, the same event
      plain.execute(f"INSERT OR REPLACE INTO events ({names}) SELECT {names} FROM events LIMIT 1")
  plain.close()
  with open_ledger(tmp_path) as connection:
    assert read_book(connection) == before


def test_what_fails_inside_leaves_nothing(tmp_path: Path) -> None:
  wrong = annotation("second", verdict="perhaps")
  with open_ledger(tmp_path, create=True) as connection:
    with pytest.raises(sqlite3.IntegrityError, match="CHECK constraint failed: verdict"):
      add_annotations(connection, [annotation("first"), wrong], 0)
    assert read_book(connection).annotations == []

    def half() -> None:
      with writing(connection):
        connection.execute("CREATE TABLE half (id INTEGER)")
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
      half()
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone() == (0,)


def test_an_older_ledger_is_migrated_with_all_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  """A file of version 1 under a program that has two more steps; one that fails leaves the file as it was."""
  with open_ledger(tmp_path, create=True) as connection:
    add_recording(connection, recording("one"), 0)
    add_annotations(connection, [annotation("kept")], 0)
    before = read_book(connection)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
  content = (tmp_path / LEDGER).read_bytes()
  steps = (("ALTER TABLE annotations ADD COLUMN ticket TEXT",), ("CREATE TABLE tickets (id INTEGER)", "no SQL"))
  monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, *steps))
  with pytest.raises(OSError, match=r"ledger\.sqlite: near \"no\": syntax error"), open_ledger(tmp_path):
    pytest.fail("half a step")
  assert (tmp_path / LEDGER).read_bytes() == content
  monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS[:2], steps[1][:1]))
  for _ in range(2):
    with open_ledger(tmp_path) as connection:
      assert connection.execute("PRAGMA user_version").fetchone() == (3,)
      assert connection.execute("SELECT comment, ticket FROM annotations").fetchall() == [("kept", None)]
      assert read_book(connection) == before


def test_refusals_are_one_line(tmp_path: Path) -> None:
  told = r"^gs://bucket/run: the ledger needs a local path; copy the work directory to this machine$"
  with pytest.raises(ValueError, match=told), open_ledger("gs://bucket/run", create=True):
    pytest.fail("opened")
  with pytest.raises(ValueError, match=r"none: there is no such work directory"), open_ledger(tmp_path / "none"):
    pytest.fail("opened")
  with pytest.raises(ValueError, match=r"not found; annotate\.py record makes it"), open_ledger(tmp_path):
    pytest.fail("opened")
  assert not (tmp_path / LEDGER).exists()
  with open_ledger(tmp_path, create=True) as connection:
    connection.execute("PRAGMA user_version = 9")
  told = r"ledger\.sqlite: schema version 9, this program knows up to 1; use a newer mtad_jax$"
  with pytest.raises(ValueError, match=told), open_ledger(tmp_path):
    pytest.fail("opened")
  (tmp_path / LEDGER).write_bytes(b"no database at all, but longer than a header of a hundred bytes" * 20)
  with pytest.raises(ValueError, match=r"ledger\.sqlite: file is not a database"), open_ledger(tmp_path):
    pytest.fail("opened")
  (tmp_path / LEDGER).unlink()
  with sqlite3.connect(tmp_path / LEDGER) as other:
    other.execute("CREATE TABLE theirs (id INTEGER)")
  other.close()
  with pytest.raises(ValueError, match="a database of another program"), open_ledger(tmp_path, create=True):
    pytest.fail("opened")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
  (tmp_path / LEDGER).mkdir()
  with pytest.raises(OSError, match=r"ledger\.sqlite: unable to open"), open_ledger(tmp_path, create=True):
    pytest.fail("opened")


ROLES = {"db-1": "db", "web-1": "web"}
SCORES = {"db-1": bumps(200, {20: 3.0, 60: 2.0}), "web-1": bumps(200, {100: 5.0})}


def record(workdir: Path, folder: Path | None = None):
  with open_ledger(workdir, create=True) as connection:
    return add_recording(connection, read_recording(workdir, folder or workdir), 7)


def read(workdir: Path):
  with open_ledger(workdir) as connection:
    return read_book(connection)


def test_an_event_has_its_scores_causes_and_versions(tmp_path: Path) -> None:
  run = make_run(tmp_path, ROLES, {"db-1": 1.0, "web-1": 2.0})
  score(run, SCORES, minutes(200))
  added = record(run)
  assert added[:] == (1, True, 3, 0, 0)
  book = read(run)
  event = book.events[-1]
  start = int(scored_run.START.astype(np.int64))
  place = Range("web-1", "test", 100, 104, start + 100 * 60_000, start + 103 * 60_000)
  assert event == LedgerEvent(3, 1, "web", place, 0.6, 5.0, 2.0, (("cpu", 0.75), ("latency", 0.25)), 7)
  (change,) = book.changes
  assert (change.run_id, change.checkpoint_steps, change.rule) == (scored_run.RUN_ID, (200,), "joint")
  assert change.thresholds == {"db-1": 1.0, "web-1": 2.0}
  assert change.settings["merge_gap_rows"] == 5
  assert "score_batch" not in change.settings
  spans = [Range(name, "test", 3, 200, start + 3 * 60_000, start + 199 * 60_000) for name in ("db-1", "web-1")]
  assert [(span.range, span.step_s) for span in book.spans] == [(found, 60.0) for found in spans]


def test_the_same_recorded_again_adds_nothing(tmp_path: Path) -> None:
  run = make_run(tmp_path, ROLES, {"db-1": 1.0, "web-1": 2.0})
  for times in (None, minutes(200)):
    score(run, SCORES, times)
    record(run)
    before = read(run)
    assert record(run)[1:] == (False, 0, 0, 3)
    assert read(run) == before


def test_an_event_that_went_on_is_the_same_event_seen_again(tmp_path: Path) -> None:
  run = make_run(tmp_path, ROLES, {"db-1": 1.0, "web-1": 2.0})
  values = SCORES["db-1"][:62]  # the files end in the middle of the second event
  score(run, {"db-1": values}, minutes(62))
  record(run)
  score(run, SCORES, minutes(200))
  assert record(run)[1:] == (False, 1, 1, 1)
  rows = [(event.id, event.range.start_row, event.range.end_row) for event in read(run).events]
  assert rows == [(1, 20, 24), (2, 60, 64), (3, 100, 104)]


def test_events_of_other_thresholds_are_kept_beside(tmp_path: Path) -> None:
  run = make_run(tmp_path, ROLES, {"db-1": 1.0, "web-1": 2.0})
  score(run, SCORES)
  record(run)
  write_thresholds(run, {"db-1": 2.5, "web-1": 2.0})
  score(run, SCORES)
  assert record(run)[:3] == (2, True, 2)
  assert [(event.change_id, event.range.start_row) for event in read(run).events] == [
    (1, 20), (1, 60), (1, 100), (2, 21), (2, 100)
  ]  # fmt: skip
  write_thresholds(run, {"db-1": 1.0, "web-1": 2.0})  # back again: the first version, not a third
  score(run, SCORES)
  assert record(run)[:] == (1, False, 0, 0, 3)


def test_a_scoring_that_does_not_belong_is_refused(tmp_path: Path) -> None:
  run = make_run(tmp_path / "run", ROLES, {"db-1": 1.0, "web-1": 2.0})
  with pytest.raises(ValueError, match=r"scores\.parquet: not found; score\.py writes it"):
    read_recording(run, run)
  score(run, SCORES)
  write_thresholds(run, {"db-1": 1.5, "web-1": 2.0})
  told = r"machine 'db-1' was scored with threshold 1\.0, .*calibration\.json has 1\.5; run score\.py again"
  with pytest.raises(ValueError, match=told):
    read_recording(run, run)
  write_thresholds(run, {"db-1": 1.0, "web-1": 2.0})
  other = score(run, {**SCORES, "web-1": SCORES["web-1"] * 1.1}, folder=tmp_path / "other")
  (run / "events.parquet").write_bytes((other / "events.parquet").read_bytes())
  told = r"events\.parquet: event web-1:100-104: its peak is 5\.5, that of its rows in scores\.parquet 5\.0"
  with pytest.raises(ValueError, match=told):
    read_recording(run, run)
  text = (run / "calibration.json").read_text()
  (run / "calibration.json").write_text(text.replace(scored_run.RUN_ID, "another"))
  with pytest.raises(ValueError, match=r"scores\.parquet: of run 0123abcd, .*calibration\.json is of another"):
    read_recording(run, run)
  (run / "calibration.json").write_text(text.replace('"pot": {"threshold": 1.0}', '"pot": {}'))
  with pytest.raises(ValueError, match=r"machine 'db-1': field 'threshold' is missing"):
    read_recording(run, run)
  assert not (run / LEDGER).exists()
