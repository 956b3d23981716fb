"""Whether a run can score a folder of new files: every reason why not, where score.py stops at the first."""

from typing import NamedTuple

import run_flags
from etils import epath
from inspect_roles import has_mixtures
from terminal import track

from mtad_jax.data.fleet_folder import SPLITS, list_files, natural_key, read_fleet_folder
from mtad_jax.data.machine import Machine
from mtad_jax.data.preparation import apply_preparation
from mtad_jax.detect.calibrate_run import calibration_faults, read_calibration
from mtad_jax.roles.role_file import ROLE_MIXTURES, read_role_file
from mtad_jax.train.fleet_file import best_params
from mtad_jax.train.reading import open_group
from mtad_jax.train.workdir import CALIBRATION


class Readiness(NamedTuple):
  """reasons: why scoring would be refused or empty, [] where it can be done. notes: what to know all the same."""

  machines: list[str]
  reasons: list[str]
  notes: list[str]


def _read_each(source: str, machine: str | None) -> tuple[list[str], list[Machine], list[str]]:
  """Returns (names in the folder, the machines that can be read, why the others cannot)."""
  root = epath.Path(source)
  if not root.is_dir():
    return [], [], [f"{root}: no such folder; a fleet folder with test/ is wanted"]
  try:
    files = {**list_files(root / SPLITS[0]), **list_files(root / SPLITS[1])}
  except ValueError as error:
    return [], [], [str(error)]
  names = sorted(files, key=natural_key)
  if machine and machine not in names:
    return [], [], [f"{root}: no file of machine {machine!r}; there are {', '.join(names) or 'none'}"]
  names = [machine] if machine else names
  try:
    return names, read_fleet_folder(source, machines=names, require_train=False, track=track), []
  except ValueError as first:
    whole = str(first)
  found, reasons = [], []
  for name in names:
    try:
      found += read_fleet_folder(source, machines=(name,), require_train=False)
    except ValueError as error:
      reasons.append(str(error))
  return names, found, reasons or [whole]


def _contract(opened: run_flags.Run, machines: list[Machine], source: str, extra: str) -> list[str]:
  """Returns what keeps the readable machines from being scored: no model, a broken contract, too few rows."""
  stored = {machine.name: machine for group in opened.groups for machine in group.machines}
  window, reasons = opened.config.model.window_size, []
  for machine in machines:
    try:
      ordered = run_flags.in_trained_order(
        opened, machine, source, "ignore" if extra == "ignore" else "refuse"
      )
      split = apply_preparation(stored[machine.name].preparation, ordered.test, opened.config.data)
    except ValueError as error:
      reasons.append(f"{source}: {error}" if source not in str(error) else str(error))
      continue
    if len(split.values) <= window:
      reasons.append(
        f"{source}: machine {machine.name}: test has {len(split.values)} rows on its grid; the first score"
        f" needs {window + 1} (model.window_size {window} and the row after)"
      )
  return reasons


def _network(
  opened: run_flags.Run, workdir: str, names: list[str], steps: list[int] | None
) -> tuple[list[str], list[str]]:
  """Returns (reasons, notes) of the checkpoints that the machines would be scored with."""
  reasons: list[str] = []
  notes: list[str] = []
  for group in opened.groups:
    members = [stored.name for stored in group.machines if stored.name in names]
    if not members:
      continue
    step = None if steps is None else steps[group.number]
    try:
      _, used, remarks = best_params(workdir, opened.config, group, step, report=notes.append)
      with open_group(workdir, group.number) as checkpoints:
        newest = checkpoints.steps()[-1]
    except (ValueError, OSError) as error:
      told = f" ({CALIBRATION} is of this step; run calibrate.py)" if steps is not None else ""
      reasons.append(f"{error}{told}")
      continue
    notes += [f"{name}: {remark}" for name, remark in remarks.items() if name in members]
    if newest > used and steps is not None:
      notes.append(f"{CALIBRATION} is of step {used}, and so is what would be scored; the newest is {newest}")
  return reasons, notes


def _mixtures(opened: run_flags.Run, workdir: str, names: list[str]) -> list[str]:
  """Returns why machines have no mixture of their role."""
  try:
    known = {(stored.group, stored.role) for stored in read_role_file(workdir)}
  except ValueError as error:
    return [str(error)]
  return [
    f"{epath.Path(workdir) / ROLE_MIXTURES}: no mixture of role {stored.role!r}, which machine {stored.name} has"
    for group in opened.groups
    for stored in group.machines
    if stored.name in names and (group.number, stored.role) not in known
  ]


def find_readiness(
  opened: run_flags.Run, workdir: str, source: str, machine: str | None, extra: str
) -> Readiness:
  """Returns whether `score.py --source` could score a folder with this work directory, with all reasons.

  Args:
    opened: the run. source: a fleet folder. machine: that one alone; None: all in the folder.
    extra: what to do with metrics that training did not have: refuse, ignore.
  """
  names, machines, reasons = _read_each(source, machine)
  reasons += _contract(opened, machines, source, extra)
  steps = None
  if not (epath.Path(workdir) / CALIBRATION).exists():
    reasons.append(f"{epath.Path(workdir) / CALIBRATION}: no calibration; train.py or calibrate.py makes one")
  else:
    try:
      calibrations, about = read_calibration(workdir)
    except ValueError as error:
      reasons.append(str(error))
    else:
      reasons += calibration_faults(workdir, opened.config, opened.run["run_id"], about)
      known = {stored.name for group in opened.groups for stored in group.machines}
      without = [name for name in names if name in known and name not in calibrations]
      if without:
        reasons.append(f"{epath.Path(workdir) / CALIBRATION}: no calibration of {', '.join(without)}")
      steps = about["checkpoint_steps"]
      if len(steps) != len(opened.groups):
        reasons.append(
          f"{epath.Path(workdir) / CALIBRATION}: checkpoint_steps has {len(steps)} entries for"
          f" {len(opened.groups)} groups; run calibrate.py"
        )
        steps = None
  if has_mixtures(opened.config):
    return Readiness(names, list(dict.fromkeys(reasons + _mixtures(opened, workdir, names))), [])
  found, notes = _network(opened, workdir, names, steps)
  return Readiness(names, list(dict.fromkeys(reasons + found)), notes)
