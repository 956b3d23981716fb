"""Columns of a Parquet file, with a missing column and a damaged file told by name."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def read_columns(path: Path, wanted: Sequence[str], optional: Sequence[str] = ()) -> pa.Table:
  """Returns the wanted columns, and the optional ones that the file has; its metadata stay with the table.

  Raises:
    ValueError: the file is damaged, or a wanted column is missing.
  """
  try:
    with pq.ParquetFile(path) as file:
      names = present_columns(path, file.schema_arrow.names, wanted, optional)
      return file.read(columns=names)
  except (pa.ArrowException, OSError) as error:
    raise ValueError(f"{path}: not a readable Parquet file: {error}") from None


def present_columns(
  path: Path, present: Sequence[str], wanted: Sequence[str], optional: Sequence[str] = ()
) -> list[str]:
  """Returns the names to read; raises ValueError on the first wanted one that is not among the present ones."""
  absent = [name for name in wanted if name not in present]
  if absent:
    raise ValueError(f"{path}: column {absent[0]} is missing; it has {', '.join(present)}")
  return [name for name in (*wanted, *optional) if name in present]
