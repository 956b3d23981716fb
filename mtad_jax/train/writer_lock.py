"""One writer per work directory: a second program is refused, by a line that says who is at work.

On a local disk the kernel's lock on FOLDER/.lock, which ends with the process however it dies. In cloud
storage an object FOLDER/.lock that is created only if absent; a killed writer leaves it, and it is told how to
go on.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import platform
import uuid
from collections.abc import Iterator

import fsspec
from etils import epath

LOCK = ".lock"


@contextlib.contextmanager
def writer_lock(folder: epath.PathLike, program: str) -> Iterator[None]:
  """Yields while this process alone writes into `folder`.

  Args:
    folder: an existing local folder, or a path with a scheme such as gs://. program: who asks, as told to a
      second one: "train.py".

  Raises:
    ValueError: another program, or another part of this one, is writing there.
    OSError: the lock cannot be made: no permission, no space, or a disk without locks.
  """
  path = os.fspath(folder)
  with _cloud_lock(path, program) if "://" in path else _local_lock(path, program):
    yield


def _owner(program: str) -> bytes:
  """Returns what a second program is told about the first."""
  owner = {
    "program": program,
    "process": os.getpid(),
    "host": platform.node(),
    "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    "token": uuid.uuid4().hex,
  }
  return json.dumps(owner).encode()


def _told(content: bytes) -> str:
  try:
    owner = json.loads(content)
    return f"{owner['program']} (process {owner['process']} on {owner['host']}, since {owner['since']})"
  except (ValueError, KeyError, TypeError):
    return "another program"  # it has the lock, and has not written its name yet


@contextlib.contextmanager
def _local_lock(folder: str, program: str) -> Iterator[None]:
  path = os.path.join(folder, LOCK)
  try:
    descriptor = _locked(folder, path)
  except OSError as error:
    raise OSError(f"{path}: the writer's lock cannot be made: {error.strerror}") from error
  try:
    try:
      os.ftruncate(descriptor, 0)
      os.pwrite(descriptor, _owner(program), 0)
    except OSError as error:
      if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise OSError(f"{path}: the writer's lock cannot be made: {error.strerror}") from error
      # a full disk: the lock holds without its text, and what needs the space will say so
    yield
  finally:
    # While it is still held, so that nobody else's is removed; gone already if the folder was removed, and
    # not removable from a disk that became read-only. A file that stays locks nothing.
    with contextlib.suppress(OSError):
      os.unlink(path)
    os.close(descriptor)


def _locked(folder: str, path: str) -> int:
  """Returns a descriptor of the lock file, locked; raises ValueError where another one has it."""
  while True:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
      # The one before may have removed the file between our opening and locking it: then it locks nothing.
      if os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
        return descriptor
    except BlockingIOError:
      told = _told(os.pread(descriptor, 4096, 0))
      os.close(descriptor)
      raise ValueError(f"{folder}: {told} is writing here; wait for it or stop it") from None
    except BaseException:
      os.close(descriptor)
      raise
    os.close(descriptor)


@contextlib.contextmanager
def _cloud_lock(folder: str, program: str) -> Iterator[None]:
  files, root = fsspec.core.url_to_fs(folder)
  path = f"{root.rstrip('/')}/{LOCK}"
  owner = _owner(program)
  try:
    files.pipe_file(path, owner, mode="create")
  except FileExistsError:
    there = files.cat_file(path)
    if there != owner:  # ours, where the store took the object and its answer was lost
      raise ValueError(
        f"{folder}: {_told(there)} is writing here; wait for it or stop it; if it was killed, delete "
        f"{folder.rstrip('/')}/{LOCK} and run again"
      ) from None
  try:
    yield
  finally:
    if files.exists(path) and files.cat_file(path) == owner:  # not one that replaced ours by hand
      files.rm_file(path)
