"""Flags and steps that the commands on a work directory share: config in, data read and prepared."""

from typing import Literal

from absl import flags
from etils import epath
from program import UsageError
from terminal import track

from mtad_jax.config import Config, freeze
from mtad_jax.config_choices import Detector
from mtad_jax.data.exclude import check_machines, excluded_rows, parse_exclusions
from mtad_jax.data.fleet import Group, prepare_groups
from mtad_jax.data.fleet_folder import list_folder, read_fleet_folder
from mtad_jax.data.load import load_machines
from mtad_jax.data.machine import Machine
from mtad_jax.detect.judges import ColdStart, open_cold_start
from mtad_jax.detect.trained_order import in_trained_order
from mtad_jax.train.fleet_file import check_same_data, describe_fleet
from mtad_jax.train.stored_run import Run, open_workdir
from mtad_jax.train.workdir import FLEET, read_json


def define_config() -> None:
  """Defines --config=FILE[:size], required, and --config.group.name=value."""
  from ml_collections import config_flags

  config_flags.DEFINE_config_file("config", None, "settings, e.g. configs/smd.py or configs/smd.py:cpu")
  flags.mark_flag_as_required("config")


def frozen_config() -> Config:
  """Returns --config, frozen; raises UsageError on a missing file, an unknown name or a value not allowed."""
  try:
    return freeze(flags.FLAGS.config.to_dict())
  except (ValueError, OSError) as error:  # ml_collections keeps a missing file's error until the first access
    raise UsageError(error) from None


def load_run_machines(run: Run, data_dir: str | None, source: str | None) -> list[Machine]:
  """Returns the run's raw machines, from the flags where given, else from where train.py read them."""
  if data_dir and source:
    raise UsageError("--data_dir and --source: one of them, not both")
  if not data_dir and not source:
    data_dir, source = run.run["data_dir"], run.run["source"]
  return load_machines(run.config.data, data_dir=data_dir, source=source, track=track)


def prepared_again(run: Run, config: Config, machines: list[Machine], workdir: str) -> list[Group]:
  """Returns the training data prepared as at training.

  Raises:
    ValueError: naming the machines whose data changed since, so that the network was fitted on other rows.
  """
  groups = prepare_groups(machines, config, track)
  place = epath.Path(workdir) / FLEET
  check_same_data(read_json(place, "train.py", ("groups",)), describe_fleet(groups), place)
  return groups


def without_calibration_rows(groups: list[Group], machines: list[Machine], texts: list[str]) -> list[Group]:
  """Returns the groups with further rows marked unusable; the scaling, fitted at training, stays as it was."""
  exclusions = parse_exclusions(texts)
  check_machines(exclusions, [machine.name for machine in machines])
  raw = {machine.name: machine.train for machine in machines}
  changed = []
  for group in groups:
    members = []
    for machine in group.machines:
      series, split = raw[machine.name], machine.train
      rows = excluded_rows(exclusions, machine.name, len(series.values), series.timestamps)
      usable = split.usable.copy()
      usable[split.row_to_grid[rows]] = False
      members.append(machine._replace(train=split._replace(usable=usable)))
    changed.append(group._replace(machines=tuple(members)))
  return changed


def define_cold_start() -> None:
  """Defines --cold_start=RUNDIR."""
  flags.DEFINE_string(
    "cold_start", None, "a run of role mixtures, for machines of --source that have no model in --workdir"
  )


def cold_start(run: Run, workdir: str, source: str | None) -> ColdStart | None:
  """Returns what scores machines without a model of their own: of --cold_start, or of a run of mixtures itself.

  None where neither is there, or without the flag no machine of `source` needs it.

  Raises:
    UsageError: --cold_start without new files. ValueError: the run is none of role mixtures, or damaged.
  """
  other = flags.FLAGS.cold_start
  if other and not source:
    raise UsageError("--cold_start: of new files, whose machines may be new; give --source")
  if other:
    there = open_workdir(other)
    return open_cold_start(other, there.config, there.groups, there.run["run_id"])
  known = {machine.name for group in run.groups for machine in group.machines}
  is_mixture = run.config.model.detector is Detector.ROLE_MIXTURE
  if is_mixture and source and any(name not in known for name in list_folder(source)):
    return open_cold_start(workdir, run.config, run.groups, run.run["run_id"])
  return None


def read_new_files(
  run: Run, source: str, extra: Literal["refuse", "ignore"], cold: ColdStart | None = None
) -> list[Machine]:
  """Returns the machines of a fleet folder to be scored, their test columns in the trained order.

  Args:
    source: a fleet folder; train/ may be missing, and is not read into the result.
    extra: what to do with metrics that training did not have. cold: as `in_trained_order`.

  Raises:
    ValueError: a machine without a model, or a broken input contract, in one line.
  """
  machines = read_fleet_folder(source, require_train=False, track=track)
  return [in_trained_order(run, machine, source, extra, cold) for machine in machines]
