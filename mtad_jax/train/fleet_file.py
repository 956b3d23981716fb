"""fleet.json: what a run knows of its machines without their data; written once, read by all later commands.

Every machine has a digest of its own prepared training data, so that a refusal can name whose data changed.
"""

import hashlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from mtad_jax.config import Config
from mtad_jax.data.fleet import Group, PreparedMachine
from mtad_jax.data.parts import Parts
from mtad_jax.data.preparation import Preparation, from_json, to_json
from mtad_jax.train.fleet_step import state_template
from mtad_jax.train.inspection import named_leaves
from mtad_jax.train.reading import open_group, read_newest
from mtad_jax.train.workdir import FLEET, read_json


class StoredMachine(NamedTuple):
  """One machine of a run, without its series."""

  name: str
  role: str
  preparation: Preparation
  parts: Parts
  notes: dict[str, Any]


class StoredGroup(NamedTuple):
  """One group of a run; `number` names its checkpoints."""

  number: int
  metrics: tuple[str, ...]
  targets: tuple[int, ...]
  machines: tuple[StoredMachine, ...]


def fingerprint(metrics: tuple[str, ...], machine: PreparedMachine) -> str:
  """Returns a digest of one machine's prepared training data: its metrics, values, and what was excluded."""
  digest = hashlib.sha256("\n".join(metrics).encode())
  digest.update(machine.train.values.tobytes())
  digest.update(machine.train.usable.tobytes())
  return digest.hexdigest()


def describe_machine(machine: PreparedMachine) -> dict[str, Any]:
  """Returns one machine's entry of fleet.json."""
  return {
    "name": machine.name,
    "role": machine.role,
    "fingerprint": fingerprint(machine.preparation.metrics, machine),
    "preparation": to_json(machine.preparation),
    "parts": {name: list(pair) for name, pair in machine.parts._asdict().items()},
    "notes": machine.notes,
  }


def describe_fleet(groups: list[Group], entries: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
  """Returns fleet.json's content.

  Args:
    entries: `describe_machine` by name, where this process does not hold the rows of all; None: it does.
  """
  described = [
    {
      "metrics": list(group.metrics),
      "targets": list(group.targets),
      "machines": [entries[m.name] if entries else describe_machine(m) for m in group.machines],
    }
    for group in groups
  ]
  return {"groups": described}


def _field(values: Any, name: str, where: str) -> Any:
  if not isinstance(values, dict) or name not in values:
    raise ValueError(f"{where}: field {name!r} is missing; train.py writes it")
  return values[name]


def _listed(names: list[str]) -> str:
  return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _digests(fleet: dict[str, Any], place: epath.PathLike) -> dict[str, str]:
  """Returns {machine: digest} in the order of the lanes."""
  found: dict[str, str] = {}
  for group in _field(fleet, "groups", str(place)):
    for machine in _field(group, "machines", str(place)):
      name = _field(machine, "name", str(place))
      found[name] = _field(machine, "fingerprint", f"{place}: machine {name!r}")
  return found


def check_same_data(stored: dict[str, Any], fleet: dict[str, Any], place: epath.PathLike) -> None:
  """Returns nothing where the prepared training data are those a run began with.

  Args:
    stored: fleet.json's content. fleet: `describe_fleet` of the data at hand.
    place: fleet.json, for messages.

  Raises:
    ValueError: naming the machines that are missing, new, changed, or in another order (lanes have no names).
  """
  before, now = _digests(stored, place), _digests(fleet, place)
  faults = {
    "missing": [name for name in before if name not in now],
    "new": [name for name in now if name not in before],
    "changed": [name for name in before if name in now and before[name] != now[name]],
  }
  told = [f"{kind}: {_listed(names)}" for kind, names in faults.items() if names]
  if not told and list(before) != list(now):
    told = [f"the machines come in another order: {_listed(list(now))}, in the run {_listed(list(before))}"]
  if told:
    raise ValueError(
      f"{place}: the training data differ from those the run was trained on ({'; '.join(told)});"
      " give it the same data, or use another --workdir"
    )


def read_machine(entry: Any, where: str) -> StoredMachine:
  """Returns what `describe_machine` wrote; raises ValueError on a field that is missing."""
  name = _field(entry, "name", where)
  where = f"{where}: machine {name!r}"
  stored = {field: _field(entry, field, where) for field in ("role", "preparation", "parts", "notes")}
  parts = {part: tuple(_field(stored["parts"], part, f"{where}: parts")) for part in Parts._fields}
  if not isinstance(stored["preparation"], dict):
    raise ValueError(f"{where}: preparation: {stored['preparation']!r} is not a group of fields")
  try:
    preparation = from_json(stored["preparation"])
  except (ValueError, TypeError, AttributeError) as error:
    raise ValueError(f"{where}: {error}; train.py writes it") from None
  return StoredMachine(name, stored["role"], preparation, Parts(**parts), stored["notes"])


def read_fleet(workdir: epath.PathLike) -> list[StoredGroup]:
  """Returns the groups of a work directory.

  Raises:
    ValueError: train.py has not made it, or a field is missing, with the machine that lacks it.
  """
  file = epath.Path(workdir) / FLEET
  groups = []
  for number, group in enumerate(read_json(file, "train.py", ("groups",))["groups"]):
    where = f"{file}: group {number}"
    metrics, targets = tuple(_field(group, "metrics", where)), tuple(_field(group, "targets", where))
    machines = tuple(read_machine(entry, where) for entry in _field(group, "machines", where))
    groups.append(StoredGroup(number, metrics, targets, machines))
  return groups


def _check_network(found: Any, config: Config, group: StoredGroup, place: epath.Path) -> None:
  """Raises ValueError where the arrays read are not of the network that the config describes."""
  template = state_template(config, len(group.machines), len(group.metrics), group.targets)
  wanted = {path: (x.shape, str(x.dtype)) for path, x in named_leaves(template.best_params).items()}
  there = {path: (x.shape, str(x.dtype)) for path, x in named_leaves(found).items()}
  for path in sorted(set(there) | set(wanted)):
    if there.get(path) != wanted.get(path):
      raise ValueError(f"{place}: leaf {path} is {there.get(path)}, this config needs {wanted.get(path)}")


def _vector(about: dict[str, Any], name: str, num_machines: int, place: epath.Path) -> list[Any]:
  values = {**about, **about.get("verdicts", {})}.get(name)
  if not isinstance(values, list) or len(values) != num_machines:
    raise ValueError(f"{place}: field {name!r} has no value for each of {num_machines} machines: {values!r}")
  return values


def _serving(
  about: dict[str, Any], group: StoredGroup, place: epath.Path
) -> tuple[dict[str, str], list[int]]:
  """Returns ({machine: what must be said of its parameters}, the lanes served with their current ones)."""
  names = [machine.name for machine in group.machines]
  if list(about.get("machines", [])) != names:
    raise ValueError(f"{place}: of machines {_listed(about.get('machines', []))}, not {_listed(names)}")
  fields = ("best_loss", "best_step", "validated_step", "machine_step", "retired")
  columns = [_vector(about, field, len(names), place) for field in fields]
  told: dict[str, str] = {}
  current, unready = [], []
  for lane, (loss, best, validated, step, retired) in enumerate(zip(*columns, strict=True)):
    end = f"retired at its state of step {step}; " if retired else ""
    if loss is not None:
      if retired:
        told[names[lane]] = f"{end}its best parameters, of step {best}, are scored"
    elif retired or validated > 0 or step >= about["num_steps"]:
      current.append(lane)
      told[names[lane]] = f"{end}never validated finitely; its last finite parameters are scored"
    else:
      unready.append(names[lane])
  if unready:
    raise ValueError(f"{place}: {_listed(unready)}: no validated state yet; train on")
  return told, current


def _warn(line: str) -> None:
  print(f"warning: {line}", file=sys.stderr, flush=True)


def best_params(
  workdir: epath.PathLike,
  config: Config,
  group: StoredGroup,
  step: int | None = None,
  *,
  report: Callable[[str], None] = _warn,
) -> tuple[Any, int, dict[str, str]]:
  """Returns (the stacked parameters to score every machine with, the checkpoint's step, remarks by machine).

  A machine's parameters are those of its best validation. One that never had a finite validation, but was
  validated, retired or trained to the end, has its last finite parameters; the remarks name it and say so.

  Args:
    step: the checkpoint to read; None: the newest that is not damaged.
    report: takes a line on each damaged checkpoint that was passed over; default: stderr.

  Raises:
    ValueError: no checkpoint, one of another network, or a machine that was not validated yet.
  """
  with open_group(workdir, group.number) as checkpoints:

    def read(at: int) -> tuple[Any, dict[str, str]]:
      place = checkpoints.directory / str(at)
      told, current = _serving(checkpoints.about(at), group, place)
      params = checkpoints.read_part(at, "best_params")
      _check_network(params, config, group, place)
      if current:
        last = checkpoints.read_part(at, "params")
        _check_network(last, config, group, place)
        chosen = np.isin(np.arange(len(group.machines)), current)
        params = jax.tree.map(
          lambda a, b: np.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), b, a), params, last
        )  # the machine axis leads every leaf
      return params, told

    found, (params, told) = read_newest(checkpoints, step, read, report)
  return params, found, told
