"""Calibrations of roles' mixtures, for machines that have no calibration of their own.

In: prepared machines, the mixtures fitted on them, what experts know. Out: one `RoleCalibration` a mixture. All
machines of a role are brought to its scale and measured from one centre, as a machine that nothing is known of will
be, and each by a mixture and a centre that it had no part in: a mixture knows the machines it was fitted on better
than it will ever know a new one. The error distributions and the threshold are fitted on the calibration parts of all
of them together.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from mtad_jax.config import Config
from mtad_jax.data.fleet import Group, PreparedMachine, part_rows
from mtad_jax.data.track import Track, untracked
from mtad_jax.detect.calibration import (
  Check,
  MachineCalibration,
  WarningLevel,
  quiet_rows,
  step_seconds,
  try_threshold,
)
from mtad_jax.detect.calibration_json import calibration_from_json, calibration_to_json
from mtad_jax.detect.combine import metric_scores, row_scores
from mtad_jax.detect.errors import ErrorModel, fit_error_model, join
from mtad_jax.detect.held_out import PartErrors, part_errors
from mtad_jax.detect.pot import PotFit
from mtad_jax.detect.thresholds import critical_rate, fit_threshold, row_thresholds, warning_rate
from mtad_jax.roles.fit import fit_roles
from mtad_jax.roles.prior import Entry, MetricPrior, of_columns, resolve_prior
from mtad_jax.roles.role_models import RoleModel, stack_scorers
from mtad_jax.roles.role_preparation import on_role_scale, role_preparation

MAX_FOLDS = 5  # mixtures fitted for the calibration of one, each without its share of the machines


class RoleCalibration(NamedTuple):
  """group, role: of the mixture. calibration: None where there can be none, and then `refused` says why."""

  group: int
  role: str
  calibration: MachineCalibration | None
  refused: str


class _Rows(NamedTuple):
  """One machine's held-out rows: metrics' scores [N, F'] and scores [N]."""

  by_metric: np.ndarray
  scores: np.ndarray


def calibrate_roles(
  groups: Sequence[Group],
  models: Sequence[RoleModel],
  entries: Sequence[Entry],
  config: Config,
  track: Track = untracked,
) -> list[RoleCalibration]:
  """Returns the calibration of every mixture; a role whose machines cannot serve as one has the reason in its place.

  Args:
    groups: the prepared training data; a model's `group` is the number among them. entries: of the prior file.
    track: watches the roles.
  """
  found = []
  for model in track(models, "roles' own thresholds"):
    group = groups[model.group]
    members = tuple(machine for machine in group.machines if machine.name in model.machines)
    try:
      calibration = _calibrate(group._replace(machines=members), model, entries, config)
    except ValueError as error:
      found.append(RoleCalibration(model.group, model.role, None, str(error)))
    else:
      found.append(RoleCalibration(model.group, model.role, calibration, ""))
  return found


def _calibrate(group: Group, model: RoleModel, entries: Sequence[Entry], config: Config) -> MachineCalibration:
  """Returns the calibration of one mixture; group: the machines that it was fitted on, no others."""
  known = [(machine.name, machine.preparation) for machine in group.machines]
  preparation = role_preparation(model.role, known, model.scaler)
  members = tuple(on_role_scale(machine, preparation) for machine in group.machines)
  group, columns = group._replace(machines=members), list(group.targets)
  window = config.model.window_size
  fit = [m.train.values[part_rows(m, "fit", window, config.data)].astype(np.float64) for m in members]
  levels = np.concatenate(fit).mean(axis=0)
  prior = resolve_prior(entries, model.role, group.metrics, model.scaler, levels)
  measured: list[list[PartErrors]] = [[] for _ in members]
  for lanes, fold in _folds(model, fit, config):
    own = tuple(members[i] for i in lanes)
    scorers = stack_scorers(
      [fold.model],
      model.group,
      [(machine.name, model.role, model.scaler) for machine in own],
      columns,
      {machine.name: prior for machine in own},
    )
    centres = [fold.levels[columns]] * len(own)
    parts = part_errors(group._replace(machines=own), scorers, config, centres, ("calibration", "check"))
    for i, found in zip(lanes, parts, strict=True):
      measured[i] = found
  held = [(machine, own, check) for machine, (own, check) in zip(members, measured, strict=True) if len(own.rows)]
  if not held:
    raise ValueError(f"role {model.role}: no calibration rows on any of its {len(members)} machines")
  errors = fit_error_model(join([own.errors for _, own, _ in held]))
  scored_prior = of_columns(prior, columns)
  fitted_on = [_score(machine, own, errors, scored_prior, config) for machine, own, _ in held]
  checked = [_score(machine, check, errors, scored_prior, config).scores for machine, _, check in held]

  settings, step_s = config.detect, step_seconds(members[0], config)
  series, run_rows = [rows.scores for rows in fitted_on], quiet_rows(settings, step_s)
  name, nothing = f"of role {model.role}", np.zeros(0)
  pot, threshold, streaming = fit_threshold(
    name, nothing, series, step_s, settings, run_rows, critical_rate(settings)
  )
  thresholds = [row_thresholds(threshold, streaming, scores) for scores in checked]
  warning, rate = None, warning_rate(settings)
  if rate is not None:
    second = fit_threshold(name, nothing, series, step_s, settings, run_rows, rate)
    lower = min(second.value, threshold)
    tried = _try(checked, [np.full(len(scores), lower) for scores in checked], second.pot, run_rows)
    warning = WarningLevel(lower, second.pot, tried)
  return MachineCalibration(
    errors=errors,
    centre=levels[columns],
    prior=prior,
    usual=np.concatenate([rows.by_metric for rows in fitted_on]).mean(axis=0),
    initial=pot.initial,
    threshold=threshold,
    pot=pot,
    num_rows=sum(len(scores) for scores in series),
    pooled=f"all over {len(held)} machines of role {model.role}, each scored by a mixture fitted without it"
    if len(members) > 1
    else f"of one machine of role {model.role}: how much its peers will differ is not known",
    check=_try(checked, thresholds, pot, run_rows),
    warning=warning,
    streaming=streaming,
  )


class _Fold(NamedTuple):
  """What is known of a role from some of its machines: the mixture, and the metrics' means [F]."""

  model: RoleModel
  levels: np.ndarray


def _folds(model: RoleModel, fit: Sequence[np.ndarray], config: Config) -> list[tuple[range, _Fold]]:
  """Returns (machines left out, what the others say) for shares that leave out each once; one machine has no others.

  Args:
    fit: the machines' fit rows [N, F], the role's scale.
  """
  num_folds = min(MAX_FOLDS, len(fit))
  if num_folds < 2:
    return [(range(1), _Fold(model, fit[0].mean(axis=0)))]
  shares = [range(first, len(fit), num_folds) for first in range(num_folds)]
  rows = [np.concatenate([own for i, own in enumerate(fit) if i not in share]) for share in shares]
  settings = dataclasses.replace(config.roles, components=(len(model.mixture.log_weights),))
  names, floors = [model.role] * num_folds, [model.deviation_floor] * num_folds
  fitted = fit_roles(names, rows, floors, settings, config.train.random_seed)
  return [
    (share, _Fold(model._replace(mixture=found.mixture), values.mean(axis=0)))
    for share, found, values in zip(shares, fitted, rows, strict=True)
  ]


def _score(
  machine: PreparedMachine, own: PartErrors, errors: ErrorModel, known: MetricPrior, config: Config
) -> _Rows:
  """Returns one machine's rows scored under the role's error distributions; known: of the scored metrics."""
  settings = config.detect
  floor = config.model.variance_floor
  by_metric = metric_scores(own.errors, errors, own.filled, settings.rule, settings, floor, known)
  step_s = step_seconds(machine, config)
  return _Rows(by_metric, row_scores(by_metric, own.rows, settings.rule, settings, step_s, own.errors.surprise))


def _try(scores: list[np.ndarray], thresholds: list[np.ndarray], pot: PotFit, run_rows: int) -> Check:
  """Returns how the thresholds do on the check parts of all machines, summed."""
  each = [try_threshold(own, limit, pot, run_rows) for own, limit in zip(scores, thresholds, strict=True)]
  return Check(*(sum(counts) for counts in zip(*each, strict=True)))


def roles_to_json(found: Sequence[RoleCalibration]) -> list[dict[str, Any]]:
  """Returns the entries of calibration.json's field roles."""
  return [
    {
      "group": entry.group,
      "role": entry.role,
      "refused": entry.refused,
      "calibration": None if entry.calibration is None else calibration_to_json(entry.calibration),
    }
    for entry in found
  ]


def roles_from_json(about: Mapping[str, Any], file: epath.PathLike) -> dict[tuple[int, str], RoleCalibration]:
  """Returns what `roles_to_json` wrote by (group, role); nothing of a file of before there was any.

  Args:
    about: calibration.json's content. file: for messages.
  """
  found = {}
  for entry in about.get("roles", []):
    try:
      stored = entry["calibration"]
      calibration = None if stored is None else calibration_from_json(stored)
      found[entry["group"], entry["role"]] = RoleCalibration(
        entry["group"], entry["role"], calibration, entry["refused"]
      )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      told = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
      raise ValueError(f"{file}: a role's calibration: {told}; calibrate.py writes it") from None
  return found
