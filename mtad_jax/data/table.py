"""One file of a fleet folder: txt, csv, npy or parquet in; names, series and labels out.

txt has no header; csv has one, with an optional `timestamp` first and an optional `is_anomaly` or `Label`
last (capitals do not matter, lest a label be taken for a metric); npy is [T, F]; parquet is as csv.
"""

import io
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from etils import epath

from mtad_jax.data.clock import check_rising, from_epoch_seconds, parse_timestamps
from mtad_jax.data.machine import Series
from mtad_jax.data.text_table import read_fields, split_fields, to_number

EXTENSIONS = (".txt", ".csv", ".npy", ".parquet")
TIME_COLUMN = "timestamp"
LABEL_COLUMNS = ("is_anomaly", "label")


class Table(NamedTuple):
  """A file's content.

  metrics: names of the value columns, or None where the file has none (txt, npy).
  series: values [T, F] and timestamps [T] or None.
  labels: [T] bool, or None where the file has no label column.
  """

  metrics: tuple[str, ...] | None
  series: Series
  labels: np.ndarray | None


class _Columns(NamedTuple):
  """All columns as they stand: names (or None), numbers [T, C] without the timestamp."""

  names: tuple[str, ...] | None
  timestamps: np.ndarray | None
  numbers: np.ndarray
  first_row: int


def _check_names(names: tuple[str, ...], file: str) -> None:
  lowered = [name.lower() for name in names]
  for i, name in enumerate(names):
    if not name:
      raise ValueError(f"{file}: row 1: column {i + 1} has no name")
    if names.index(name) != i:
      raise ValueError(f"{file}: row 1: column {name!r} stands there twice")
    if lowered[i] == TIME_COLUMN and i != 0:
      raise ValueError(f"{file}: row 1: column {name!r} is column {i + 1}; it must be the first")
    if lowered[i] in LABEL_COLUMNS and i != len(names) - 1:
      raise ValueError(
        f"{file}: row 1: column {name!r} is column {i + 1} of {len(names)}; it must be the last"
      )


def _read_text(data: bytes, file: str) -> _Columns:
  line = data.split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r")
  columns = [f"column {i + 1}" for i in range(len(split_fields(line)))]
  _, numbers = read_fields(data, columns, num_text=0, file=file, first_row=1)
  return _Columns(None, None, numbers, 1)


def _read_csv(data: bytes, file: str) -> _Columns:
  header, _, rows = data.partition(b"\n")
  names = tuple(split_fields(header.decode("utf-8", "replace").rstrip("\r")))
  if all(to_number(name) is not None for name in names):
    raise ValueError(f"{file}: row 1: a csv file starts with a header of names; without one, name it .txt")
  _check_names(names, file)
  num_text = int(names[0].lower() == TIME_COLUMN)
  texts, numbers = read_fields(rows, names, num_text=num_text, file=file, first_row=2)
  timestamps = parse_timestamps(texts, file, 2) if num_text else None
  return _Columns(names[num_text:], timestamps, numbers, 2)


def _read_npy(data: bytes, file: str, *, vector: bool) -> _Columns:
  try:
    array = np.load(io.BytesIO(data), allow_pickle=False)
  except (ValueError, EOFError, OSError) as error:
    raise ValueError(f"{file}: truncated, or no npy file of numbers ({error})") from None
  if vector and array.ndim == 1:
    array = array[:, None]
  if array.ndim != 2:
    raise ValueError(f"{file}: an array of shape {array.shape}; [time, metric] is wanted")
  if array.dtype.kind not in "fiub":
    raise ValueError(f"{file}: an array of type {array.dtype}; numbers are wanted")
  return _Columns(None, None, array.astype(np.float64), 1)


def _read_parquet(data: bytes, file: str) -> _Columns:
  try:
    table = pa.parquet.ParquetFile(pa.BufferReader(data)).read()
  except (pa.ArrowException, OSError) as error:
    raise ValueError(f"{file}: truncated, or no parquet file ({str(error).splitlines()[0]})") from None
  return _arrow_columns(table, file, 1)


def _arrow_columns(table: pa.Table, file: str, first_row: int) -> _Columns:
  names = tuple(table.column_names)
  if not names:
    raise ValueError(f"{file}: no columns")
  _check_names(names, file)
  timestamps = None
  num_text = int(names[0].lower() == TIME_COLUMN)
  if num_text:
    column = table.column(0)
    if pa.types.is_timestamp(column.type) and not column.null_count:
      timestamps = column.cast(pa.timestamp("ms"), safe=False).to_numpy().astype("datetime64[ms]")
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
      timestamps = from_epoch_seconds(column.to_numpy().astype(np.float64), file, first_row)
    else:
      texts = ["" if text is None else str(text) for text in column.to_pylist()]
      timestamps = parse_timestamps(texts, file, first_row)
  numbers = np.empty((table.num_rows, len(names) - num_text))
  for i, name in enumerate(names[num_text:]):
    column = table.column(i + num_text)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
      raise ValueError(f"{file}: column {name!r} holds {kind}; numbers are wanted")
    numbers[:, i] = np.nan if column.null_count == table.num_rows else column.to_numpy()
  return _Columns(names[num_text:], timestamps, numbers, first_row)


def _read_columns(path: epath.Path, *, vector: bool = False) -> _Columns:
  """Returns the columns of a file, checked for infinities, order of time and emptiness."""
  file = str(path)
  data = path.read_bytes()
  if path.suffix in (".txt", ".csv"):
    data = data.removeprefix(b"\xef\xbb\xbf")  # the mark that spreadsheets put before UTF-8
    if not data.strip():
      raise ValueError(f"{file}: empty; at least one row is wanted")
    columns = _read_text(data, file) if path.suffix == ".txt" else _read_csv(data, file)
  elif path.suffix == ".npy":
    columns = _read_npy(data, file, vector=vector)
  elif path.suffix == ".parquet":
    columns = _read_parquet(data, file)
  else:
    raise ValueError(f"{file}: unknown file type {path.suffix!r}; one of {', '.join(EXTENSIONS)} is wanted")
  return _checked(columns, file)


def _checked(columns: _Columns, file: str) -> _Columns:
  """Returns the columns; raises ValueError where there are no rows, an infinity, or times that do not rise."""
  if not len(columns.numbers):
    raise ValueError(f"{file}: no rows; at least one is wanted")
  infinite = np.isinf(columns.numbers)
  if infinite.any():
    row, column = (int(i) for i in np.argwhere(infinite)[0])
    name = columns.names[column] if columns.names else f"column {column + 1}"
    raise ValueError(
      f"{file}: row {columns.first_row + row}, column {name!r}: infinite; leave a missing value empty"
    )
  if columns.timestamps is not None:
    check_rising(columns.timestamps, file, columns.first_row)
  return columns


def _to_labels(numbers: np.ndarray, file: str, first_row: int) -> np.ndarray:
  """Returns [T] bool from a column of 0 and 1; raises ValueError at the first other value."""
  wrong = np.flatnonzero((numbers != 0) & (numbers != 1))
  if wrong.size:
    row = int(wrong[0])
    raise ValueError(f"{file}: row {first_row + row}: label {numbers[row]:g}; 0 or 1 is wanted")
  return numbers.astype(bool)


def read_table(path: epath.Path) -> Table:
  """Returns the metrics, series and labels of one file.

  Raises:
    ValueError: a ragged row, text or an infinity for a number, unordered times, a label that is not 0 or 1,
      a truncated file, no rows, or no metrics; the message names file, row and column.
  """
  return _to_table(_read_columns(path), str(path))


def _to_table(columns: _Columns, file: str) -> Table:
  names, numbers, labels = columns.names, columns.numbers, None
  if names and names[-1].lower() in LABEL_COLUMNS:
    labels = _to_labels(numbers[:, -1], file, columns.first_row)
    names, numbers = names[:-1], np.ascontiguousarray(numbers[:, :-1])
  if not numbers.shape[1]:
    raise ValueError(f"{file}: no metrics; at least one column beside timestamp and label is wanted")
  return Table(names, Series(numbers, columns.timestamps), labels)


def from_arrow(table: pa.Table, place: str) -> Table:
  """Returns what `read_table` would of a parquet file with this content; rows count from 0 in its messages.

  Args:
    place: what messages call it.
  """
  return _to_table(_checked(_arrow_columns(table, place, 0), place), place)


def from_array(values: np.ndarray, place: str) -> Table:
  """Returns the table of numbers [T, F] without names; NaN is a missing value; rows count from 0 in its messages."""
  return _to_table(_checked(_Columns(None, None, values.astype(np.float64), 0), place), place)


def read_labels(path: epath.Path) -> np.ndarray:
  """Returns [T] bool labels from a file with one column of 0 and 1 (besides an optional timestamp).

  Raises:
    ValueError: another count of columns or another value, by file and row.
  """
  columns = _read_columns(path, vector=True)
  if columns.numbers.shape[1] != 1:
    raise ValueError(f"{path}: {columns.numbers.shape[1]} columns; one column of labels is wanted")
  return _to_labels(columns.numbers[:, 0], str(path), columns.first_row)
