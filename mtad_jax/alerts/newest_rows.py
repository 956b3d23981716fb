"""The newest scored row of every machine, with the expected bands of the metrics that stand out most in it."""

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_SCORES = ("machine", "row", "timestamp", "score", "threshold", "score_ratio", "is_anomaly", "valid")
_BANDS = ("machine", "row", "metric", "score", "expected_low", "expected_high", "actual")
NUM_CAUSES = 3  # metrics a machine


class Band(NamedTuple):
  """One metric of the newest row, in its own unit; NaN where it was not seen."""

  metric: str
  expected_low: float
  expected_high: float
  actual: float


class NewestRow(NamedTuple):
  """One machine's last row. timestamp_s: seconds since 1970, None without a clock. NaN where it has no score.

  warning: the warning threshold, None where there is no such level.
  """

  machine: str
  timestamp_s: float | None
  score: float
  threshold: float
  warning: float | None
  ratio: float
  is_alarm: bool
  is_valid: bool
  bands: tuple[Band, ...]


def _read(path: Path, wanted: tuple[str, ...], optional: tuple[str, ...] = ()) -> pa.Table:
  try:
    with pq.ParquetFile(path) as file:
      present = file.schema_arrow.names
      absent = [name for name in wanted if name not in present]
      if not absent:
        return file.read(columns=[*wanted, *(name for name in optional if name in present)])
  except (pa.ArrowException, OSError) as error:
    raise ValueError(f"{path}: not a readable Parquet file: {error}") from None
  raise ValueError(f"{path}: column {absent[0]!r} is missing; there are {', '.join(present)}")


def _number(value: Any) -> float:
  return float("nan") if value is None else float(value)


def _bands(path: Path, newest: dict[str, int]) -> dict[str, list[dict[str, Any]]]:
  """Returns the metrics of the newest rows by machine, largest score first; none where the file lacks the row."""
  if not path.is_file():
    return {}
  table = _read(path, _BANDS)
  table = table.filter(pc.is_in(table["row"], pa.array(sorted(set(newest.values())), pa.int64())))
  found: dict[str, list[dict[str, Any]]] = {}
  for line in table.to_pylist():
    if newest.get(line["machine"]) == line["row"] and line["score"] is not None:
      found.setdefault(line["machine"], []).append(line)
  return {name: sorted(lines, key=lambda line: -line["score"]) for name, lines in found.items()}


def newest_rows(folder: str) -> list[NewestRow]:
  """Returns every machine's newest row, in the order of the file.

  Args:
    folder: where score.py put its tables; metric_scores.parquet holds rows near events only, unless asked for all.

  Raises:
    ValueError: no scores.parquet, one without rows, or a table that is damaged or lacks a column.
  """
  path = Path(folder) / "scores.parquet"
  if not path.is_file():
    raise ValueError(f"{path}: not found; score.py writes it")
  table = _read(path, _SCORES, ("threshold_warning",))
  if not len(table):
    raise ValueError(f"{path}: no rows; there is nothing to tell")
  last = table.select(["machine", "row"]).group_by("machine", use_threads=False).aggregate([("row", "max")])
  newest = {line["machine"]: line["row_max"] for line in last.to_pylist()}
  at_end = table.filter(pc.is_in(table["row"], pa.array(sorted(set(newest.values())), pa.int64())))
  lines = {line["machine"]: line for line in at_end.to_pylist() if newest[line["machine"]] == line["row"]}
  bands = _bands(Path(folder) / "metric_scores.parquet", newest)
  found = []
  for name in newest:
    line, stamp = lines[name], lines[name]["timestamp"]
    seconds = None if stamp is None else pa.scalar(stamp, pa.timestamp("ms")).value / 1000
    warning = line.get("threshold_warning")
    causes = bands.get(name, [])[:NUM_CAUSES]
    own = tuple(Band(band["metric"], *(_number(band[field]) for field in _BANDS[4:])) for band in causes)
    found.append(
      NewestRow(
        machine=name,
        timestamp_s=seconds,
        score=_number(line["score"]),
        threshold=_number(line["threshold"]),
        warning=None if warning is None else float(warning),
        ratio=_number(line["score_ratio"]),
        is_alarm=bool(line["is_anomaly"]),
        is_valid=bool(line["valid"]),
        bands=own,
      )
    )
  return found
