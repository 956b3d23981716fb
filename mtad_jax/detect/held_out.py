"""The errors that a calibration is fitted on: those of held-out parts of training splits and of the fit part.

In: a group's prepared machines and their stacked parameters. Out: `HeldOut`, one a machine.
"""

from typing import Any, NamedTuple

import numpy as np

from mtad_jax.config import Config
from mtad_jax.data.fleet import Group, part_rows
from mtad_jax.detect.errors import Errors, find_errors, join, take_rows
from mtad_jax.detect.row_outputs import compute_row_outputs, expect_constants

FIT_STRETCHES, STRETCH_ROWS = 8, 512  # of the fit part, evenly spread, that errors are measured on


class HeldOut(NamedTuple):
  """One machine's errors, filled flags and row numbers on its calibration and check rows; its `centre`.

  fit: errors on stretches of the fit part.
  """

  centre: np.ndarray
  fit: Errors
  calibration: Errors
  calibration_filled: np.ndarray
  calibration_rows: np.ndarray
  check: Errors
  check_filled: np.ndarray
  check_rows: np.ndarray

  @property
  def num_rows(self) -> int:
    return len(self.calibration_rows)


def measure_errors(group: Group, params: Any, config: Config) -> list[HeldOut]:
  """Returns each machine's errors under its parameters [M, ...], on all devices of this process."""
  window, columns = config.model.window_size, list(group.targets)
  fit_rows = [part_rows(machine, "fit", window, config.data) for machine in group.machines]
  centres = [
    machine.train.values[rows][:, columns].mean(axis=0, dtype=np.float64)
    for machine, rows in zip(group.machines, fit_rows, strict=True)
  ]

  def errors_from(firsts: list[int], ends: list[int]) -> list[Errors]:
    """Returns each machine's errors on its rows from firsts + W on to ends, as of all rows from firsts on."""
    pieces = [m.train.values[first:end] for m, first, end in zip(group.machines, firsts, ends, strict=True)]
    outputs = compute_row_outputs(params, pieces, config, len(columns))
    found = []
    for machine, values, output, centre in zip(group.machines, pieces, outputs, centres, strict=True):
      is_constant = machine.preparation.scaler.is_constant[columns]
      output = expect_constants(output, is_constant, config.model.variance_floor)
      found.append(find_errors(values[:, columns], output, centre))
    return found

  stretches: list[list[Errors]] = [[] for _ in group.machines]
  for number in range(FIT_STRETCHES):
    own = [np.array_split(rows, FIT_STRETCHES)[number][:STRETCH_ROWS] for rows in fit_rows]
    firsts = [int(rows[0]) - window if len(rows) else 0 for rows in own]
    ends = [int(rows[-1]) + 1 if len(rows) else 0 for rows in own]
    for i, errors in enumerate(errors_from(firsts, ends)):
      stretches[i].append(take_rows(errors, own[i] - firsts[i]))

  firsts = [max(machine.parts.calibration[0] - window, 0) for machine in group.machines]
  held_out = errors_from(firsts, [len(machine.train.values) for machine in group.machines])
  held = []
  for i, machine in enumerate(group.machines):
    filled = machine.train.filled[:, columns]
    parts: list[Any] = []
    for part in ("calibration", "check"):
      rows = part_rows(machine, part, window, config.data)
      parts += [take_rows(held_out[i], rows - firsts[i]), filled[rows], rows]
    held.append(HeldOut(centres[i], join(stretches[i]), *parts))
  return held
