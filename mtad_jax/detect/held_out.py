"""The errors that a calibration is fitted on: those of the held-out parts of training splits.

In: a group's prepared machines and their stacked parameters. Out: `HeldOut`, one a machine.
"""

from typing import Any, NamedTuple

import numpy as np

from mtad_jax.config import Config
from mtad_jax.data.fleet import Group, part_rows
from mtad_jax.detect.errors import Errors, find_errors, take_rows
from mtad_jax.detect.row_outputs import compute_row_outputs, expect_constants


class HeldOut(NamedTuple):
  """One machine's errors, filled flags and row numbers on its calibration and check rows; its `centre`."""

  centre: np.ndarray
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
  firsts = [max(machine.parts.calibration[0] - window, 0) for machine in group.machines]
  series = [m.train.values[first:] for m, first in zip(group.machines, firsts, strict=True)]
  outputs = compute_row_outputs(params, series, config, len(columns))
  held = []
  for machine, first, values, output in zip(group.machines, firsts, series, outputs, strict=True):
    fit = part_rows(machine, "fit", window, config.data)
    centre = machine.train.values[fit][:, columns].mean(axis=0, dtype=np.float64)
    is_constant = machine.preparation.scaler.is_constant[columns]
    output = expect_constants(output, is_constant, config.model.variance_floor)
    errors = find_errors(values[:, columns], output, centre)
    filled = machine.train.filled[:, columns]
    parts: list[Any] = []
    for part in ("calibration", "check"):
      rows = part_rows(machine, part, window, config.data)
      parts += [take_rows(errors, rows - first), filled[rows], rows]
    held.append(HeldOut(centre, *parts))
  return held
