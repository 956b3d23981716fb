"""A detector's arguments as the frozen settings, and a window that a short series can carry."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtad_jax.config import Config, differences, freeze
from mtad_jax.config_limits import RANGES
from mtad_jax.data.machine import Machine
from mtad_jax.data.parts import MIN_TARGET_ROWS
from mtad_jax.data.train_from import first_training_row, parse_beginnings

WINDOW_SHARE = 4  # a window is at most the rows of the shortest series over this
_SMALLEST_WINDOW = int(RANGES["model.window_size"][0] or 0)
LEAST_ROWS = _SMALLEST_WINDOW + MIN_TARGET_ROWS  # of a series that can be cut into its four parts
FEW_ROWS = 20  # below, the calibration part has a single row, and a threshold from it says nothing


def _plain(value: Any) -> Any:
  """Returns NumPy's numbers as Python's, as which `freeze` wants them."""
  if isinstance(value, np.generic):
    return value.item()
  if isinstance(value, (list, tuple)):
    return type(value)(_plain(item) for item in value)
  return value


def build_config(
  preset: dict[str, Any], arguments: Mapping[str, Any], settings: Mapping[str, Any] | None
) -> Config:
  """Returns a preset with what was asked for put over it.

  Args:
    preset: a settings tree. arguments: {"group.field": value}; None leaves the preset's.
    settings: a settings tree of any other fields.

  Raises:
    ValueError: an unknown or wrong setting, by its name; or one that is given in both places.
  """
  tree: dict[str, Any] = {group: dict(fields) for group, fields in preset.items()}
  for group, fields in (settings or {}).items():
    if isinstance(fields, Mapping):
      tree[group] = {**tree.get(group, {}), **{name: _plain(value) for name, value in fields.items()}}
    else:
      tree[group] = fields  # refused by its name
  for path, value in arguments.items():
    group, name = path.split(".")
    if value is None:
      continue
    if settings and name in settings.get(group, {}):
      raise ValueError(f"config.{path}: given as an argument ({value!r}) and in settings; once is wanted")
    tree[group][name] = _plain(value)
  return freeze(tree)


def to_settings(config: Config, preset: dict[str, Any]) -> dict[str, dict[str, Any]]:
  """Returns the settings that `build_config` makes `config` of without arguments: what differs from a preset."""
  found: dict[str, dict[str, Any]] = {}
  for path, (value, _) in differences(config, freeze(preset)).items():
    group, name = path.split(".")
    found.setdefault(group, {})[name] = getattr(value, "value", value)  # an enum by its text
  return found


def with_short_window(config: Config, machines: Sequence[Machine]) -> Config:
  """Returns the settings with a window of a quarter of the shortest training series at most, said in a warning.

  Raises:
    ValueError: a series too short for any window.
  """
  beginnings = parse_beginnings(config.data.train_from)
  lengths = {}
  for machine in machines:
    series = machine.train
    num_rows = len(series.values)
    lengths[machine.name] = num_rows - first_training_row(beginnings, machine.name, num_rows, series.timestamps)
  shortest = min(lengths, key=lambda name: lengths[name])
  num_rows = lengths[shortest]
  if num_rows < LEAST_ROWS:
    # scikit-learn's checks look for the text n_samples
    raise ValueError(
      f"machine {shortest}: {num_rows} training rows (n_samples={num_rows}); at least {LEAST_ROWS} rows are needed"
    )
  if num_rows < FEW_ROWS:
    warnings.warn(
      f"machine {shortest}: {num_rows} training rows leave one to calibrate on: scores can be ranked, thresholds and"
      f" labels say nothing below {FEW_ROWS} rows",
      stacklevel=2,
    )
  most = max(num_rows // WINDOW_SHARE, _SMALLEST_WINDOW)
  wanted = config.model.window_size
  if wanted <= most:
    return config
  warnings.warn(
    f"window_size {wanted} is cut to {most}, a quarter of {num_rows} training rows of machine {shortest}; error"
    " distributions and thresholds rest on few rows",
    stacklevel=2,
  )
  return dataclasses.replace(config, model=dataclasses.replace(config.model, window_size=most))
