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
from mtad_jax.detect.feature_attention import attention_shares, has_attention
from mtad_jax.detect.row_outputs import compute_row_outputs, expect_constants


class PartErrors(NamedTuple):
  """One machine's errors on the usable rows of one part, their filled flags [N, F'] and numbers [N]."""

  errors: Errors
  filled: np.ndarray
  rows: np.ndarray


class HeldOut(NamedTuple):
  """One machine's `fit_centre`, and its errors on its calibration and check parts.

  validation: where a mixture of the network's errors is to be fitted; else None.
  attention: [N, F] the metrics' shares on the calibration rows; None of a model without attention.
  """

  centre: np.ndarray
  calibration: PartErrors
  check: PartErrors
  validation: PartErrors | None = None
  attention: np.ndarray | None = None

  @property
  def num_rows(self) -> int:
    """Calibration rows."""
    return len(self.calibration.rows)


def fit_centre(machine: PreparedMachine, columns: list[int], config: Config) -> np.ndarray:
  """Returns the means [F'] on the fit part, scaled, from which levels are measured."""
  rows = part_rows(machine, "fit", config.model.window_size, config.data)
  return machine.train.values[rows][:, columns].mean(axis=0, dtype=np.float64)


def _first_rows(group: Group, part: str, config: Config) -> list[int]:
  """Returns where the first window before each machine's part begins."""
  window = config.model.window_size
  return [max(getattr(machine.parts, part)[0] - window, 0) for machine in group.machines]


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
  firsts = _first_rows(group, parts[0], config)
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
  if config.detect.rule is ScoringRule.DENSITY and config.model.detector is not Detector.ROLE_MIXTURE:
    parts = ["validation", *parts]
  found = part_errors(group, params, config, centres, parts, track)
  held = []
  for centre, own in zip(centres, found, strict=True):
    named = dict(zip(parts, own, strict=True))
    held.append(HeldOut(centre, named["calibration"], named["check"], named.get("validation")))
  if not has_attention(config):
    return held
  firsts = _first_rows(group, "calibration", config)
  series = [m.train.values[first : m.parts.calibration[1]] for m, first in zip(group.machines, firsts, strict=True)]
  rows = [own.calibration.rows - first for own, first in zip(held, firsts, strict=True)]
  shares = attention_shares(params, series, rows, config, len(group.targets))
  return [own._replace(attention=each) for own, each in zip(held, shares, strict=True)]
