"""The mixtures of a fleet's roles: fitted from prepared machines, kept in one file, made ready for every machine.

In: groups of prepared machines. Out: role_mixtures.npz in the work directory (role_file.py), and `Scorer`s stacked
over the machines of a group. A role's rows are brought from each machine's own scale to one that all its machines
share, so that a host far from its peers stands out and a new host needs no scale of its own.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from mtad_jax.config import Config
from mtad_jax.data.fleet import Group, PreparedMachine, part_rows
from mtad_jax.data.scaling import TINY_MAGNITUDE, Scaler
from mtad_jax.data.track import Track, untracked
from mtad_jax.roles.attribution import Scorer, make_scorer
from mtad_jax.roles.fit import Fitted, fit_roles
from mtad_jax.roles.mixture import Mixture
from mtad_jax.roles.prior import Entry, MetricPrior, check_known, resolve_prior
from mtad_jax.roles.role_file import ARRAYS, StoredRole, describe_roles, read_role_file, write_role_file


class RoleModel(NamedTuple):
  """One role's mixture.

  group: number of the group of equal metrics. machines: names. scaler: of all their fit rows. deviation_floor: [F]
  that it was fitted with, the role's scaled units. bic: by number of components, those tried. num_rows: fitted on.
  """

  group: int
  role: str
  machines: tuple[str, ...]
  scaler: Scaler
  mixture: Mixture
  deviation_floor: np.ndarray
  bic: dict[int, float]
  num_rows: int


def join_scalers(scalers: Sequence[Scaler], floor: float) -> Scaler:
  """Returns the scaler of all machines' rows together, by `fit_scaler`'s rules.

  Args:
    floor: smallest scale of a metric that moved, as a share of its largest magnitude.
  """
  minimum = np.min([scaler.minimum for scaler in scalers], axis=0)
  maximum = np.max([scaler.maximum for scaler in scalers], axis=0)
  magnitude = np.maximum(np.abs(minimum), np.abs(maximum))
  is_constant = maximum == minimum
  moving = np.maximum(maximum - minimum, floor * np.maximum(magnitude, TINY_MAGNITUDE))
  resting = np.where(magnitude > TINY_MAGNITUDE, magnitude, 1.0)
  return Scaler(minimum, maximum, np.where(is_constant, resting, moving), is_constant)


def between(own: Scaler, role: Scaler) -> tuple[np.ndarray, np.ndarray]:
  """Returns (factor, shift) [F]: own scaled units times factor plus shift are the role's."""
  return own.scale / role.scale, (own.minimum - role.minimum) / role.scale


def resolve_priors(
  groups: Sequence[Group], entries: Sequence[Entry], config: Config, place: epath.PathLike
) -> dict[str, MetricPrior]:
  """Returns what a prior file's entries mean for every machine, by name.

  Args:
    place: the file, for messages.

  Raises:
    ValueError: an entry names a role or a metric that no machine has.
  """
  machines = [machine for group in groups for machine in group.machines]
  names = [metric for group in groups for metric in group.metrics]
  check_known(entries, [machine.role for machine in machines], names, place)
  found = {}
  for machine in machines:
    known = machine.preparation
    rows = part_rows(machine, "fit", config.model.window_size, config.data)
    levels = machine.train.values[rows].mean(axis=0, dtype=np.float64)
    found[machine.name] = resolve_prior(entries, machine.role, known.metrics, known.scaler, levels)
  return found


def _fit_rows(machine: PreparedMachine, role: Scaler, config: Config) -> np.ndarray:
  factor, shift = between(machine.preparation.scaler, role)
  rows = part_rows(machine, "fit", config.model.window_size, config.data)
  return machine.train.values[rows].astype(np.float64) * factor[None, :] + shift[None, :]


def train_roles(groups: Sequence[Group], config: Config, track: Track = untracked) -> list[RoleModel]:
  """Returns the mixture of every role of every group; blocks of a group count as groups of their own.

  What experts know has no part in the fit: `make_scorer` adds it, so that it can be changed, or taken back, without
  fitting again.

  Args:
    track: watches the fit.

  Raises:
    ValueError: a role whose rows no number of components fits, by name.
  """
  models = []
  for number, group in enumerate(groups):
    by_role: dict[str, list[PreparedMachine]] = {}
    for machine in group.machines:
      by_role.setdefault(machine.role, []).append(machine)
    scalers, rows = [], []
    floors = [np.full(len(group.metrics), config.roles.deviation_floor)] * len(by_role)
    for members in by_role.values():
      scaler = join_scalers([m.preparation.scaler for m in members], config.data.scale_floor)
      scalers.append(scaler)
      rows.append(np.concatenate([_fit_rows(m, scaler, config) for m in members]))
    seed = config.train.random_seed
    fitted: list[Fitted] = fit_roles(list(by_role), rows, floors, config.roles, seed, track)
    for role, scaler, floor, found in zip(by_role, scalers, floors, fitted, strict=True):
      names = tuple(machine.name for machine in by_role[role])
      models.append(RoleModel(number, role, names, scaler, found.mixture, floor, found.bic, found.num_rows))
  return models


def _stored(model: RoleModel) -> StoredRole:
  parts = {**model._asdict(), **model.mixture._asdict(), **model.scaler._asdict()}
  arrays = {name: np.asarray(parts[name]) for name in ARRAYS}
  return StoredRole(model.group, model.role, model.machines, model.bic, model.num_rows, arrays)


def write_role_models(workdir: epath.PathLike, models: Sequence[RoleModel], run_id: str) -> None:
  """Writes role_mixtures.npz whole or not at all."""
  write_role_file(workdir, [_stored(model) for model in models], run_id)


def read_role_models(workdir: epath.PathLike) -> list[RoleModel]:
  """Returns what `write_role_models` wrote; raises ValueError where it is missing or damaged, naming the file."""
  models = []
  for stored in read_role_file(workdir):
    scaler = Scaler(*[stored.arrays[name] for name in Scaler._fields])
    mixture = Mixture(*[stored.arrays[name] for name in Mixture._fields])
    floor = stored.arrays["deviation_floor"]
    models.append(
      RoleModel(
        stored.group, stored.role, stored.machines, scaler, mixture, floor, stored.bic, stored.num_rows
      )
    )
  return models


def stack_scorers(
  models: Sequence[RoleModel],
  number: int,
  machines: Sequence[tuple[str, str, Scaler]],
  targets: Sequence[int],
  priors: Mapping[str, MetricPrior],
) -> Scorer:
  """Returns the scorers of some machines of one group, stacked in their order.

  Args:
    number: of the group. machines: (name, role, own scaler) each. priors: by machine name.

  Raises:
    ValueError: a role without a mixture, or a machine of which every metric is ignored, by name.
  """
  by_role = {model.role: model for model in models if model.group == number}
  for name, role, _ in machines:
    if role not in by_role:
      raise ValueError(f"machine {name}: role {role!r} has no mixture; known: {', '.join(by_role)}")
  most = max(len(model.mixture.log_weights) for model in by_role.values())
  scorers = []
  for name, role, own in machines:
    model = by_role[role]
    factor, shift = between(own, model.scaler)
    try:
      scorers.append(make_scorer(model.mixture, most, factor, shift, priors[name], targets, model.deviation_floor))
    except ValueError as error:
      raise ValueError(f"machine {name}: {error}") from None
  return Scorer(*[np.stack(arrays) for arrays in zip(*scorers, strict=True)])


def describe_models(models: Sequence[RoleModel]) -> list[str]:
  """Returns a line for a person on each role."""
  return describe_roles([_stored(model) for model in models])
