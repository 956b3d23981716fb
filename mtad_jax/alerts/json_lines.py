"""Events appended to a file, one JSON object a line, each once, however often the command runs or is killed.

The lines themselves say what was written; beside them `.NAME.told.json` follows events that go on, and remembers
lines that were rotated away. A line cut short by a kill is cut off and written again.
"""

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from mtad_jax.alerts.delivered import Delivered
from mtad_jax.alerts.told_event import ToldEvent, as_json, from_json

_BEGIN = b'{"event_id": '  # of every line; what is cut short and begins otherwise is not ours to cut off


def _from_line(line: bytes) -> ToldEvent:
  values = json.loads(line)
  if not isinstance(values, dict):
    raise ValueError(f"a {type(values).__name__}")
  return from_json(values)


def _recover(file: BinaryIO, path: Path, told: Delivered) -> None:
  """Notes the whole lines as told, and leaves the file at its end without a line that was cut short."""
  file.seek(0)
  end = 0
  for number, line in enumerate(file, 1):
    if not line.endswith(b"\n"):
      if not (line.startswith(_BEGIN) or _BEGIN.startswith(line)):
        raise ValueError(f"{path}, line {number}: no event of alert.py, and no end of line; give another file")
      break
    try:
      told.add(_from_line(line))
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(f"{path}, line {number}: no event of alert.py ({error}); give another file") from None
    end += len(line)
  file.truncate(end)
  file.seek(end)


def append_events(path: Path, events: Sequence[ToldEvent]) -> int:
  """Returns how many events were appended: those that the file did not have yet.

  Raises:
    ValueError: a line that is no event, a damaged memory, or another program that writes there now.
    OSError: the file cannot be written to; the lines before are whole, and the next run goes on.
  """
  told = Delivered(path.with_name(f".{path.name}.told.json"))
  descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
  with os.fdopen(descriptor, "r+b", buffering=0) as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise ValueError(f"{path}: another program is writing here; wait for it") from None
    _recover(file, path, told)
    count = 0
    for event in events:
      if not told.knows(event):
        line = json.dumps(as_json(event), allow_nan=False).encode() + b"\n"
        while line:  # an unbuffered write may take a part
          line = line[file.write(line) :]
        told.add(event)
        count += 1
    os.fsync(file.fileno())
    told.save()
  return count
