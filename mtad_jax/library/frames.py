"""What a program holds its series in, as tables: NumPy arrays, pandas, polars and Arrow frames, fleets of them.

No library of frames is imported: a frame is whatever gives itself to Arrow, as pandas from 2.2 and polars from 1 do.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from mtad_jax.data.fleet_folder import DEFAULT_ROLE, natural_key
from mtad_jax.data.machine import Machine, Series, empty_series
from mtad_jax.data.table import TIME_COLUMN, Table, from_array, from_arrow

SINGLE = "series"  # the machine's name where no fleet is given


def is_fleet(data: Any) -> bool:
  """Returns whether `data` is a fleet, {machine: series}, and not one series."""
  return isinstance(data, Mapping)


def read_machines(data: Any, roles: Mapping[str, str] | None) -> list[Machine]:
  """Returns the machines of one series or a fleet, in natural order, the rows in `train`; none has a test split.

  Args:
    data: a series, or {name: series}; `read_series` says what a series may be.
    roles: {name: role}; one role for all where it is None or says nothing.

  Raises:
    ValueError: nothing there, a name that is no text, or what `read_series` finds.
  """
  if not is_fleet(data):
    return [_machine(SINGLE, data, roles, "X")]
  if not data:
    raise ValueError("X: a fleet without machines; {name: rows} of at least one is wanted")
  for name in data:
    if not isinstance(name, str) or not name:
      raise ValueError(f"X: {name!r} is no machine's name; a text is wanted")
  names = sorted(data, key=natural_key)
  return [_machine(name, data[name], roles, f"X, machine {name!r}") for name in names]


def _machine(name: str, values: Any, roles: Mapping[str, str] | None, place: str) -> Machine:
  table = read_series(values, place)
  num = table.series.values.shape[1]
  metrics = table.metrics or tuple(f"metric_{i}" for i in range(num))
  return Machine(name, (roles or {}).get(name, DEFAULT_ROLE), metrics, table.series, empty_series(num))


def read_series(values: Any, place: str) -> Table:
  """Returns one series as a table.

  Args:
    values: [T, F] or [T] numbers; or a frame, whose times are its column `timestamp` or else its index of times; a
      label column is left out, with a warning.
    place: what messages call it.

  Raises:
    ValueError: no numbers, another number of axes, an infinity, no rows, times that do not rise; by row and column.
  """
  is_nameless = False
  if hasattr(values, "to_frame") and hasattr(values, "name"):  # one column of a frame
    is_nameless = not isinstance(values.name, str) or not values.name
    values = values.to_frame(name="value" if is_nameless else values.name)
  if not hasattr(values, "__arrow_c_stream__"):
    return from_array(_numbers(values, place), place)
  try:
    # pandas would hand its index over as a column
    frame = pa.table(values.reset_index(drop=True) if hasattr(values, "reset_index") else values)
  except (pa.ArrowException, TypeError, ValueError) as error:
    raise ValueError(f"{place}: a frame that Arrow cannot read: {str(error).splitlines()[0]}") from None
  times = [i for i, name in enumerate(frame.column_names) if name.lower() == TIME_COLUMN]
  stamps = None if times else _index_times(values, place)
  if times:
    order = [times[0], *(i for i in range(frame.num_columns) if i != times[0])]
    frame = frame.select(order)
  elif stamps is not None:
    frame = frame.add_column(0, TIME_COLUMN, pa.array(stamps))
  table = from_arrow(frame, place)
  if table.labels is not None:
    told = f"{place}: column {frame.column_names[-1]!r} is left out: labels are neither trained on nor scored"
    warnings.warn(told, stacklevel=2)
  if is_nameless or not _is_named(values):
    table = table._replace(metrics=None)  # numbers that a frame counts its columns by are no names
  return table


def _is_named(frame: Any) -> bool:
  """Returns whether a frame's columns have names, all of them texts."""
  names: Any = getattr(frame, "column_names", None) or getattr(frame, "columns", ())
  return all(isinstance(name, str) for name in names)


def _index_times(frame: Any, place: str) -> np.ndarray | None:
  """Returns a pandas frame's index [T] as UTC times; None where it has none or they are no times."""
  index: Any = getattr(frame, "index", None)
  if getattr(getattr(index, "dtype", None), "kind", "") != "M":
    return None
  clock = index if getattr(index, "tz", None) is None else index.tz_convert(None)  # UTC
  stamps = np.asarray(clock.to_numpy(), "datetime64[ms]")
  if np.isnat(stamps).any():
    raise ValueError(f"{place}: row {int(np.argmax(np.isnat(stamps)))}: the index has no time; every row needs one")
  return stamps


def _numbers(values: Any, place: str) -> np.ndarray:
  """Returns an array-like as [T, F] float64."""
  try:
    array = np.asarray(values)
    if array.dtype.kind == "O":
      array = array.astype(np.float64)
  except (TypeError, ValueError) as error:
    raise ValueError(f"{place}: no array of numbers: {error}") from None
  if array.dtype.kind not in "fiub":
    raise ValueError(f"{place}: an array of type {array.dtype}; numbers are wanted")
  if array.ndim == 1:
    array = array[:, None]
  if array.ndim != 2:
    raise ValueError(f"{place}: an array of shape {array.shape}; [time, metric] or [time] is wanted")
  return array.astype(np.float64)


def to_test(machine: Machine) -> Machine:
  """Returns a machine of `read_machines` with its rows as what is to be scored."""
  return machine._replace(train=empty_series(len(machine.metrics)), test=Series(*machine.train))
