"""The fleet in memory: machines cleaned, cut and scaled, in groups of equal metrics, padded over time.

In: raw machines and the settings. Out: `Group`s, trained one after the other, and `FleetArrays`, the [machine, time,
metric] arrays that training reads. A group that the device cannot hold is cut into blocks, each a `Group` of its own.
"""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mtad_jax.config import Config, DataConfig
from mtad_jax.data import exclude, train_from
from mtad_jax.data.machine import Machine
from mtad_jax.data.parts import Parts
from mtad_jax.data.preparation import Preparation, PreparedSplit, fit_preparation
from mtad_jax.data.track import Track, untracked
from mtad_jax.data.windows import usable_targets


class PreparedMachine(NamedTuple):
  """One machine's training split, ready for windows, and what scoring must know of it."""

  name: str
  role: str
  preparation: Preparation
  train: PreparedSplit
  parts: Parts
  notes: dict[str, Any]


class Extent(NamedTuple):
  """What all machines of equal metrics share, whichever block they are in: one compiled program serves them all.

  num_machines: of all blocks. num_lanes: of the largest block. num_rows, num_fit, num_validation: the most training
  rows, fit rows and validation rows that are looked at that any of them has.
  """

  num_machines: int
  num_lanes: int
  num_rows: int
  num_fit: int
  num_validation: int


class Group(NamedTuple):
  """Machines with the same metrics in the same order, or one block of them.

  targets: column indices of what is forecast, reconstructed and scored; the rest are input only.
  extent: of all blocks together. block, num_blocks: which block this is, from 0, of how many.
  """

  metrics: tuple[str, ...]
  targets: tuple[int, ...]
  machines: tuple[PreparedMachine, ...]
  extent: Extent
  block: int = 0
  num_blocks: int = 1

  @property
  def names(self) -> tuple[str, ...]:
    """The machines' names, in lane order."""
    return tuple(machine.name for machine in self.machines)

  def title(self, index: int) -> str:
    """Returns what a person calls it; index: its number in the fleet."""
    text = f"group {index}"
    return text + (f" (block {self.block + 1} of {self.num_blocks})" if self.num_blocks > 1 else "")


class FleetArrays(NamedTuple):
  """What training reads of one group; M machines padded to the longest of its extent.

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


def cut_blocks(num_machines: int, machines_per_block: int) -> list[np.ndarray]:
  """Returns the indices of each block's machines, in order; their sizes differ by 1 at most. 0: one block."""
  num_blocks = -(-num_machines // machines_per_block) if machines_per_block else 1
  return np.array_split(np.arange(num_machines), num_blocks)


def prepare_machine(machine: Machine, config: Config) -> PreparedMachine:
  """Returns one machine prepared; raises ValueError where it cannot be trained on, by name."""
  preparation, split, parts, notes = fit_preparation(
    machine, config.model.window_size, config.data, accept_constant=config.data.accept_constant
  )
  return PreparedMachine(machine.name, machine.role, preparation, split, parts, notes)


def training_size(machine: PreparedMachine, config: Config) -> tuple[int, int, int]:
  """Returns how many rows, fit rows and validation rows training looks at; raises ValueError where there are none."""
  rows = training_rows(machine, config)
  num_validation = min(len(rows["validation"]), config.train.validation_windows)
  return len(machine.train.values), len(rows["fit"]), num_validation


def group_machines(
  members: Sequence[PreparedMachine], sizes: Sequence[tuple[int, int, int]], config: Config
) -> list[Group]:
  """Returns machines in groups of equal metric lists, in order of first appearance, a large group as its blocks.

  Args:
    sizes: `training_size` of each.
  """
  alike: dict[tuple[str, ...], list[int]] = {}
  for index, machine in enumerate(members):
    alike.setdefault(machine.preparation.metrics, []).append(index)
  groups = []
  for metrics, indices in alike.items():
    targets = find_targets(metrics, config.data.target_metrics)
    blocks = cut_blocks(len(indices), config.train.machines_per_block)
    most = np.max([sizes[i] for i in indices], axis=0).tolist()
    extent = Extent(len(indices), max(len(block) for block in blocks), *most)
    for number, block in enumerate(blocks):
      machines = tuple(members[indices[i]] for i in block)
      groups.append(Group(metrics, targets, machines, extent, number, len(blocks)))
  return groups


def check_named(names: Sequence[str], config: Config) -> None:
  """Raises ValueError where the settings name a machine, for a range or a beginning, that is not among `names`."""
  exclude.check_machines(exclude.parse_exclusions(config.data.exclude), names)
  train_from.check_machines(train_from.parse_beginnings(config.data.train_from), names)


def prepare_groups(machines: Sequence[Machine], config: Config, track: Track = untracked) -> list[Group]:
  """Returns the machines, prepared, in groups of equal metric lists, in order of first appearance.

  A group of more machines than `train.machines_per_block` comes as its blocks, one after the other.

  Args:
    track: watches the cleaning and scaling, machine by machine.

  Raises:
    ValueError: a machine that cannot be trained on (too short, constant, excluded whole), by name.
  """
  check_named([machine.name for machine in machines], config)
  members = [prepare_machine(machine, config) for machine in track(machines, "preparing")]
  return group_machines(members, [training_size(member, config) for member in members], config)


def part_rows(machine: PreparedMachine, part: str, window_size: int, settings: DataConfig) -> np.ndarray:
  """Returns the usable target rows of one part (fit, validation, calibration, check) of a machine."""
  first, end = getattr(machine.parts, part)
  return usable_targets(
    machine.train.usable, machine.train.filled, first, end, window_size, settings.max_filled_share
  )


def _pad(rows: list[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns [M, length] rows, short ones padded with their first, and their true counts [M]."""
  counts = np.array([len(r) for r in rows], np.int32)
  padded = np.stack([np.concatenate([r, np.full(length - len(r), r[0], r.dtype)]) for r in rows])
  return padded, counts


def training_rows(machine: PreparedMachine, config: Config) -> dict[str, np.ndarray]:
  """Returns the usable rows of the fit and validation parts; raises ValueError where one has no window left."""
  found = {}
  for part in ("fit", "validation"):
    found[part] = part_rows(machine, part, config.model.window_size, config.data)
    if not len(found[part]):
      raise ValueError(
        f"machine {machine.name}: no usable window in the {part} part (rows {getattr(machine.parts, part)});"
        " excluded or missing rows leave none"
      )
  return found


def training_arrays(group: Group, config: Config, lanes: Sequence[int] | None = None) -> FleetArrays:
  """Returns the padded arrays of one group; raises ValueError where a machine's part has no window left.

  Args:
    lanes: indices of the machines wanted; None: all.
  """
  machines = [group.machines[i] for i in (range(len(group.machines)) if lanes is None else lanes)]
  lengths = [len(machine.train.values) for machine in machines]
  values = np.zeros((len(lengths), group.extent.num_rows, len(group.metrics)), np.float32)
  fit, validation = [], []
  for i, machine in enumerate(machines):
    values[i, : lengths[i]] = machine.train.values
    rows = training_rows(machine, config)
    fit.append(rows["fit"])
    count = min(len(rows["validation"]), config.train.validation_windows)
    chosen = np.linspace(0, len(rows["validation"]) - 1, count).round().astype(int)
    validation.append(rows["validation"][chosen])
  fit_rows, num_fit = _pad(fit, group.extent.num_fit)
  validation_rows, num_validation = _pad(validation, group.extent.num_validation)
  ids = np.array([machine_id(machine.name) for machine in machines], np.uint32)
  return FleetArrays(values, fit_rows, num_fit, validation_rows, num_validation, ids)
