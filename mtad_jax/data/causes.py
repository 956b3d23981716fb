"""Known causes of test segments: SMD's interpretation files and a simulated fleet's faults.csv.

interpretation_label/NAME.txt holds lines `start-end:metric,metric`, rows from 0, end exclusive, metrics from
1. faults.csv holds machine,kind,strength,start_row,end_row,metrics with metric names joined by `;`.
"""

import csv
import io
import re

from etils import epath

from mtad_jax.data.machine import Interpretation

FAULT_COLUMNS = ("machine", "kind", "strength", "start_row", "end_row", "metrics")
_LINE = re.compile(r"\s*(\d+)\s*-\s*(\d+)\s*:\s*(\d+(?:\s*,\s*\d+)*)\s*")


def _check_rows(start: int, end: int, num_rows: int, place: str) -> None:
  if not 0 <= start < end <= num_rows:
    raise ValueError(
      f"{place}: rows {start}-{end} are out of range; 0 <= start < end <= {num_rows} is wanted"
    )


def parse_interpretation(
  text: str, file: str, *, num_rows: int, num_metrics: int
) -> tuple[Interpretation, ...]:
  """Returns the segments of an interpretation file, in the file's order.

  Lines need not match the labels: SMD itself has segments that end elsewhere or have no label.

  Args:
    text: the file's content.
    file: named in errors.
    num_rows: test rows of the machine.
    num_metrics: its metrics.

  Raises:
    ValueError: a malformed line, rows or a metric out of range, by file and row.
  """
  result = []
  for row, line in enumerate(text.splitlines(), start=1):
    if not line.strip():
      continue
    place = f"{file}: row {row}"
    match = _LINE.fullmatch(line)
    if not match:
      raise ValueError(f"{place}: {line.strip()!r} is not start-end:metric,metric")
    start, end = int(match[1]), int(match[2])
    _check_rows(start, end, num_rows, place)
    metrics = tuple(int(number) for number in match[3].split(","))
    for metric in metrics:
      if not 1 <= metric <= num_metrics:
        raise ValueError(f"{place}: metric {metric} is out of range; 1 to {num_metrics} are there")
    result.append(Interpretation(start, end, tuple(metric - 1 for metric in metrics)))
  return tuple(result)


def read_csv_rows(path: epath.Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
  """Returns the rows of a small csv file with exactly these columns, in any order.

  Raises:
    ValueError: another header, or a row with another count of fields, by file and row.
  """
  reader = csv.reader(io.StringIO(path.read_text().removeprefix("\ufeff")))
  header = [name.strip() for name in next(reader, [])]
  if sorted(header) != sorted(columns):
    raise ValueError(f"{path}: row 1: the header is {','.join(header)!r}; {','.join(columns)} is wanted")
  rows = []
  for fields in reader:
    if len(fields) != len(header):
      raise ValueError(f"{path}: row {reader.line_num}: {len(fields)} fields; {len(header)} are wanted")
    rows.append({name: field.strip() for name, field in zip(header, fields, strict=True)})
  return rows


def read_fault_rows(path: epath.Path) -> dict[str, list[tuple[int, dict[str, str]]]]:
  """Returns {machine: [(row in the file, fields)]} of a faults.csv, for `to_interpretation`."""
  result: dict[str, list[tuple[int, dict[str, str]]]] = {}
  for row, fields in enumerate(read_csv_rows(path, FAULT_COLUMNS), start=2):
    result.setdefault(fields["machine"], []).append((row, fields))
  return result


def to_interpretation(
  fields: dict[str, str], place: str, *, num_rows: int, metrics: tuple[str, ...]
) -> Interpretation:
  """Returns the segment that one row of faults.csv tells of.

  Args:
    fields: the row, by column name.
    place: file and row, named in errors.
    num_rows: test rows of the machine.
    metrics: its metric names.

  Raises:
    ValueError: rows that are no whole numbers or out of range, or an unknown metric.
  """
  rows = []
  for column in ("start_row", "end_row"):
    if not fields[column].isdecimal():
      raise ValueError(f"{place}, column {column!r}: {fields[column]!r} is not a row number")
    rows.append(int(fields[column]))
  _check_rows(rows[0], rows[1], num_rows, place)
  indices = []
  for name in filter(None, fields["metrics"].split(";")):
    if name not in metrics:
      raise ValueError(f"{place}, column 'metrics': unknown metric {name!r}; known: {', '.join(metrics)}")
    indices.append(metrics.index(name))
  return Interpretation(rows[0], rows[1], tuple(indices), fields["kind"], fields["strength"])
