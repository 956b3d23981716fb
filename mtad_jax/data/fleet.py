"""The fleet in memory: machines cleaned, cut and scaled, in groups of equal metrics, padded over time.

In: raw machines and the settings. Out: `Group`s, each its own program on the device, and `FleetArrays`,
the [machine, time, metric] arrays that training reads.
"""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mtad_jax.config import Config, DataConfig
from mtad_jax.data import exclude
from mtad_jax.data.machine import Machine
from mtad_jax.data.parts import Parts
from mtad_jax.data.preparation import Preparation, PreparedSplit, fit_preparation
from mtad_jax.data.windows import usable_targets


class PreparedMachine(NamedTuple):
  """One machine's training split, ready for windows, and what scoring must know of it."""

  name: str
  role: str
  preparation: Preparation
  train: PreparedSplit
  parts: Parts
  notes: dict[str, Any]


class Group(NamedTuple):
  """Machines with the same metrics in the same order.

  targets: column indices of what is forecast, reconstructed and scored; the rest are input only.
  """

  metrics: tuple[str, ...]
  targets: tuple[int, ...]
  machines: tuple[PreparedMachine, ...]

  @property
  def names(self) -> tuple[str, ...]:
    """The machines' names, in lane order."""
    return tuple(machine.name for machine in self.machines)


class FleetArrays(NamedTuple):
  """What training reads of one group; M machines padded to the longest.

  values: [M, T, F] float32. fit_rows: [M, N] int32 target rows, num_fit: [M] how many of them count.
  validation_rows: [M, V] int32, num_validation: [M]. machine_ids: [M] uint32, from the names, so that a
  machine draws the same windows alone as in any fleet.
  """

  values: np.ndarray
  fit_rows: np.ndarray
  num_fit: np.ndarray
  validation_rows: np.ndarray
  num_validation: np.ndarray
  machine_ids: np.ndarray


def find_targets(metrics: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...]:
  """Returns the columns that `wanted` names (by name, or by index from 0); all where it is empty."""
  if not wanted:
    return tuple(range(len(metrics)))
  columns = []
  for item in wanted:
    if item in metrics:
      columns.append(list(metrics).index(item))
    elif item.isdigit() and int(item) < len(metrics):
      columns.append(int(item))
    else:
      raise ValueError(
        f"config.data.target_metrics: {item!r} is none of the metrics; known: {', '.join(metrics)}"
      )
  if len(set(columns)) < len(columns):
    raise ValueError(f"config.data.target_metrics: {list(wanted)} names a metric twice")
  return tuple(columns)


def machine_id(name: str) -> int:
  """Returns a stable 32-bit number for a machine's name, from which its random draws derive."""
  return zlib.crc32(name.encode())


def prepare_groups(machines: Sequence[Machine], config: Config) -> list[Group]:
  """Returns the machines, prepared, in groups of equal metric lists, in order of first appearance.

  Raises:
    ValueError: a machine that cannot be trained on (too short, constant, excluded whole), by name.
  """
  window_size = config.model.window_size
  exclude.check_machines(exclude.parse_exclusions(config.data.exclude), [m.name for m in machines])
  prepared: dict[tuple[str, ...], list[PreparedMachine]] = {}
  for machine in machines:
    preparation, split, parts, notes = fit_preparation(
      machine, window_size, config.data, accept_constant=config.data.accept_constant
    )
    prepared.setdefault(machine.metrics, []).append(
      PreparedMachine(machine.name, machine.role, preparation, split, parts, notes)
    )
  return [
    Group(metrics, find_targets(metrics, config.data.target_metrics), tuple(members))
    for metrics, members in prepared.items()
  ]


def part_rows(machine: PreparedMachine, part: str, window_size: int, settings: DataConfig) -> np.ndarray:
  """Returns the usable target rows of one part (fit, validation, calibration, check) of a machine."""
  first, end = getattr(machine.parts, part)
  return usable_targets(
    machine.train.usable, machine.train.filled, first, end, window_size, settings.max_filled_share
  )


def _pad(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """Returns [M, N] rows, short ones padded with their first, and their true counts [M]."""
  counts = np.array([len(r) for r in rows], np.int32)
  padded = np.stack([np.concatenate([r, np.full(counts.max() - len(r), r[0], r.dtype)]) for r in rows])
  return padded, counts


def training_arrays(group: Group, config: Config) -> FleetArrays:
  """Returns the padded arrays of one group; raises ValueError where a machine's part has no window left."""
  window_size = config.model.window_size
  lengths = [len(machine.train.values) for machine in group.machines]
  values = np.zeros((len(lengths), max(lengths), len(group.metrics)), np.float32)
  fit, validation = [], []
  for i, machine in enumerate(group.machines):
    values[i, : lengths[i]] = machine.train.values
    rows = {part: part_rows(machine, part, window_size, config.data) for part in ("fit", "validation")}
    for part, found in rows.items():
      if not len(found):
        raise ValueError(
          f"machine {machine.name}: no usable window in the {part} part (rows {getattr(machine.parts, part)});"
          " excluded or missing rows leave none"
        )
    fit.append(rows["fit"])
    count = min(len(rows["validation"]), config.train.validation_windows)
    chosen = np.linspace(0, len(rows["validation"]) - 1, count).round().astype(int)
    validation.append(rows["validation"][chosen])
  fit_rows, num_fit = _pad(fit)
  validation_rows, num_validation = _pad(validation)
  ids = np.array([machine_id(name) for name in group.names], np.uint32)
  return FleetArrays(values, fit_rows, num_fit, validation_rows, num_validation, ids)
