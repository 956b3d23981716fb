"""fleet.json: what a run knows of its machines without their data; written once, read by all later commands."""

import hashlib
from typing import Any, NamedTuple

from etils import epath

from mtad_jax.config import Config
from mtad_jax.data.fleet import Group
from mtad_jax.data.parts import Parts
from mtad_jax.data.preparation import Preparation, from_json, to_json
from mtad_jax.train.checkpoints import Checkpoints
from mtad_jax.train.loop import group_directory, state_template
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


def fingerprint(groups: list[Group]) -> str:
  """Returns a digest of the prepared training data: names, metrics, values, what was excluded."""
  digest = hashlib.sha256()
  for group in groups:
    digest.update("\n".join(group.metrics).encode())
    for machine in group.machines:
      digest.update(machine.name.encode())
      digest.update(machine.train.values.tobytes())
      digest.update(machine.train.usable.tobytes())
  return digest.hexdigest()


def describe_fleet(groups: list[Group]) -> dict[str, Any]:
  """Returns fleet.json's content."""
  return {
    "fingerprint": fingerprint(groups),
    "groups": [
      {
        "metrics": list(group.metrics),
        "targets": list(group.targets),
        "machines": [
          {
            "name": machine.name,
            "role": machine.role,
            "preparation": to_json(machine.preparation),
            "parts": {name: list(pair) for name, pair in machine.parts._asdict().items()},
            "notes": machine.notes,
          }
          for machine in group.machines
        ],
      }
      for group in groups
    ],
  }


def read_fleet(workdir: epath.PathLike) -> list[StoredGroup]:
  """Returns the groups of a work directory; raises ValueError where train.py has not made it."""
  content = read_json(epath.Path(workdir) / FLEET, "train.py", ("fingerprint", "groups"))
  groups = []
  for number, group in enumerate(content["groups"]):
    machines = tuple(
      StoredMachine(
        name=machine["name"],
        role=machine["role"],
        preparation=from_json(machine["preparation"]),
        parts=Parts(**{name: tuple(pair) for name, pair in machine["parts"].items()}),
        notes=machine["notes"],
      )
      for machine in group["machines"]
    )
    groups.append(StoredGroup(number, tuple(group["metrics"]), tuple(group["targets"]), machines))
  return groups


def best_params(
  workdir: epath.PathLike, config: Config, group: StoredGroup, step: int | None = None
) -> tuple[Any, int]:
  """Returns (the stacked parameters of every machine's best state, the checkpoint's step).

  Args:
    step: the checkpoint to read; None: the newest.

  Raises:
    ValueError: no checkpoint, or none with a validated state yet.
  """
  directory = group_directory(workdir, group.number)
  if not directory.exists():
    raise ValueError(f"{directory}: no checkpoint; train.py writes them")
  checkpoints = Checkpoints(directory, read_only=True)
  try:
    steps = checkpoints.steps()
    if not steps:
      raise ValueError(f"{directory}: no complete checkpoint; train.py writes them")
    chosen = steps[-1] if step is None else step
    template = state_template(config, len(group.machines), len(group.metrics), group.targets)
    state = checkpoints.restore(chosen, template)
  finally:
    checkpoints.close()
  if not all(state.best_loss < float("inf")):
    names = [
      m.name for m, loss in zip(group.machines, state.best_loss, strict=True) if not loss < float("inf")
    ]
    raise ValueError(f"{directory / str(chosen)}: {', '.join(names)} has no validated state yet; train on")
  return state.best_params, chosen
