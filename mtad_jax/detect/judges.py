"""Who scores which machine: its own network or mixture, or, where it has no model of its own, its role's mixture.

In: work directories and machines. Out: `Judge`s, each for machines of equal metrics. A machine without a model is
prepared and scored on the scale of its role: factor 1, shift 0, and no history of its own is asked for.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from mtad_jax.config import Config
from mtad_jax.config_choices import Detector
from mtad_jax.data.machine import Machine
from mtad_jax.data.preparation import Preparation
from mtad_jax.detect.calibrate_run import calibration_faults, read_calibration
from mtad_jax.detect.calibration import MachineCalibration
from mtad_jax.detect.parameters import read_params
from mtad_jax.detect.role_calibration import RoleCalibration, roles_from_json
from mtad_jax.detect.tables import LINEAR, NETWORK, ROLE_MIXTURE, ROLE_MIXTURE_COLD, ROLE_NETWORK
from mtad_jax.roles.role_file import ROLE_MIXTURES
from mtad_jax.roles.role_models import RoleModel, read_role_models, stack_scorers
from mtad_jax.roles.role_preparation import role_preparation
from mtad_jax.train.fleet_file import StoredGroup
from mtad_jax.train.workdir import CALIBRATION


class Judge(NamedTuple):
  """Machines of equal metrics and what they are scored with; one entry a machine but for the first three.

  params: stacked networks or scorers. models: of `tables.MODELS`. remarks: what must be said of the parameters, by
  machine.
  """

  config: Config
  metrics: tuple[str, ...]
  targets: tuple[int, ...]
  names: tuple[str, ...]
  preparations: tuple[Preparation, ...]
  calibrations: tuple[MachineCalibration, ...]
  models: tuple[str, ...]
  params: Any
  remarks: dict[str, str]


class ColdStart(NamedTuple):
  """A run of role mixtures as machines without a model of their own are scored by it."""

  workdir: epath.PathLike
  run_id: str
  config: Config
  groups: list[StoredGroup]
  models: list[RoleModel]
  calibrations: dict[tuple[int, str], RoleCalibration]


def open_cold_start(
  workdir: epath.PathLike, config: Config, groups: list[StoredGroup], run_id: str
) -> ColdStart:
  """Returns a run's mixtures with their calibrations.

  Raises:
    ValueError: the run is none of role mixtures, or its calibration is missing, damaged or of another run.
  """
  if config.model.detector is not Detector.ROLE_MIXTURE:
    raise ValueError(
      f"{workdir}: made with config.model.detector {config.model.detector.value}; machines without a model of their"
      f" own are scored by a run of {Detector.ROLE_MIXTURE.value}"
    )
  _, about = read_calibration(workdir)
  faults = calibration_faults(workdir, config, run_id, about)
  if faults:
    raise ValueError(faults[0])
  file = epath.Path(workdir) / CALIBRATION
  return ColdStart(workdir, run_id, config, groups, read_role_models(workdir), roles_from_json(about, file))


def _model_of(cold: ColdStart, machine: Machine) -> RoleModel:
  """Returns the mixture for a machine: of its role, and of the most of its metrics, where there are several.

  Raises:
    ValueError: no mixture of its role.
  """
  of_role = [model for model in cold.models if model.role == machine.role]
  if not of_role:
    known = ", ".join(dict.fromkeys(model.role for model in cold.models))
    raise ValueError(
      f"machine {machine.name!r} has no model, and its role {machine.role!r} no mixture in {cold.workdir}; known"
      f" roles: {known}"
    )
  alike = [model for model in of_role if set(cold.groups[model.group].metrics) <= set(machine.metrics)]
  return max(alike or of_role[:1], key=lambda model: len(cold.groups[model.group].metrics))


def cold_preparation(cold: ColdStart, machine: Machine) -> Preparation:
  """Returns what a machine without a model is prepared with: what the machines of its role have in common.

  Raises:
    ValueError: its role has no mixture, no calibration, or machines that have too little in common.
  """
  return _preparation(cold, _model_of(cold, machine), machine.name)


def _preparation(cold: ColdStart, model: RoleModel, name: str) -> Preparation:
  _calibration(cold, model, name)
  members = [m for m in cold.groups[model.group].machines if m.name in model.machines]
  return role_preparation(model.role, [(m.name, m.preparation) for m in members], model.scaler)


def peers(cold: ColdStart, machine: Machine) -> tuple[str, ...]:
  """Returns the machines whose mixture scores one without a model; raises ValueError where there is no mixture."""
  return _model_of(cold, machine).machines


def _calibration(cold: ColdStart, model: RoleModel, name: str) -> MachineCalibration:
  found = cold.calibrations.get((model.group, model.role))
  file = epath.Path(cold.workdir) / CALIBRATION
  if found is None:
    raise ValueError(
      f"{file}: role {model.role!r} has no calibration for machines without a model, such as {name!r}; run"
      " calibrate.py"
    )
  if found.calibration is None:
    raise ValueError(f"{file}: machine {name!r} has no model and cannot be scored by its role's: {found.refused}")
  return found.calibration


def judge_group(
  workdir: epath.PathLike,
  config: Config,
  group: StoredGroup,
  wanted: Sequence[str],
  calibrations: Mapping[str, MachineCalibration],
  step: int,
  begun_from: Mapping[str, str | None],
) -> Judge:
  """Returns the judge of those machines of a group that are wanted, at least one, each its own model.

  Args:
    step: of the checkpoint. begun_from: run.json's warm_start_from: the machine whose network each began with.
  """
  lanes = [i for i, stored in enumerate(group.machines) if stored.name in wanted]
  priors = {stored.name: calibrations[stored.name].prior for stored in group.machines}
  params, _, remarks = read_params(workdir, config, group, priors, step)
  members = [group.machines[i] for i in lanes]
  if config.model.detector is Detector.ROLE_MIXTURE:
    models = [ROLE_MIXTURE] * len(members)
  elif config.model.detector is Detector.LINEAR:
    models = [LINEAR] * len(members)
  else:
    models = [NETWORK if begun_from.get(m.name) in (None, m.name) else ROLE_NETWORK for m in members]
  return Judge(
    config=config,
    metrics=group.metrics,
    targets=group.targets,
    names=tuple(stored.name for stored in members),
    preparations=tuple(stored.preparation for stored in members),
    calibrations=tuple(calibrations[stored.name] for stored in members),
    models=tuple(models),
    params=jax.tree.map(lambda leaf: leaf[np.array(lanes)], params),
    remarks={stored.name: remarks[stored.name] for stored in members if stored.name in remarks},
  )


def judge_cold(cold: ColdStart, machines: Sequence[Machine]) -> list[Judge]:
  """Returns the judges of machines without a model of their own, by the mixtures of their roles.

  Raises:
    ValueError: as `cold_preparation`.
  """
  by_group: dict[int, list[tuple[Machine, RoleModel]]] = {}
  for machine in machines:
    model = _model_of(cold, machine)
    by_group.setdefault(model.group, []).append((machine, model))
  judges = []
  for number, pairs in by_group.items():
    group = cold.groups[number]
    calibrations = [_calibration(cold, model, machine.name) for machine, model in pairs]
    priors = {machine.name: own.prior for (machine, _), own in zip(pairs, calibrations, strict=True)}
    lanes = [(machine.name, model.role, model.scaler) for machine, model in pairs]
    judges.append(
      Judge(
        config=cold.config,
        metrics=group.metrics,
        targets=group.targets,
        names=tuple(machine.name for machine, _ in pairs),
        preparations=tuple(_preparation(cold, model, machine.name) for machine, model in pairs),
        calibrations=tuple(calibrations),
        models=(ROLE_MIXTURE_COLD,) * len(pairs),
        params=stack_scorers(cold.models, number, lanes, group.targets, priors),
        remarks={
          machine.name: f"no model of its own; scored by the mixture of role {model.role}, {ROLE_MIXTURES} of"
          f" {cold.workdir}"
          for machine, model in pairs
        },
      )
    )
  return judges


def describe_cold(cold: ColdStart, machines: Sequence[Machine]) -> dict[str, dict[str, Any]]:
  """Returns what the tables keep of machines without a model, by name: role, group and run of the mixture."""
  found = {}
  for machine in machines:
    model = _model_of(cold, machine)
    found[machine.name] = {"role": model.role, "group": model.group, "run_id": cold.run_id}
  return found
