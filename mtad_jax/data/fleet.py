"""The fleet in memory: machines cleaned, cut and scaled, in groups of equal metrics, padded over time.

In: raw machines and the settings. Out: `Group`s, trained one after the other, and `FleetArrays`, the [machine, time,
metric] arrays that training reads. A group that the device cannot hold is cut into blocks, each a `Group` of its own.
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


def _extent(members: Sequence[PreparedMachine], config: Config) -> Extent:
  window_size, most = config.model.window_size, config.train.validation_windows
  fit = [len(part_rows(machine, "fit", window_size, config.data)) for machine in members]
  validation = [len(part_rows(machine, "validation", window_size, config.data)) for machine in members]
  size = config.train.machines_per_block or len(members)
  num_blocks = -(-len(members) // size)
  return Extent(
    num_machines=len(members),
    num_lanes=-(-len(members) // num_blocks),
    num_rows=max(len(machine.train.values) for machine in members),
    num_fit=max(fit),
    num_validation=min(max(validation), most),
  )


def _blocks(metrics: tuple[str, ...], members: Sequence[PreparedMachine], config: Config) -> list[Group]:
  """Returns machines of equal metrics as one group, or as blocks in their order whose sizes differ by 1 at most."""
  targets, extent = find_targets(metrics, config.data.target_metrics), _extent(members, config)
  num_blocks = -(-len(members) // extent.num_lanes)
  cuts = np.array_split(np.arange(len(members)), num_blocks)
  return [
    Group(metrics, targets, tuple(members[i] for i in cut), extent, block, num_blocks)
    for block, cut in enumerate(cuts)
  ]


def prepare_groups(machines: Sequence[Machine], config: Config) -> list[Group]:
  """Returns the machines, prepared, in groups of equal metric lists, in order of first appearance.

  A group of more than `train.machines_per_block` comes as its blocks, one after the other.

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
  return [block for metrics, members in prepared.items() for block in _blocks(metrics, members, config)]


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


def training_arrays(group: Group, config: Config) -> FleetArrays:
  """Returns the padded arrays of one group; raises ValueError where a machine's part has no window left."""
  window_size = config.model.window_size
  lengths = [len(machine.train.values) for machine in group.machines]
  values = np.zeros((len(lengths), group.extent.num_rows, len(group.metrics)), np.float32)
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
  fit_rows, num_fit = _pad(fit, group.extent.num_fit)
  validation_rows, num_validation = _pad(validation, group.extent.num_validation)
  ids = np.array([machine_id(name) for name in group.names], np.uint32)
  return FleetArrays(values, fit_rows, num_fit, validation_rows, num_validation, ids)
