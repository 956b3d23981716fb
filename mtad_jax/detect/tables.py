"""The tables that scoring writes: scores, metric_scores, events, segments; Parquet, whole or not at all.

Each has one row group per machine, and the schema's version and the run id in the file's metadata.
"""

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

# 1: without threshold_warning and level, every event was critical. 2: without model and cause_set. 3: without
# attention_change
SCHEMA_VERSION = "4"
# what scored a row, in the column model; a machine's own network, one that began from another machine of its role,
# its own linear forecast, its role's mixture calibrated on its own rows, and the same on those of its peers alone
NETWORK, ROLE_NETWORK, LINEAR = "network", "role_network", "linear"
ROLE_MIXTURE, ROLE_MIXTURE_COLD = "role_mixture", "role_mixture_cold"
COLD_START = "cold_start"  # key of the metadata that names machines without a model of their own
_NAME = pa.string()  # Parquet stores it as a dictionary anyway; Arrow cannot group by one per row group
_TIME = pa.timestamp("ms")

SCORES = pa.schema(
  [
    ("machine", _NAME),
    ("row", pa.int64()),
    ("timestamp", _TIME),
    ("score", pa.float64()),
    ("threshold", pa.float64()),
    ("threshold_initial", pa.float64()),
    ("score_ratio", pa.float64()),
    ("is_anomaly", pa.bool_()),
    ("valid", pa.bool_()),
    ("score_joint", pa.float64()),
    ("score_density", pa.float64()),
    ("score_standardised", pa.float64()),
    ("score_surprise", pa.float64()),
    ("score_gamma", pa.float64()),
    ("score_raw", pa.float64()),
    ("label", pa.bool_()),
    ("model", _NAME),
    ("threshold_warning", pa.float64()),
  ]
)
METRIC_SCORES = pa.schema(
  [
    ("machine", _NAME),
    ("row", pa.int64()),
    ("metric", _NAME),
    ("score", pa.float64()),
    ("forecast", pa.float64()),
    ("reconstruction", pa.float64()),
    ("expected_low", pa.float64()),
    ("expected_high", pa.float64()),
    ("actual", pa.float64()),
  ]
)
EVENTS = pa.schema(
  [
    ("event_id", pa.string()),
    ("machine", _NAME),
    ("start_row", pa.int64()),
    ("end_row", pa.int64()),
    ("start", _TIME),
    ("end", _TIME),
    ("severity", pa.float64()),
    ("peak", pa.float64()),
    ("contributors", pa.list_(pa.struct([("metric", pa.string()), ("contribution", pa.float64())]))),
    ("level", pa.string()),
    ("model", pa.string()),
    ("cause_set", pa.list_(pa.string())),
    ("attention_change", pa.list_(pa.struct([("metric", pa.string()), ("change", pa.float64())]))),
  ]
)
SEGMENTS = pa.schema(
  [
    ("machine", _NAME),
    ("start_row", pa.int64()),
    ("end_row", pa.int64()),
    ("metrics", pa.list_(pa.string())),
  ]
)
SCHEMAS = {"scores": SCORES, "metric_scores": METRIC_SCORES, "events": EVENTS, "segments": SEGMENTS}


def column(values: Any, kind: pa.DataType) -> pa.Array:
  """Returns an Arrow array; NaN in a floating column and None anywhere become null."""
  if isinstance(values, str):
    raise TypeError("a column is a sequence, not a text")
  if pa.types.is_floating(kind):
    return pa.array(np.asarray(values, np.float64), kind, from_pandas=True)
  return pa.array(values, kind)


class TableWriter:
  """One table being written; `write` takes columns by name, missing ones are null."""

  def __init__(self, path: epath.Path, schema: pa.Schema):
    self._schema = schema
    self._file = path.open("wb")
    self._writer = pq.ParquetWriter(self._file, schema)

  def write(self, columns: dict[str, Any]) -> None:
    """Appends one row group; raises KeyError on a column that the schema does not have."""
    unknown = set(columns) - set(self._schema.names)
    if unknown:
      raise KeyError(f"columns {sorted(unknown)} are not in the schema")
    num_rows = len(next(iter(columns.values())))
    if not num_rows:
      return
    arrays = [
      column(columns[field.name], field.type) if field.name in columns else pa.nulls(num_rows, field.type)
      for field in self._schema
    ]
    self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

  def close(self) -> None:
    """Ends the file; a second call does nothing."""
    try:
      self._writer.close()
    finally:
      self._writer.is_open = False  # what failed once (a full disk) is not tried again on collection
      self._file.close()  # PyArrow leaves open what it did not open: unflushed, and in the cloud not uploaded


@contextlib.contextmanager
def open_tables(
  folder: epath.PathLike, run_id: str, has_labels: bool, cold: Mapping[str, Mapping[str, Any]] | None = None
) -> Iterator[dict[str, TableWriter]]:
  """Yields writers by table name; on leaving, all files appear together, or on an error none does.

  Args:
    has_labels: whether scores gets a column for them.
    cold: what is known of the machines without a model of their own, by name: role, group, and run_id of the
      mixture; kept in the files' metadata, as no fleet.json has them.
  """
  target = epath.Path(folder)
  target.mkdir(parents=True, exist_ok=True)
  about = {"schema_version": SCHEMA_VERSION, "run_id": run_id, **({COLD_START: json.dumps(cold)} if cold else {})}
  mark = uuid.uuid4().hex[:8]
  paths = {name: target / f".{name}.{mark}.parquet" for name in SCHEMAS}
  writers = {}
  try:
    for name, schema in SCHEMAS.items():
      if name == "scores" and not has_labels:
        schema = schema.remove(schema.get_field_index("label"))
      writers[name] = TableWriter(paths[name], schema.with_metadata(about))
    yield writers
    for writer in writers.values():
      writer.close()
    for name, path in paths.items():
      path.replace(target / f"{name}.parquet")
  finally:
    for writer in writers.values():
      with contextlib.suppress(OSError):  # the error that led here is the one to tell
        writer.close()
    for path in paths.values():
      if path.exists():
        path.unlink()
