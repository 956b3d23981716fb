"""The errors that a calibration is fitted on: those of the held-out parts of training splits.

In: a group's prepared machines and their stacked parameters. Out: `HeldOut`, one a machine.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mtad_jax.config import Config
from mtad_jax.config_choices import Detector, ScoringRule
from mtad_jax.data.fleet import Group, PreparedMachine, part_rows
from mtad_jax.data.track import Track, untracked
from mtad_jax.detect.errors import Errors, find_errors, take_rows
from mtad_jax.detect.row_outputs import compute_row_outputs, expect_constants


class PartErrors(NamedTuple):
  """One machine's errors on the usable rows of one part, their filled flags [N, F'] and numbers [N]."""

  errors: Errors
  filled: np.ndarray
  rows: np.ndarray


class HeldOut(NamedTuple):
  """One machine's `fit_centre`, and its errors on its calibration and check parts.

  validation: where a mixture of the network's errors is to be fitted; else None.
  """

  centre: np.ndarray
  calibration: PartErrors
  check: PartErrors
  validation: PartErrors | None = None

  @property
  def num_rows(self) -> int:
    """Calibration rows."""
    return len(self.calibration.rows)


def fit_centre(machine: PreparedMachine, columns: list[int], config: Config) -> np.ndarray:
  """Returns the means [F'] on the fit part, scaled, from which levels are measured."""
  rows = part_rows(machine, "fit", config.model.window_size, config.data)
  return machine.train.values[rows][:, columns].mean(axis=0, dtype=np.float64)


def part_errors(
  group: Group,
  params: Any,
  config: Config,
  centres: Sequence[np.ndarray],
  parts: Sequence[str],
  track: Track = untracked,
) -> list[list[PartErrors]]:
  """Returns each machine's errors on each of the parts, in the order of time, on all devices of this process.

  Args:
    params: stacked, [M, ...]. centres: `fit_centre` of each machine.
    parts: names; the network runs from the first one's first row to the end of the training split.
    track: watches its batches.
  """
  window, columns = config.model.window_size, list(group.targets)
  firsts = [max(getattr(machine.parts, parts[0])[0] - window, 0) for machine in group.machines]
  series = [m.train.values[first:] for m, first in zip(group.machines, firsts, strict=True)]
  outputs = compute_row_outputs(params, series, config, len(columns), track)
  found = []
  for i, (machine, first, values) in enumerate(zip(group.machines, firsts, series, strict=True)):
    is_constant = machine.preparation.scaler.is_constant[columns]
    output = expect_constants(outputs[i], is_constant, config.model.variance_floor)
    errors = find_errors(values[:, columns], output, centres[i])
    filled = machine.train.filled[:, columns]
    own = []
    for part in parts:
      rows = part_rows(machine, part, window, config.data)
      own.append(PartErrors(take_rows(errors, rows - first), filled[rows], rows))
    found.append(own)
  return found


def measure_errors(group: Group, params: Any, config: Config, track: Track = untracked) -> list[HeldOut]:
  """Returns each machine's errors under its parameters [M, ...], on all devices of this process."""
  centres = [fit_centre(machine, list(group.targets), config) for machine in group.machines]
  parts = ["calibration", "check"]
  if config.detect.rule is ScoringRule.DENSITY and config.model.detector is Detector.MTAD_GAT:
    parts = ["validation", *parts]
  found = part_errors(group, params, config, centres, parts, track)
  return [
    HeldOut(centre, **dict(zip(parts, own, strict=True))) for centre, own in zip(centres, found, strict=True)
  ]
