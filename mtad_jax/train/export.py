"""One machine of a fleet's run as a work directory of its own: the same model, to be scored, calibrated, trained on.

Made beside its place and renamed, so that it is there whole or not at all.
"""

import dataclasses
import datetime
import json
import uuid
from typing import Any

import jax
import numpy as np
from etils import epath

from mtad_jax.config import Config, dumps
from mtad_jax.data.exclude import ANY_MACHINE, parse_exclusions
from mtad_jax.data.train_from import parse_beginnings
from mtad_jax.train.checkpoints import Checkpoints
from mtad_jax.train.fleet_file import StoredGroup
from mtad_jax.train.fleet_step import state_template
from mtad_jax.train.inspection import named_leaves
from mtad_jax.train.metrics_file import METRICS, read_metrics
from mtad_jax.train.reading import open_group
from mtad_jax.train.run_length import total_steps
from mtad_jax.train.workdir import (
  CALIBRATION,
  CONFIG,
  FLEET,
  RUN,
  group_directory,
  is_cloud,
  read_json,
  write_json,
  write_whole,
)


def _own_config(config: Config, machine: str, num_machines: int) -> Config:
  """Returns the settings of the machine alone: its exclusions and first row, the steps the fleet's budget bought.

  Args:
    num_machines: of equal metrics, in all blocks.
  """
  texts = config.data.exclude
  kept = [e.text for e in parse_exclusions(texts) if e.machine in (ANY_MACHINE, machine)]
  begun = [b.text for b in parse_beginnings(config.data.train_from) if b.machine in (ANY_MACHINE, machine)]
  data = dataclasses.replace(
    config.data, machines=(machine,), exclude=tuple(kept), train_from=tuple(begun)
  )
  train = dataclasses.replace(
    config.train,
    num_train_steps=total_steps(config, num_machines),
    window_budget=0,
    machines_per_block=0,
  )
  return dataclasses.replace(config, data=data, train=train)


def _own_lane(values: Any, lane: int, num_machines: int) -> Any:
  """Returns JSON with one machine's entry of every list that has one per machine."""
  if isinstance(values, dict):
    return {name: _own_lane(value, lane, num_machines) for name, value in values.items()}
  if isinstance(values, list) and len(values) == num_machines:
    return [values[lane]]
  return values


def _own_log(workdir: epath.PathLike, group: int, names: list[str], lane: int, step: int) -> str:
  """Returns the machine's rows of metrics.jsonl up to a step, as text."""
  name, lines = names[lane], []
  for row in read_metrics(workdir):
    if row["group"] != group or (not row.get("header") and row["step"] > step):
      continue
    apart = {key: row[key] for key in ("machines", "trouble") if key in row}
    kept = _own_lane({key: value for key, value in row.items() if key not in apart}, lane, len(names))
    if "machines" in apart:
      kept["machines"] = [name]
    if "trouble" in apart:
      kept["trouble"] = [record for record in apart["trouble"] if record["machine"] == name]
    lines.append(json.dumps({**kept, "group": 0}) + "\n")
  return "".join(lines)


def _as_state(tree: Any, config: Config, group: StoredGroup, place: epath.Path) -> Any:
  """Returns one machine's arrays in the training state's structure, a machine axis of one in front."""
  template = state_template(config, 1, len(group.metrics), group.targets)
  found, wanted = named_leaves(tree), named_leaves(template)
  for path in sorted(set(found) | set(wanted)):
    there = (1, *found[path].shape) if path in found else None
    needed = wanted[path].shape if path in wanted else None
    if there != needed:
      raise ValueError(f"{place}: leaf {path} is {there}, this config needs {needed}")
  return jax.tree.unflatten(jax.tree.structure(template), [np.asarray(found[path])[None] for path in wanted])


def _export_checkpoint(
  workdir: epath.PathLike,
  target: epath.Path,
  config: Config,
  group: StoredGroup,
  lane: int,
  step: int | None,
  run_id: str,
) -> int:
  """Writes the machine's checkpoint into `target`; returns its step."""
  with open_group(workdir, group.number) as checkpoints:
    step = checkpoints.steps()[-1] if step is None else step
    about = checkpoints.about(step)
    names, place = list(about["machines"]), checkpoints.directory / str(step)
    if names != [machine.name for machine in group.machines]:
      raise ValueError(f"{place}: its machines are not those of {FLEET}")
    state = _as_state(checkpoints.read_machine(step, lane), config, group, place)
  made_anew = ("format", "machines", "tree", "checksums")
  per_machine = ("machine_step", "verdicts", "best_loss", "best_step", "validated_step")
  own = {
    name: _own_lane(value, lane, len(names)) if name in per_machine else value
    for name, value in about.items()
    if name not in made_anew
  }
  with Checkpoints(group_directory(target, 0)) as checkpoints:
    checkpoints.save(step, state, (names[lane],), {**own, "run_id": run_id})
    checkpoints.wait()
  return step


def _export_calibration(
  workdir: epath.PathLike, target: epath.Path, group: int, machine: str, step: int, run: dict, run_id: str
) -> str:
  """Writes the machine's calibration where it is of that step; returns what was done, for a person."""
  file = epath.Path(workdir) / CALIBRATION
  if not file.exists():
    return "no calibration: the run has none; calibrate.py makes one"
  content = read_json(file, "calibrate.py", ("run_id", "checkpoint_steps", "machines"))
  steps = content["checkpoint_steps"]
  of_step = steps[group] if group < len(steps) else None
  if content["run_id"] != run["run_id"] or machine not in content["machines"] or of_step != step:
    return f"no calibration: {file} is of step {of_step}, not of step {step}; calibrate.py makes one"
  own = {"run_id": run_id, "checkpoint_steps": [step], "machines": {machine: content["machines"][machine]}}
  write_json(target / CALIBRATION, {**content, **own})
  return f"calibration of step {step}"


def _check_place(target: epath.Path) -> None:
  if is_cloud(str(target)):
    raise ValueError(f"{target}: a folder on a local disk is wanted")
  if target.exists() and (not target.is_dir() or any(target.iterdir())):
    raise ValueError(f"{target}: exists and is not an empty folder; an export wants a new place")


def export_machine(
  workdir: epath.PathLike,
  target: epath.PathLike,
  config: Config,
  run: dict[str, Any],
  group: StoredGroup,
  machine: str,
  step: int | None = None,
) -> dict[str, Any]:
  """Returns what was exported: machine, step, workdir, run_id and what became of the calibration.

  Args:
    workdir: the fleet's run. target: a folder that does not exist or is empty.
    config, run, group: of the fleet's run; run: run.json's content.
    step: the checkpoint; None: the newest.

  Raises:
    ValueError: the place is taken, the step is not there, is damaged or of another network.
  """
  place = epath.Path(target)
  _check_place(place)
  lane = [stored.name for stored in group.machines].index(machine)
  all_groups = read_json(epath.Path(workdir) / FLEET, "train.py", ("groups",))["groups"]
  fleet = all_groups[group.number]
  alike = [g for g in all_groups if (g["metrics"], g["targets"]) == (fleet["metrics"], fleet["targets"])]
  groups = [{**fleet, "machines": [fleet["machines"][lane]]}]
  run_id = uuid.uuid4().hex
  place.parent.mkdir(parents=True, exist_ok=True)
  made = place.parent / f".{place.name}.{uuid.uuid4().hex[:8]}"
  try:
    made.mkdir()
    at = _export_checkpoint(workdir, made, config, group, lane, step, run_id)
    calibration = _export_calibration(workdir, made, group.number, machine, at, run, run_id)
    write_whole(made / CONFIG, dumps(_own_config(config, machine, sum(len(g["machines"]) for g in alike))))
    write_json(made / FLEET, {"groups": groups})
    names = [stored.name for stored in group.machines]
    write_whole(made / METRICS, _own_log(workdir, group.number, names, lane, at))
    origin = {"run_id": run["run_id"], "workdir": str(workdir), "step": at, "machine": machine}
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    own = {name: value for name, value in run.items() if name != "warm_start_from"}
    if "warm_start_from" in run:
      own["warm_start_from"] = {machine: run["warm_start_from"].get(machine)}
    write_json(made / RUN, {**own, "run_id": run_id, "created": created, "exported_from": origin})
    if place.exists():
      place.rmdir()  # empty, or this fails
    made.rename(place)
  finally:
    if made.exists():
      made.rmtree()
  return {
    "machine": machine,
    "step": at,
    "workdir": str(place),
    "run_id": run_id,
    "calibration": calibration,
  }
