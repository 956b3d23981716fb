"""ledger.sqlite of a work directory: opened, brought to this version, written in transactions.

Safe under writers at once (each waits for the other's transaction) and under SIGKILL (SQLite's rollback journal
undoes what was half written when the file is opened next). A WAL would need shared memory, which network disks lack.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator

from etils import epath

from mtad_jax.alerts.schema import migrate
from mtad_jax.train.workdir import is_cloud

LEDGER = "ledger.sqlite"
BUSY_S = 60.0  # a writer waits so long for another's transaction: milliseconds, for a month's events a second


def ledger_path(workdir: epath.PathLike) -> str:
  """Returns where the ledger of a work directory lies; raises ValueError where that is no local folder."""
  folder = os.fspath(workdir)
  if is_cloud(folder):
    raise ValueError(f"{folder}: the ledger needs a local path; copy the work directory to this machine")
  if not os.path.isdir(folder):
    raise ValueError(f"{folder}: there is no such work directory")
  return os.path.join(folder, LEDGER)


@contextlib.contextmanager
def open_ledger(workdir: epath.PathLike, *, create: bool = False) -> Iterator[sqlite3.Connection]:
  """Yields the ledger, in autocommit mode.

  Args:
    create: make one where there is none.

  Raises:
    ValueError: no local folder, no ledger, a newer one, or a file that is none.
    OSError: it cannot be read or written.
  """
  file = ledger_path(workdir)
  if not create and not os.path.exists(file):
    raise ValueError(f"{file}: not found; annotate.py record makes it")
  with _told(file):
    connection = sqlite3.connect(file, timeout=BUSY_S, isolation_level=None)
    with contextlib.closing(connection):
      for setting in ("foreign_keys = ON", "synchronous = FULL", "recursive_triggers = ON"):
        connection.execute(f"PRAGMA {setting}")
      migrate(connection, file)
      yield connection


@contextlib.contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
  """Yields inside a transaction that has the write lock from its start; what fails inside leaves nothing."""
  connection.execute("BEGIN IMMEDIATE")
  try:
    yield
    connection.execute("COMMIT")
  except BaseException:
    if connection.in_transaction:
      connection.execute("ROLLBACK")
    raise


@contextlib.contextmanager
def reading(connection: sqlite3.Connection) -> Iterator[None]:
  """Yields inside a transaction, so that all tables are read as of one moment."""
  connection.execute("BEGIN")
  try:
    yield
  finally:
    connection.execute("ROLLBACK")


@contextlib.contextmanager
def _told(file: str) -> Iterator[None]:
  """Turns SQLite's own errors (a full disk, a damaged file) into such as end a command in one line."""
  try:
    yield
  except sqlite3.OperationalError as error:
    raise OSError(f"{file}: {error}") from error
  except sqlite3.DatabaseError as error:
    if type(error) is not sqlite3.DatabaseError:  # a broken constraint is a fault of ours
      raise
    raise ValueError(f"{file}: {error}") from error
