"""Events as they are told to the world: read from events.parquet, one JSON object each."""

import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

LEVELS = ("warning", "critical")  # rising
_COLUMNS = ("event_id", "machine", "start_row", "end_row", "start", "end", "severity", "peak", "contributors")


class ToldEvent(NamedTuple):
  """One event. start, end: ISO 8601 with milliseconds, of its first and last row, or None where there is no clock.

  contributors: (metric, share), largest first. run_id: of the model that raised it. attention_change: (metric,
  change), largest size first, or None where the model has none.
  """

  event_id: str
  machine: str
  level: str
  start_row: int
  end_row: int
  start: str | None
  end: str | None
  severity: float | None
  peak: float | None
  contributors: tuple[tuple[str, float], ...]
  run_id: str
  attention_change: tuple[tuple[str, float], ...] | None = None


def as_json(event: ToldEvent) -> dict[str, Any]:
  """Returns the event as JSON-able values; `attention_change` is among them only where there is one."""
  values = {
    **event._asdict(),
    "contributors": [{"metric": metric, "contribution": share} for metric, share in event.contributors],
  }
  changes = values.pop("attention_change")
  if changes is None:
    return values
  return {**values, "attention_change": [{"metric": metric, "change": change} for metric, change in changes]}


def _changes(found: list[dict[str, Any]] | None) -> tuple[tuple[str, float], ...] | None:
  return None if found is None else tuple((entry["metric"], entry["change"]) for entry in found)


def from_json(values: dict[str, Any]) -> ToldEvent:
  """Returns what `as_json` made; raises KeyError or TypeError on what it has not made."""
  causes = tuple((cause["metric"], cause["contribution"]) for cause in values["contributors"])
  changes = _changes(values.get("attention_change"))
  return ToldEvent(**{**values, "contributors": causes, "attention_change": changes})


def _text(moment: datetime.datetime | None) -> str | None:
  return None if moment is None else moment.isoformat(timespec="milliseconds")


def read_events(folder: str, lowest: str = LEVELS[0]) -> list[ToldEvent]:
  """Returns the events of a folder of scores, oldest first; those without a clock by machine and row.

  Args:
    folder: where score.py put its tables. lowest: level below which events are left out.

  Raises:
    ValueError: no events.parquet, one that is damaged or lacks a column; file and column are named.
  """
  path = Path(folder) / "events.parquet"
  if not path.is_file():
    raise ValueError(f"{path}: not found; score.py writes it")
  try:
    table = pq.read_table(path)
  except (pa.ArrowException, OSError) as error:
    raise ValueError(f"{path}: not a readable Parquet file: {error}") from None
  missing = [name for name in _COLUMNS if name not in table.column_names]
  if missing:
    raise ValueError(f"{path}: column {missing[0]!r} is missing; there are {', '.join(table.column_names)}")
  run_id = (table.schema.metadata or {}).get(b"run_id", b"").decode()
  events = []
  for line in table.to_pylist():
    level = line.get("level") or "critical"  # files of before there were levels hold critical events only
    if level not in LEVELS:
      raise ValueError(f"{path}: event {line['event_id']}: level {level!r}; one of {', '.join(LEVELS)} is wanted")
    if LEVELS.index(level) < LEVELS.index(lowest):
      continue
    events.append(
      ToldEvent(
        event_id=line["event_id"],
        machine=line["machine"],
        level=level,
        start_row=line["start_row"],
        end_row=line["end_row"],
        start=_text(line["start"]),
        end=_text(line["end"]),
        severity=line["severity"],
        peak=line["peak"],
        contributors=tuple((cause["metric"], cause["contribution"]) for cause in line["contributors"] or ()),
        run_id=run_id,
        attention_change=_changes(line.get("attention_change")),  # files of before there were any have no column
      )
    )
  return sorted(events, key=lambda event: (event.start or "", event.machine, event.start_row))
