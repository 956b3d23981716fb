"""The events of a scoring: events.parquet in, one `Event` a line out; columns of later versions where they are."""

from pathlib import Path
from typing import Any, NamedTuple

from mtad_jax.detect.events import CRITICAL
from mtad_jax.report.parquet import read_columns

_COLUMNS = ("event_id", "machine", "start_row", "end_row", "severity", "peak", "contributors")
_OPTIONAL = ("start", "end", "level", "model", "cause_set", "attention_change")


class Event(NamedTuple):
  """One line of events.parquet; rows from 0, end exclusive; contributors sorted, largest first.

  level: "critical" or "warning"; files of before there were levels hold critical events only.
  model: what scored it, empty where the file does not say. cause_set: the fewest metrics without which the strongest
  row is normal, or None. attention_change: by metric, how much more (+) or less (-) the network attends to it at the
  peak row than in its calibration part, in standard deviations; None where the file has none.
  """

  event_id: str
  machine: str
  start_row: int
  end_row: int
  start: str
  end: str
  severity: float
  peak: float
  contributors: tuple[tuple[str, float], ...]
  level: str
  model: str = ""
  cause_set: tuple[str, ...] | None = None
  attention_change: dict[str, float] | None = None


def read_events(path: Path, missing: dict[str, str]) -> list[Event]:
  """Returns the events in the order of the file; where there is none, `missing` gets the reason under "events"."""
  if not path.is_file():
    missing["events"] = f"There is no {path.name}: scripts/score.py writes it beside the scores."
    return []
  return [_event(line) for line in read_columns(path, _COLUMNS, _OPTIONAL).to_pylist()]


def _event(line: dict[str, Any]) -> Event:
  pairs = [(str(item["metric"]), float(item["contribution"] or 0.0)) for item in line["contributors"] or []]
  causes, attention = line.get("cause_set"), line.get("attention_change")
  changes = {str(item["metric"]): item["change"] for item in attention or []}
  return Event(
    event_id=str(line["event_id"]),
    machine=str(line["machine"]),
    start_row=int(line["start_row"]),
    end_row=int(line["end_row"]),
    start=_text(line.get("start")),
    end=_text(line.get("end")),
    severity=float("nan") if line["severity"] is None else float(line["severity"]),
    peak=float("nan") if line["peak"] is None else float(line["peak"]),
    contributors=tuple(sorted(pairs, key=lambda pair: -pair[1])),
    level=_text(line.get("level")) or CRITICAL,
    model=_text(line.get("model")),
    cause_set=None if causes is None else tuple(map(str, causes)),
    attention_change={name: float(change) for name, change in changes.items() if change is not None} or None,
  )


def _text(value: Any) -> str:
  return "" if value is None else str(value)
