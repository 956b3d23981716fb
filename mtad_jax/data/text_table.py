"""Numbers of a comma-separated text: bytes in, a float64 matrix out, or the file, row and column at fault.

PyArrow parses first, because plain Python needs ten times as long; where it refuses, a slow reader that
knows every field's place reads the text again and either names the culprit or accepts what PyArrow was
too strict for (a leading plus sign, say).
"""

import csv
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv

_MISSING = ("", "nan", "NaN", "NAN", "-nan", "null", "NULL")


def split_fields(line: str) -> list[str]:
  """Returns the fields of one comma-separated line, quotes removed, blanks around them stripped."""
  return [field.strip() for field in next(csv.reader([line]), [""])]


def to_number(field: str) -> float | None:
  """Returns the number in a field, NaN for a missing one, None where it is no number."""
  field = field.strip()
  if field in _MISSING:
    return np.nan
  try:
    # float() takes 1_000 for a thousand; in a data file an underscore is a typing error
    return None if "_" in field else float(field)
  except ValueError:
    return None


def _read_fast(data: bytes, num_columns: int, num_text: int) -> tuple[list[str], np.ndarray] | None:
  """Returns the text column (may be empty) and the numbers [T, C], or None where PyArrow refuses."""
  names = [f"f{i}" for i in range(num_columns)]
  types = {name: pa.string() if i < num_text else pa.float64() for i, name in enumerate(names)}
  try:
    table = pa.csv.read_csv(
      pa.BufferReader(data),
      read_options=pa.csv.ReadOptions(column_names=names, use_threads=False, block_size=len(data) + 1),
      parse_options=pa.csv.ParseOptions(ignore_empty_lines=False),
      convert_options=pa.csv.ConvertOptions(column_types=types, null_values=list(_MISSING)),
    )
  except pa.ArrowInvalid:
    return None
  texts = table.column(0).to_pylist() if num_text else []
  numbers = np.empty((table.num_rows, num_columns - num_text))
  for i in range(num_text, num_columns):
    numbers[:, i - num_text] = table.column(i).to_numpy()
  return texts, numbers


def _read_slow(
  data: bytes, columns: Sequence[str], num_text: int, file: str, first_row: int
) -> tuple[list[str], np.ndarray]:
  """Returns what `_read_fast` does, field by field; raises ValueError at the first wrong one."""
  try:
    lines = data.decode("utf-8").split("\n")
  except UnicodeDecodeError as error:
    row = first_row + data[: error.start].count(b"\n")
    raise ValueError(f"{file}: row {row}: not UTF-8 text (byte {data[error.start]:#04x})") from None
  texts: list[str] = []
  numbers = np.empty((len(lines), len(columns) - num_text))
  for i, line in enumerate(lines):
    fields = split_fields(line.rstrip("\r"))
    if len(fields) != len(columns):
      raise ValueError(
        f"{file}: row {first_row + i}: {len(fields)} fields; {len(columns)} are wanted as above"
      )
    texts.extend(fields[:num_text])
    for j, field in enumerate(fields[num_text:]):
      number = to_number(field)
      if number is None:
        column = columns[num_text + j]
        raise ValueError(f"{file}: row {first_row + i}, column {column!r}: {field!r} is not a number")
      numbers[i, j] = number
  return texts, numbers


def read_fields(
  data: bytes, columns: Sequence[str], *, num_text: int, file: str, first_row: int
) -> tuple[list[str], np.ndarray]:
  """Returns the fields of comma-separated rows: the leading text column and the numbers.

  Args:
    data: the rows, without a header line.
    columns: names of all columns, for errors; their count is what every row must have.
    num_text: 1 where the first column is text (a timestamp), else 0.
    file: named in errors.
    first_row: the line number of the first row in the file, from 1.

  Returns:
    texts: [T] texts of the first column, empty for num_text 0.
    numbers: [T, len(columns) - num_text] float64, NaN for an empty field or nan.

  Raises:
    ValueError: a ragged row, text in a number's place, or bytes that are no UTF-8.
  """
  data = data.rstrip(b"\r\n\t ")
  if not data:
    return [], np.zeros((0, len(columns) - num_text))
  # PyArrow takes a blank line for a row of missing values; between several columns it is a ragged row
  blank = len(columns) > 1 and (data[:1] in b"\r\n" or b"\n\n" in data or b"\n\r\n" in data)
  fast = None if blank else _read_fast(data, len(columns), num_text)
  return fast if fast is not None else _read_slow(data, columns, num_text, file, first_row)
