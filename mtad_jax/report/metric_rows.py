"""The metrics' scores of one machine as arrays: metric_scores.parquet in, row by metric out, machine after machine.

The file holds rows of events and a margin, or all rows (score.py --all_metric_scores): up to a billion figures for a
fleet, so one machine at a time is in memory. Parquet's own statistics find its row groups.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from mtad_jax.report.parquet import present_columns

FILE = "metric_scores.parquet"
_VALUES = ("score", "actual", "expected_low", "expected_high", "forecast", "reconstruction")


class MetricRows(NamedTuple):
  """One machine's figures. row: [R] int64, rising. metrics: [F] names. The others: [R, F] float64, NaN: none.

  expected: the forecast, or where the model makes none the reconstruction; low, high: the band around it.
  """

  row: np.ndarray
  metrics: tuple[str, ...]
  score: np.ndarray
  actual: np.ndarray
  low: np.ndarray
  high: np.ndarray
  expected: np.ndarray


class MetricFile:
  """metric_scores.parquet, opened once and read by machine.

  Raises:
    ValueError: on opening or reading, where the file is damaged or a column is missing; it is named.
  """

  def __init__(self, path: Path):
    self.path = path
    try:
      self._data = ds.dataset(path, format="parquet")
    except (pa.ArrowException, OSError) as error:
      raise ValueError(f"{path}: not a readable Parquet file: {error}") from None
    self._columns = present_columns(path, self._data.schema.names, ("machine", "row", "metric", *_VALUES))

  def rows_of(self, machine: str) -> MetricRows | None:
    """Returns the machine's figures; None where the file has no row of it."""
    try:
      table = self._data.to_table(columns=self._columns, filter=ds.field("machine") == machine)
    except (pa.ArrowException, OSError) as error:
      raise ValueError(f"{self.path}: not a readable Parquet file: {error}") from None
    if not table.num_rows:
      return None
    row, place = np.unique(table["row"].to_numpy(), return_inverse=True)
    names = table["metric"].cast(pa.string()).combine_chunks().dictionary_encode()
    lane = names.indices.to_numpy(zero_copy_only=False)

    def grid(name: str) -> np.ndarray:
      values = np.full((len(row), len(names.dictionary)), np.nan)
      values[place, lane] = table[name].cast(pa.float64()).to_numpy()
      return values

    forecast = grid("forecast")
    return MetricRows(
      row=row.astype(np.int64),
      metrics=tuple(names.dictionary.to_pylist()),
      score=grid("score"),
      actual=grid("actual"),
      low=grid("expected_low"),
      high=grid("expected_high"),
      expected=grid("reconstruction") if np.isnan(forecast).all() else forecast,
    )
