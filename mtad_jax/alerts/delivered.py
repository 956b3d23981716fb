"""What an outlet was told already: a small JSON file, so that no event is told twice and none is lost.

With a clock, an event of the same machine whose time overlaps one that was told is that one: it began before the
scored rows do, goes on, or was scored again by another model. It is told a second time only where it has become
critical since. Without a clock nothing says whether row 150 is the same moment as before, so that an event is known
only if run, machine, first row, level and peak are all the same: rather told twice than not at all.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from mtad_jax.alerts.told_event import LEVELS, ToldEvent
from mtad_jax.train.workdir import write_json

_FIELDS = ("machine", "level", "start", "end")


def event_key(event: ToldEvent) -> str:
  """Returns what names an event among all: the same as long as it goes on and its level stays."""
  parts: list[Any] = [event.machine, event.level, event.start]
  if event.start is None:
    parts = [event.machine, event.level, event.run_id, event.start_row, event.peak]
  return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


class Delivered:
  """The events that one outlet was told. Nothing is on disk before `save`, which writes whole or not at all."""

  def __init__(self, path: Path):
    """Reads the file, where there is one; raises ValueError naming it where it is damaged."""
    self._path = path
    self._keys: set[str] = set()
    self._timed: dict[str, list[dict[str, Any]]] = {}  # by machine
    if not path.exists():
      return
    try:
      content = json.loads(path.read_text())
      self._keys = set(content["keys"])
      for entry in content["timed"]:
        self._timed.setdefault(entry["machine"], []).append({name: entry[name] for name in _FIELDS})
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f"{path}: damaged ({type(error).__name__}: {error}); it holds which events were told already: restore it, or"
        " remove it to have all told again"
      ) from None

  def _overlapping(self, event: ToldEvent) -> list[dict[str, Any]]:
    if event.start is None or event.end is None:
      return []
    known = self._timed.get(event.machine, [])
    return [entry for entry in known if event.start <= entry["end"] and entry["start"] <= event.end]

  def knows(self, event: ToldEvent) -> bool:
    """Returns whether the event was told at its level or above; one that goes on is followed to its new end."""
    if event.start is None:
      return event_key(event) in self._keys
    found = False
    for entry in self._overlapping(event):
      entry["end"] = max(entry["end"], event.end)
      found |= LEVELS.index(entry["level"]) >= LEVELS.index(event.level)
    return found

  def add(self, event: ToldEvent) -> None:
    """Notes that the event was told."""
    if event.start is None:
      self._keys.add(event_key(event))
    elif not self.knows(event):
      entry = {name: getattr(event, name) for name in _FIELDS}
      self._timed.setdefault(event.machine, []).append(entry)

  def save(self) -> None:
    """Writes the file, whole or not at all."""
    timed = [entry for entries in self._timed.values() for entry in entries]
    write_json(self._path, {"keys": sorted(self._keys), "timed": timed})
