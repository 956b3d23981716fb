"""Where training begins: "ROW" or "TIME" for all machines, "MACHINE:ROW" or "MACHINE:TIME" for one.

Earlier training rows are left out as excluded ones are, and the parts (fit, validation, calibration, check) are cut
from what comes after. A machine's own beginning goes before that of all. Rows count from 0 in the machine's own
training file, times are ISO 8601 (UTC where none is said; digits alone are a row); the row or the moment itself
belongs to the training rows.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from mtad_jax.data.exclude import ANY_MACHINE, check_machine, read_time

_FORM = "ROW, TIME (ISO 8601), MACHINE:ROW or MACHINE:TIME"


class Beginning(NamedTuple):
  """The first training row, or where that is None the first moment. text: as the user wrote it, for messages."""

  machine: str
  row: int | None
  time: np.datetime64 | None
  text: str


def _parse_point(part: str) -> tuple[int | None, np.datetime64 | None] | None:
  """Returns (row, time), one of them None; None where the text is neither."""
  part = part.strip()
  if part.isascii() and part.isdigit():
    return int(part), None
  try:
    return None, read_time(part)
  except ValueError:
    return None


def parse_beginnings(texts: Sequence[str]) -> tuple[Beginning, ...]:
  """Returns the beginnings that the texts describe, at most one a machine and one for all.

  Raises:
    ValueError: a text of another form, or two for the same machine.
  """
  found: dict[str, Beginning] = {}
  for text in texts:
    machine, point = ANY_MACHINE, _parse_point(text)
    if point is None:  # a time has colons of its own, so it is tried first
      machine, _, rest = text.partition(":")
      machine, point = machine.strip(), _parse_point(rest)
    if point is None or not machine:
      raise ValueError(f"train_from {text!r} is not understood; wanted {_FORM}")
    if machine in found:
      whose = "all machines" if machine == ANY_MACHINE else f"machine {machine}"
      raise ValueError(f"train_from {text!r}: {whose} has {found[machine].text!r} already; one is wanted")
    found[machine] = Beginning(machine, *point, text)
  return tuple(found.values())


def check_machines(beginnings: Sequence[Beginning], names: Collection[str]) -> None:
  """Raises ValueError where a beginning names a machine that is not there."""
  for beginning in beginnings:
    check_machine(beginning.machine, names, f"train_from {beginning.text!r}")


def first_training_row(
  beginnings: Sequence[Beginning], machine: str, num_rows: int, timestamps: np.ndarray | None
) -> int:
  """Returns the first row of one machine's training split that is trained on, 0 where nothing says.

  Args:
    beginnings: of all machines.
    machine: the machine's name.
    num_rows: T.
    timestamps: [T] datetime64[ms], rising, or None.

  Raises:
    ValueError: a time where the machine has no timestamps, or a beginning behind its last row.
  """
  by_machine = {beginning.machine: beginning for beginning in beginnings}
  chosen = by_machine.get(machine, by_machine.get(ANY_MACHINE))
  if chosen is None:
    return 0
  if chosen.row is not None:
    first = chosen.row
  elif timestamps is None or chosen.time is None:
    raise ValueError(f"train_from {chosen.text!r}: machine {machine} has no timestamps; give a row, {machine}:ROW")
  else:
    first = int(np.searchsorted(timestamps, chosen.time))
  if first >= num_rows:
    raise ValueError(
      f"train_from {chosen.text!r}: none of the {num_rows} training rows of machine {machine} comes so late"
    )
  return first
