"""The training data as one of several processes reads them: its own machines with their rows, the others without.

In: where the data lie. Out: the groups, alike in every process but for the rows, and fleet.json's content. With one
process it reads all.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mtad_jax.config import Config
from mtad_jax.data.fleet import (
  Group,
  PreparedMachine,
  check_named,
  cut_blocks,
  group_machines,
  prepare_groups,
  prepare_machine,
  training_size,
)
from mtad_jax.data.load import list_machines, load_machines
from mtad_jax.data.preparation import PreparedSplit
from mtad_jax.data.track import Track, untracked
from mtad_jax.train.fleet_file import describe_fleet, describe_machine, read_machine
from mtad_jax.train.mesh import held_machines, make_mesh
from mtad_jax.train.processes import gather


def _held(num_machines: int, num_lanes: int, config: Config) -> np.ndarray:
  """Returns the indices of a group's machines that lie on this process's devices."""
  mesh = make_mesh(num_lanes, config.train.batch_size)
  return held_machines(num_machines, mesh, num_lanes)


def _without_rows(entry: dict[str, Any]) -> PreparedMachine:
  """Returns a machine of another process: all that is known of it but its rows."""
  known = read_machine(entry, "another process")
  num = len(known.preparation.metrics)
  none = PreparedSplit(
    values=np.zeros((0, num), np.float32),
    filled=np.zeros((0, num), bool),
    usable=np.zeros(0, bool),
    row_to_grid=np.zeros(0, np.int64),
    outside_share=np.zeros(num),
  )
  return PreparedMachine(known.name, known.role, known.preparation, none, known.parts, known.notes)


def _read(
  names: Sequence[str], config: Config, data_dir: str | None, source: str | None, track: Track
) -> dict[str, PreparedMachine]:
  if not names:
    return {}  # no name would mean all of them
  data = dataclasses.replace(config.data, machines=tuple(names))
  machines = load_machines(data, data_dir=data_dir, source=source, track=track)
  return {machine.name: prepare_machine(machine, config) for machine in track(machines, "preparing")}


def read_share(
  config: Config, *, data_dir: str | None, source: str | None, track: Track = untracked
) -> tuple[list[Group], dict[str, Any]]:
  """Returns (the prepared groups, fleet.json's content).

  Which machines are this process's follows from their metrics, which are known only when all have been read. So each
  process first reads those that are its own if all are alike; where they are not, some are read again elsewhere.

  Args:
    track: watches the reading and preparing.

  Raises:
    ValueError: whatever is wrong with the data, in every process alike.
  """
  if jax.process_count() == 1:
    machines = load_machines(config.data, data_dir=data_dir, source=source, track=track)
    groups = prepare_groups(machines, config, track)
    return groups, describe_fleet(groups)
  names: list[str] = gather(lambda: list_machines(config.data, data_dir=data_dir, source=source))[0]
  if not names:
    raise ValueError(f"{data_dir or source}: no machines of dataset {config.data.dataset!r} are there")
  check_named(names, config)
  blocks = cut_blocks(len(names), config.train.machines_per_block)
  num_lanes = max(len(block) for block in blocks)
  own = [names[block[i]] for block in blocks for i in _held(len(block), num_lanes, config)]
  held: dict[str, PreparedMachine] = {}

  def read_own() -> dict[str, Any]:
    held.update(_read(own, config, data_dir, source, track))
    return {name: [describe_machine(m), training_size(m, config)] for name, m in held.items()}

  facts: dict[str, Any] = {}
  for found in gather(read_own):
    facts |= found
  strangers = {name: _without_rows(facts[name][0]) for name in names}
  groups = group_machines(list(strangers.values()), [facts[name][1] for name in names], config)
  wanted = {
    group.names[i] for group in groups for i in _held(len(group.names), group.extent.num_lanes, config)
  }

  def read_missing() -> None:
    missing = [name for name in names if name in wanted - set(held)]
    held.update(_read(missing, config, data_dir, source, track))

  gather(read_missing)
  mine = strangers | {name: machine for name, machine in held.items() if name in wanted}
  filled = [group._replace(machines=tuple(mine[name] for name in group.names)) for group in groups]
  return filled, describe_fleet(groups, {name: fact[0] for name, fact in facts.items()})
