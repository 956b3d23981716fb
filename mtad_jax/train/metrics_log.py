"""Writes metrics.jsonl: one row per log step, per-machine vectors; a resumed run leaves no row twice, none out.

On local disks rows are appended to one file. Cloud objects cannot be appended to: there each flush is a
numbered part. metrics_file.py has the format and the reading.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from etils import epath

from mtad_jax.train.metrics_file import METRICS, find_parts, part_name, read_lines
from mtad_jax.train.metrics_file import read_metrics as read_metrics
from mtad_jax.train.workdir import is_cloud


class MetricsLog:
  """Writes one group's rows; rows of other groups stay as they are."""

  def __init__(self, workdir: epath.PathLike, group: int, machines: tuple[str, ...], resume_step: int):
    """Drops the group's rows after `resume_step`; writes the header row where there is none.

    Args:
      resume_step: the fleet step (tick) that training goes on from; 0: a new log for the group.

    Raises:
      ValueError: the log is damaged; the file and the row are named.
      OSError: the log cannot be written; the file is named, and what was there stays.
    """
    self._folder = epath.Path(workdir)
    self._is_cloud = is_cloud(str(workdir))
    self._group = group
    self._pending: list[str] = []
    # a step that stands twice keeps its place and its later text
    kept: dict[tuple[int, int], str] = {}
    for line in read_lines(workdir):
      step = -1 if line.row.get("header") else line.row["step"]
      if line.row["group"] != group or (resume_step and step <= resume_step):
        kept[line.row["group"], step] = line.text
    header = {"header": True, "group": group, "machines": list(machines)}
    kept.setdefault((group, -1), json.dumps(header))
    self._rewrite("".join(f"{text}\n" for text in kept.values()))

  def write(self, row: dict[str, Any]) -> None:
    """Takes one row, whose numbers become null where they are not finite.

    On a local disk the system has the row when this returns, and a kill leaves at most one half line.

    Raises:
      OSError: the row cannot be written; the file is named, and ends with the row before.
    """
    text = json.dumps(_finite({"group": self._group, **row}), allow_nan=False)
    self._pending.append(f"{text}\n")
    if not self._is_cloud:
      self.flush()

  def flush(self) -> None:
    """Writes what is pending."""
    if not self._pending:
      return
    text = "".join(self._pending)
    path = self._folder / (part_name(self._num_parts + 1, is_whole=False) if self._is_cloud else METRICS)
    with _naming(path):
      if self._is_cloud:
        path.write_text(text)
        self._num_parts += 1
      else:
        _append(path, text.encode())
    self._pending = []

  def _rewrite(self, text: str) -> None:
    """Puts `text` in place of all parts: at every moment either the old rows are read or the new ones."""
    old = find_parts(self._folder)
    self._num_parts = old[-1].number + 1 if old else 1
    path = self._folder / (part_name(self._num_parts, is_whole=True) if self._is_cloud else METRICS)
    with _naming(path):
      if self._is_cloud:
        path.write_text(text)
      else:
        temporary = self._folder / f".{METRICS}.new"
        try:
          temporary.write_text(text)
          temporary.replace(path)
        finally:
          temporary.unlink(missing_ok=True)
      for part in old:
        if part.path != path:
          part.path.unlink(missing_ok=True)


@contextmanager
def _naming(path: epath.Path) -> Iterator[None]:
  """Gives an OSError the file's name: a failed write has none of its own."""
  try:
    yield
  except OSError as error:
    raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def _append(path: epath.Path, data: bytes) -> None:
  """Appends whole rows; where the disk is full, the file is left as it was."""
  with open(path, "ab", buffering=0) as file:
    before = file.tell()
    rest = memoryview(data)
    try:
      while rest:
        rest = rest[file.write(rest) :]
    except OSError:
      # where even this fails, a half line stays, which readers leave out
      with suppress(OSError):
        file.truncate(before)
      raise


def _finite(value: Any) -> Any:
  """Returns JSON-able values with null for what is not finite, which JSON cannot say."""
  if isinstance(value, dict):
    return {name: _finite(entry) for name, entry in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(entry) for entry in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value
