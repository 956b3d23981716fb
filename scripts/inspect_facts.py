"""What a work directory's checkpoints hold, as plain dicts: inspect_checkpoint.py prints them, or gives them as JSON.

Only what is shown is read: the JSON beside the arrays, one branch of them, one machine's part of it.
"""

import contextlib
import sys
from typing import Any

import jax
from etils import epath
from program import UsageError
from run_flags import Run
from terminal import track

from mtad_jax.config import Config, differences
from mtad_jax.detect.calibrate_run import read_calibration
from mtad_jax.detect.calibration import MachineCalibration
from mtad_jax.train.checkpoint_reader import CheckpointReader
from mtad_jax.train.checkpoints import Checkpoints, CorruptCheckpoint
from mtad_jax.train.fleet_file import StoredGroup, StoredMachine
from mtad_jax.train.inspection import (
  Lanes,
  compare_branches,
  describe_leaves,
  describe_unread,
  machine_records,
)
from mtad_jax.train.metrics_file import read_metrics
from mtad_jax.train.reading import open_group, read_newest
from mtad_jax.train.workdir import CALIBRATION, group_directory

BRANCH = "best_params"
COMPARED = (BRANCH, "params")
MAX_RECORDS = 10  # of trouble, the last


def warn(line: str) -> None:
  """Prints a line to stderr: it goes beside the output, not into it."""
  print(f"warning: {line}", file=sys.stderr, flush=True)


def lane_of(group: StoredGroup, machine: str | None) -> int | None:
  """Returns the machine's lane in its group; None for the fleet."""
  return None if machine is None else [stored.name for stored in group.machines].index(machine)


def read_branch(checkpoints: Checkpoints, step: int, lane: int | None, name: str | None) -> Any:
  """Returns one branch, or with None the whole tree, of the fleet or of one machine; nothing else is read."""
  if lane is not None:
    return checkpoints.read_machine(step, lane, name)
  return checkpoints.read_tree(step) if name is None else checkpoints.read_part(step, name)


def config_facts(config: Config, other: Config) -> dict[str, list[Any]]:
  """Returns {field: [value here, value there]} where the two differ."""
  return {path: list(pair) for path, pair in differences(config, other).items()}


def _step_facts(checkpoints: Checkpoints, step: int, lane: int | None) -> dict[str, Any]:
  """Returns one line of the list of steps, from the JSON beside the arrays."""
  try:
    about = checkpoints.about(step)
  except CorruptCheckpoint as error:
    return {"step": step, "damage": str(error)}
  records = machine_records(about)
  records = records if lane is None else [records[lane]]
  losses = sorted(record["best_loss"] for record in records if record["best_loss"] is not None)

  def total(field: str) -> int | None:
    values = [record[field] for record in records]
    return None if None in values else sum(values)

  return {
    "step": step,
    "damage": None,
    "num_machines": len(records),
    "num_validated": len(losses),
    "num_skipped": total("num_skipped"),
    "num_rolled_back": total("num_rolled_back"),
    "num_retired": total("retired"),
    "median_loss": losses[len(losses) // 2] if losses else None,
    "worst_loss": losses[-1] if losses else None,
  }


def _left_aside(checkpoints: Checkpoints, steps: list[int]) -> list[str]:
  """Returns the folders beside the steps that do not count: half written, or set aside as damaged."""
  known = {str(step) for step in steps}
  return sorted(
    path.name for path in checkpoints.directory.iterdir() if path.is_dir() and path.name not in known
  )


def group_facts(
  group: StoredGroup, workdir: str, machine: str | None, step: int | None, *, full: bool, verify: bool
) -> dict[str, Any]:
  """Returns what one group's checkpoints hold: its steps, and of one step the machines and the arrays.

  Args:
    step: None: the newest whose arrays, as far as shown, are not damaged.
    full: every branch, not the best parameters alone. verify: read every array of every step.

  Raises:
    ValueError: no such step, or the step asked for is damaged.
  """
  lane = lane_of(group, machine)
  facts: dict[str, Any] = {
    "group": group.number,
    "machines": [stored.name for stored in group.machines],
    "metrics": list(group.metrics),
    "targets": [group.metrics[i] for i in group.targets],
    "steps": [],
    "left_aside": [],
    "step": None,
  }
  if step is None and not CheckpointReader(group_directory(workdir, group.number)).steps():
    return facts  # of several groups, those to come have none yet
  with open_group(workdir, group.number) as checkpoints:
    numbers = checkpoints.steps()
    listed = {number: _step_facts(checkpoints, number, lane) for number in numbers}
    if verify:
      for number in track(numbers, "verifying"):
        try:
          read_branch(checkpoints, number, lane, None)
        except CorruptCheckpoint as error:
          listed[number] = {"step": number, "damage": str(error)}
    passed_over: list[str] = []
    try:
      chosen, tree = read_newest(
        checkpoints,
        step,
        lambda at: read_branch(checkpoints, at, lane, None if full else BRANCH),
        passed_over.append,
      )
    except CorruptCheckpoint as error:
      if step is not None:
        raise
      warn(str(error))
      chosen, tree = None, None
    for number in numbers if step is None else []:
      if chosen is None or number > chosen:
        told = next((line for line in passed_over if line.startswith(f"step {number} ")), "")
        listed[number] = {"step": number, "damage": told.partition(": ")[2] or listed[number]["damage"]}
    facts |= {"steps": list(listed.values()), "left_aside": _left_aside(checkpoints, numbers), "step": chosen}
    if chosen is None:
      return facts
    about = checkpoints.about(chosen)
  records = machine_records(about)
  return {
    **facts,
    "fleet_steps": about.get("num_steps"),
    "written_by": {name: about.get(name) for name in ("run_id", "versions", "devices", "num_processes")},
    "records": records if lane is None else [records[lane]],
    "branch": None if full else BRANCH,
    "arrays": describe_leaves(tree),
    "not_read": [] if full else describe_unread(about["tree"], (BRANCH,)),
  }


def trouble_facts(workdir: str, group: StoredGroup, machine: str | None, step: int | None) -> dict[str, Any]:
  """Returns how many steps of trouble the log has up to a step, and the last of them."""
  records = [
    record
    for row in read_metrics(workdir)
    if row["group"] == group.number
    for record in row.get("trouble", [])
    if machine in (None, record["machine"]) and (step is None or record["tick"] <= step)
  ]
  return {"group": group.number, "num_records": len(records), "last": records[-MAX_RECORDS:]}


def _metric_table(group: StoredGroup, stored: StoredMachine, found: MachineCalibration | None) -> list[dict]:
  """Returns a dict per metric: its scaler in its own units, and its errors on calibration rows, scaled."""
  scaler, rows = stored.preparation.scaler, []
  for i, metric in enumerate(group.metrics):
    row: dict[str, Any] = {
      "metric": metric,
      "minimum": float(scaler.minimum[i]),
      "maximum": float(scaler.maximum[i]),
      "scale": float(scaler.scale[i]),
      "is_constant": bool(scaler.is_constant[i]),
      "is_counter": bool(stored.preparation.is_counter[i]),
      "is_target": i in group.targets,
    }
    if found is not None and i in group.targets:
      target = group.targets.index(i)
      for part, moments in found.errors._asdict().items():
        if moments is not None:
          row[f"{part}_mean"] = float(moments.mean[target])
          row[f"{part}_deviation"] = float(moments.deviation[target])
      row["usual_score"] = float(found.usual[target])
    rows.append(row)
  return rows


def threshold_facts(opened: Run, workdir: str, machine: str | None) -> dict[str, Any]:
  """Returns every machine's threshold, of one machine also its scaler and errors metric by metric."""
  calibrations: dict[str, MachineCalibration] = {}
  facts: dict[str, Any] = {"rule": None, "checkpoint_steps": None, "machines": [], "metrics": []}
  if (epath.Path(workdir) / CALIBRATION).exists():
    calibrations, about = read_calibration(workdir)
    facts |= {"rule": about["rule"], "checkpoint_steps": about["checkpoint_steps"]}
    facts["is_of_this_run"] = about["run_id"] == opened.run["run_id"]
  for group in opened.groups:
    for stored in group.machines:
      found = calibrations.get(stored.name)
      if machine not in (None, stored.name):
        continue
      entry: dict[str, Any] = {"name": stored.name, "role": stored.role, "threshold": None}
      entry["num_constant"] = int(stored.preparation.scaler.is_constant.sum())
      if found is not None:
        entry |= {"threshold": found.threshold, "initial": found.initial, "status": found.pot.status}
        entry |= {"num_rows": found.num_rows, "pooled": found.pooled}
        if found.warning is not None:
          entry["warning"] = found.warning.threshold
        if machine:
          entry["check"] = found.check._asdict()
      facts["machines"].append(entry)
      if machine:
        facts["metrics"] = _metric_table(group, stored, found)
  return facts


def _side(opened: Run, workdir: str, step: int | None, machines: list[str]) -> dict[str, Any]:
  """Returns one side of a comparison: per compared branch its lanes, the machines' records, the steps."""
  side: dict[str, Any] = {"branches": {name: [] for name in COMPARED}, "records": {}, "steps": {}}
  for group in opened.groups:
    names = [stored.name for stored in group.machines if stored.name in machines]
    if not names:
      continue
    alone = lane_of(group, names[0]) if len(names) == 1 else None

    with contextlib.ExitStack() as stack:
      checkpoints = stack.enter_context(open_group(workdir, group.number))

      def read(at: int, checkpoints: Checkpoints = checkpoints, alone: int | None = alone) -> dict[str, Any]:
        return {name: read_branch(checkpoints, at, alone, name) for name in COMPARED}

      at, trees = read_newest(checkpoints, step, read, warn)
      records = machine_records(checkpoints.about(at))
    side["steps"][str(group.number)] = at
    side["records"] |= {record["name"]: record for record in records if record["name"] in names}
    for name, tree in trees.items():
      whole = tuple(stored.name for stored in group.machines)
      if alone is None:
        side["branches"][name].append(Lanes(tree, whole))
      else:
        side["branches"][name].append(Lanes(jax.tree.map(lambda leaf: leaf[None], tree), (names[0],)))
  return side


def compare_facts(
  here: tuple[Run, str, int | None], there: tuple[Run, str, int | None], machine: str | None
) -> dict[str, Any]:
  """Returns how two checkpoints differ: arrays, config, verdicts and losses, machines matched by name.

  Args:
    here, there: a run, its work directory and its step (None: the newest that is not damaged).

  Raises:
    ValueError: no such step, or no machine in common.
  """
  names = [[stored.name for group in run.groups for stored in group.machines] for run, _, _ in (here, there)]
  common = [name for name in names[0] if name in names[1] and machine in (None, name)]
  if not common:
    told = f"machine {machine!r} is not in both" if machine else "no machine is in both"
    raise ValueError(
      f"{here[1]} and {there[1]}: {told}; {', '.join(names[0])} here, {', '.join(names[1])} there"
    )
  if here[1] == there[1] and here[2] == there[2]:
    raise UsageError("--compare: the two are the same checkpoint")
  sides = [_side(*side, common) for side in (here, there)]
  compared = {
    name: compare_branches(sides[0]["branches"][name], sides[1]["branches"][name]) for name in COMPARED
  }
  return {
    "here": {"workdir": here[1], "run_id": here[0].run["run_id"], "steps": sides[0]["steps"]},
    "there": {"workdir": there[1], "run_id": there[0].run["run_id"], "steps": sides[1]["steps"]},
    "only_here": [name for name in names[0] if name not in names[1] and machine is None],
    "only_there": [name for name in names[1] if name not in names[0] and machine is None],
    "config": config_facts(here[0].config, there[0].config),
    "records": [
      {"name": name, "here": sides[0]["records"][name], "there": sides[1]["records"][name]} for name in common
    ],
    "branches": compared,
  }
