"""First parameters from another run: every machine from its own last model, a new one from its role.

In: another work directory and the group to be trained. Out: stacked parameters and where each came from. The
optimizer, the schedule and the guard begin anew; scaling is fitted on the new run's data.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from mtad_jax.config import Config, differences
from mtad_jax.data.fleet import Group, machine_id
from mtad_jax.model.network import init_params
from mtad_jax.train.checkpoints import Checkpoints
from mtad_jax.train.fleet_file import best_params, read_fleet
from mtad_jax.train.state import INIT_PURPOSE, purpose_key
from mtad_jax.train.workdir import group_directory, read_config


class WarmStart(NamedTuple):
  """params: [M, ...] host arrays. sources: machine -> the other run's machine, or None where it is drawn."""

  params: Any
  sources: dict[str, str | None]


def describe_sources(sources: dict[str, str | None]) -> list[str]:
  """Returns what a person is told: machines that begin with their own model are counted, the others named."""
  own = [name for name, source in sources.items() if source == name]
  lines = [f"warm start: {len(own)} of {len(sources)} machines from their own model"]
  for name, source in sources.items():
    if source is None:
      lines.append(f"  {name}: no machine of its name or role there; parameters drawn")
    elif source != name:
      lines.append(f"  {name}: from {source}, of its role")
  return lines


class _Source(NamedTuple):
  """A machine of the other run. params: its leaves. loss: its best validation loss, None where none was finite."""

  name: str
  role: str
  params: Any
  loss: float | None


def _sources(other: epath.PathLike, config: Config, group: Group) -> dict[str, _Source]:
  """Returns the other run's machines with the group's metrics and targets by name, whichever block they are in."""
  found: dict[str, _Source] = {}
  for stored in read_fleet(other):
    if stored.metrics != group.metrics or stored.targets != group.targets:
      continue
    params, step, _ = best_params(other, config, stored)
    with Checkpoints(group_directory(other, stored.number), read_only=True) as checkpoints:
      losses = checkpoints.about(step)["best_loss"]
    for lane, (machine, loss) in enumerate(zip(stored.machines, losses, strict=True)):
      own = [leaf[lane] for leaf in jax.tree.leaves(params)]
      found[machine.name] = _Source(machine.name, machine.role, own, loss)
  return found


def _choose(group: Group, there: dict[str, _Source]) -> dict[str, str | None]:
  """Returns each machine's source: its namesake, else its role's machine of the lowest validation loss."""
  of_role: dict[str, list[tuple[float, str]]] = {}
  for source in there.values():
    if source.loss is not None and source.role:
      of_role.setdefault(source.role, []).append((source.loss, source.name))
  chosen: dict[str, str | None] = {}
  for wanted in group.machines:
    others = of_role.get(wanted.role, [])
    chosen[wanted.name] = wanted.name if wanted.name in there else min(others)[1] if others else None
  return chosen


def _drawn(group: Group, config: Config) -> Any:
  """Returns the parameters [M, ...] that a cold start would begin with."""
  ids = np.array([machine_id(name) for name in group.names], np.uint32)
  draw = partial(
    init_params, settings=config.model, num_metrics=len(group.metrics), num_targets=len(group.targets)
  )
  keys = jax.vmap(lambda machine: purpose_key(config.train.random_seed, INIT_PURPOSE, machine))(ids)
  return jax.tree.map(np.array, jax.jit(jax.vmap(draw))(keys))


def warm_start(group: Group, config: Config, other: epath.PathLike) -> WarmStart:
  """Returns the parameters a group begins with.

  Args:
    other: the other run's work directory; its newest intact checkpoint is read, the best state of each machine.

  Raises:
    ValueError: another network, or no group there with these metrics and targets, or no machine to begin from.
  """
  there = read_config(other)
  found = differences(config.model, there.model)
  if found:
    told = "; ".join(f"model.{name} is {here!r}, there {value!r}" for name, (here, value) in found.items())
    raise ValueError(f"--warm_start={other}: made by another network: {told}")
  alike = _sources(other, there, group)
  if not alike:
    raise ValueError(
      f"--warm_start={other}: no group there has these {len(group.metrics)} metrics, in this order, and the"
      f" same {len(group.targets)} targets: {', '.join(group.metrics[:8])}"
    )
  sources = _choose(group, alike)
  if all(source is None for source in sources.values()):
    raise ValueError(
      f"--warm_start={other}: it has none of {', '.join(group.names[:8])}, nor a validated machine of their roles"
    )
  first = _drawn(group, config)
  for lane, name in enumerate(group.names):
    source = sources[name]
    if source is not None:
      for mine, theirs in zip(jax.tree.leaves(first), alike[source].params, strict=True):
        mine[lane] = theirs
  return WarmStart(first, sources)
