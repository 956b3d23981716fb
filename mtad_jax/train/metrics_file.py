"""metrics.jsonl as rows, read and checked in one place, without jax: training, inspection and report use it.

A header row names the machines of a group; every later row holds one log step, with one value a machine. On a
local disk the rows are one file; in cloud storage numbered parts, metrics-000001.jsonl and so on. A part whose
name ends in -whole replaces all that stand before it, so a rewrite needs no moment without rows.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn

from etils import epath

METRICS = "metrics.jsonl"
LOSSES = ("loss", "forecast_loss", "reconstruction_loss", "kl", "validation_loss")
SKIPPED, ROLLED_BACK, RETIRED = VERDICTS = ("skipped", "rolled back", "retired")
_NUMBERED = re.compile(r"metrics-(\d+)(-whole)?\.jsonl")
# What the fields of a row hold; null: not finite, or no step taken.
_WHOLE = frozenset({int})
_COUNT = frozenset({int, bool})
_NUMBER = frozenset({int, float, type(None)})
_VECTORS = {
  **dict.fromkeys((*LOSSES, "learning_rate"), _NUMBER),
  **dict.fromkeys(("machine_step", "num_skipped", "num_rolled_back", "retired", "stopped"), _COUNT),
}
_RECORD = {
  **dict.fromkeys(("step", "tick", "attempt"), _WHOLE),
  **dict.fromkeys(("learning_rate", "loss", "usual_loss"), _NUMBER),
  **dict.fromkeys(("worst_row", "back_to"), _WHOLE | {type(None)}),
}


class Part(NamedTuple):
  """One file of the log: its number (0: metrics.jsonl) and whether it replaces those before it."""

  number: int
  path: epath.Path
  is_whole: bool


class Line(NamedTuple):
  """One row, with its own text (without the line's end)."""

  text: str
  row: dict[str, Any]


class GroupLog(NamedTuple):
  """One group's log: the names of its machines, and its rows by rising step, each step once."""

  machines: tuple[str, ...]
  rows: list[dict[str, Any]]


def part_name(number: int, *, is_whole: bool) -> str:
  """Returns the name of a numbered part."""
  return f"metrics-{number:06d}{'-whole' if is_whole else ''}.jsonl"


def find_parts(workdir: epath.PathLike) -> list[Part]:
  """Returns all parts by rising number, those included that a later one replaces."""
  folder = epath.Path(workdir)
  parts = [Part(0, folder / METRICS, True)] if (folder / METRICS).exists() else []
  for path in folder.glob("metrics-*.jsonl"):
    if match := _NUMBERED.fullmatch(path.name):
      parts.append(Part(int(match[1]), path, match[2] is not None))
  return sorted(parts)


def read_lines(workdir: epath.PathLike) -> list[Line]:
  """Returns the log's rows in the order they were written; a last line cut short by a kill is left out.

  Raises:
    ValueError: a damaged row; the file and the row (from 1) are named.
  """
  parts = find_parts(workdir)
  first = max((index for index, part in enumerate(parts) if part.is_whole), default=0)
  lines: list[Line] = []
  machines: dict[int, tuple[str, ...]] = {}
  for part in parts[first:]:
    *ended, rest = part.path.read_bytes().split(b"\n")
    for number, data in enumerate(ended, start=1):
      try:
        lines.append(_line(data, machines))
      except ValueError as error:
        raise ValueError(f"{part.path}: row {number}: {error}") from None
    if rest:
      try:
        lines.append(_line(rest, machines))
      except ValueError as error:
        # a writer is killed in its last line only
        if part != parts[-1]:
          raise ValueError(f"{part.path}: row {len(ended) + 1}: {error}") from None
  return lines


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
  """Returns the rows of `read_lines`, headers among them; [] where there is no log.

  Raises:
    ValueError: a damaged row; the file and the row (from 1) are named.
  """
  return [line.row for line in read_lines(workdir)]


def group_logs(rows: Iterable[dict[str, Any]]) -> dict[int, GroupLog]:
  """Returns each group's log; where a step stands twice, the later row counts.

  Args:
    rows: from `read_metrics`, or those of them up to some step.
  """
  machines: dict[int, tuple[str, ...]] = {}
  steps: dict[int, dict[int, dict[str, Any]]] = {}
  for row in rows:
    if row.get("header"):
      machines[row["group"]] = tuple(row["machines"])
    else:
      steps.setdefault(row["group"], {})[row["step"]] = row
  return {
    group: GroupLog(names, [row for _, row in sorted(steps.get(group, {}).items(), key=lambda item: item[0])])
    for group, names in machines.items()
  }


def _line(data: bytes, machines: dict[int, tuple[str, ...]]) -> Line:
  """Returns one checked row, and enters a header's names; raises ValueError without the place."""
  try:
    text = data.decode()
    row = json.loads(text, parse_constant=_refuse)
  except ValueError:
    raise ValueError("not readable as JSON") from None
  if not isinstance(row, dict):
    raise ValueError(f"a {type(row).__name__}; named values are wanted")
  group = row.get("group")
  if type(group) is not int:
    raise ValueError(f"group is {group!r}; a whole number is wanted")
  if row.get("header"):
    names = row.get("machines")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
      raise ValueError("machines is no list of names")
    if machines.setdefault(group, tuple(names)) != tuple(names):
      raise ValueError(f"a second header row names other machines for group {group}")
    return Line(text, row)
  if group not in machines:
    raise ValueError(f"no header row names the machines of group {group}")
  _check_step(row, machines[group])
  return Line(text, row)


def _refuse(constant: str) -> NoReturn:
  raise ValueError(f"{constant} is not JSON")


def _check_step(row: dict[str, Any], names: tuple[str, ...]) -> None:
  if type(row.get("step")) is not int:
    raise ValueError(f"step is {row.get('step')!r}; a whole number is wanted")
  for name, types in _VECTORS.items():
    values = row.get(name)
    # an older log has one learning rate for all machines
    if name not in row or (name == "learning_rate" and type(values) in _NUMBER):
      continue
    if not isinstance(values, list) or not set(map(type, values)) <= types:
      raise ValueError(f"{name} is no list of numbers")
    if len(values) != len(names):
      raise ValueError(f"{name} has {len(values)} values for {len(names)} machines")
  records = row.get("trouble", [])
  if not isinstance(records, list):
    raise ValueError("trouble is no list")
  for record in records:
    _check_record(record, names)


def _check_record(record: Any, names: tuple[str, ...]) -> None:
  if not isinstance(record, dict) or record.get("machine") not in names:
    raise ValueError("trouble names no machine of the group")
  for name, types in _RECORD.items():
    if type(record.get(name)) not in types:
      raise ValueError(f"trouble: {name} is {record.get(name)!r}; a number is wanted")
  if record.get("verdict") not in VERDICTS:
    raise ValueError(f"trouble: verdict is {record.get('verdict')!r}; one of {', '.join(VERDICTS)} is wanted")
  for name, wanted in (("parts", str), ("blocks", str), ("rows", int)):
    if not isinstance(record.get(name), list) or not set(map(type, record[name])) <= {wanted}:
      raise ValueError(f"trouble: {name} is no list of {'names' if wanted is str else 'rows'}")
