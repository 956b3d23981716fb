"""metrics.jsonl: one row per log step, per-machine vectors; a resumed run leaves no row twice.

On local disks rows are appended to one file. Cloud objects cannot be appended to: there each flush is a
numbered part, metrics-000001.jsonl and so on, and reading joins them.
"""

import json
from typing import Any

from etils import epath

from mtad_jax.train.workdir import METRICS, is_cloud


def _parts(folder: epath.Path) -> list[epath.Path]:
  whole = folder / METRICS
  numbered = sorted(folder.glob("metrics-*.jsonl"))
  return ([whole] if whole.exists() else []) + numbered


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
  """Returns all rows; a last line cut short by a kill is left out."""
  rows = []
  for part in _parts(epath.Path(workdir)):
    for line in part.read_text().splitlines():
      try:
        rows.append(json.loads(line))
      except json.JSONDecodeError:
        break  # only a killed writer's last line can be cut; what follows it in a part does not exist
  return rows


class MetricsLog:
  """Writes one group's rows."""

  def __init__(self, workdir: epath.PathLike, group: int, machines: tuple[str, ...], resume_step: int):
    """Drops the group's rows after `resume_step`; writes the header row where there is none."""
    self._folder = epath.Path(workdir)
    self._group = group
    self._pending: list[str] = []
    kept = [
      row
      for row in read_metrics(workdir)
      if row["group"] != group or (resume_step and (row.get("header") or row["step"] <= resume_step))
    ]
    old = _parts(self._folder)
    if not any(row["group"] == group for row in kept):
      kept.append({"header": True, "group": group, "machines": list(machines)})
    self._num_parts = 0
    text = "".join(json.dumps(row) + "\n" for row in kept)
    self._replace(old, text)

  def _replace(self, old: list[epath.Path], text: str) -> None:
    if is_cloud(str(self._folder)):
      for part in old:
        part.unlink()
      self._num_parts = 1
      (self._folder / "metrics-000001.jsonl").write_text(text)
    else:
      temporary = self._folder / f".{METRICS}.new"
      temporary.write_text(text)
      temporary.replace(self._folder / METRICS)

  def write(self, row: dict[str, Any]) -> None:
    """Takes one row; on a local disk it is in the file when this returns."""
    self._pending.append(json.dumps({"group": self._group, **row}) + "\n")
    if not is_cloud(str(self._folder)):
      self.flush()

  def flush(self) -> None:
    """Writes what is pending."""
    if not self._pending:
      return
    text, self._pending = "".join(self._pending), []
    if is_cloud(str(self._folder)):
      self._num_parts += 1
      (self._folder / f"metrics-{self._num_parts:06d}.jsonl").write_text(text)
    else:
      with (self._folder / METRICS).open("a") as file:
        file.write(text)
