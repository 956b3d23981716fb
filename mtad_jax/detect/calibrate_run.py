"""Calibrates a trained work directory; train.py ends so, calibrate.py repeats it. Reads calibration.json back."""

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from mtad_jax.config import Config, to_dict
from mtad_jax.config_choices import Detector
from mtad_jax.data.fleet import Group
from mtad_jax.data.track import Track, untracked
from mtad_jax.detect.alive import Alive, alive_line, try_faults
from mtad_jax.detect.calibration import (
  Check,
  MachineCalibration,
  Tried,
  WarningLevel,
  calibrate_blocks,
)
from mtad_jax.detect.calibration_json import calibration_from_json, calibration_to_json
from mtad_jax.detect.parameters import read_params
from mtad_jax.detect.pot import describe
from mtad_jax.detect.residual_mixture import ResidualDensity, mixture_from_json, mixture_to_json
from mtad_jax.detect.role_calibration import RoleCalibration, calibrate_roles, roles_to_json
from mtad_jax.roles.mixture import Mixture
from mtad_jax.roles.prior import parse_prior, read_prior_text
from mtad_jax.roles.role_models import read_role_models, resolve_priors
from mtad_jax.train.fleet_file import StoredGroup
from mtad_jax.train.workdir import CALIBRATION, CONFIG, PRIOR, read_json


class CalibratedRun(NamedTuple):
  """A run's calibration. alive: what it makes of faults put into the check part. content: of calibration.json.

  roles: of role mixtures, for machines without a calibration of their own.
  """

  machines: dict[str, MachineCalibration]
  alive: dict[str, Alive]
  content: dict[str, Any]
  roles: list[RoleCalibration]


def calibrate_run(
  workdir: epath.PathLike,
  config: Config,
  groups: list[Group],
  stored: list[StoredGroup],
  run_id: str,
  excluded: tuple[str, ...] = (),
  tried: dict[str, Tried] | None = None,
  given_prior: str | None = None,
  track: Track = untracked,
) -> CalibratedRun:
  """Returns every machine's calibration, tried with faults; nothing is written.

  Args:
    groups: the prepared training data, in the order of `stored`.
    excluded: ranges that were left out beside the config's own, as the user wrote them, for the record.
    tried: is given each machine's held-out rows as the calibration scores them.
    given_prior: text of a prior file, in place of the work directory's own.
    track: watches the model's batches and the machines.
  """
  found: dict[str, MachineCalibration] = {}
  steps = []
  place = epath.Path(workdir) / PRIOR
  text = given_prior if given_prior is not None else read_prior_text(workdir)
  known_of_metrics = parse_prior(text, place)
  priors = resolve_priors(groups, known_of_metrics, config, place)

  def with_params(blocks: list[tuple[Group, StoredGroup]]) -> Iterator[tuple[Group, Any]]:
    for group, known in blocks:
      params, step, remarks = read_params(workdir, config, known, priors)
      for name, remark in remarks.items():
        print(f"{name}: {remark}", flush=True)
      steps.append(step)
      yield group, params

  alive: dict[str, Alive] = {}
  pairs = zip(groups, stored, strict=True)
  for _, alike in groupby(pairs, lambda pair: (pair[1].metrics, pair[1].targets)):  # a role is pooled over its blocks
    blocks = list(alike)
    found.update(calibrate_blocks(with_params(blocks), config, tried, priors, track))
    # read again rather than kept: the blocks of a large fleet do not fit together
    for (group, known), step in zip(blocks, steps[-len(blocks) :], strict=True):
      params = read_params(workdir, config, known, priors, step)[0]
      alive.update(try_faults(group, params, found, config, track))
      del params  # they go before the next block's come
  roles: list[RoleCalibration] = []
  if config.model.detector is Detector.ROLE_MIXTURE:
    roles = calibrate_roles(groups, read_role_models(workdir), known_of_metrics, config, track)
  residuals = [entry.residual.mixture for entry in found.values() if entry.residual is not None]
  mixtures = list({id(mixture): mixture for mixture in residuals}.values())  # one a role, shared by its machines
  numbers = {id(mixture): number for number, mixture in enumerate(mixtures)}
  content: dict[str, Any] = {
    "run_id": run_id,
    "checkpoint_steps": steps,
    "rule": config.detect.rule.value,
    "run_mode": config.model.run_mode.value,
    "detect": to_dict(config.detect),
    "excluded": list(excluded),
    "prior": text,
    "machines": {
      name: {
        **calibration_to_json(entry),
        **({} if entry.residual is None else {"residual": _residual_to_json(entry.residual, numbers)}),
        "alive": alive[name]._asdict(),
      }
      for name, entry in found.items()
    },
    **({"residual_mixtures": [mixture_to_json(mixture) for mixture in mixtures]} if mixtures else {}),
    **({"roles": roles_to_json(roles)} if roles else {}),
  }
  return CalibratedRun(found, alive, content, roles)


def _residual_to_json(density: ResidualDensity, numbers: dict[int, int]) -> dict[str, Any]:
  return {"mixture": numbers[id(density.mixture)], "deviations": density.deviations.tolist()}


def _with_residual(
  calibration: MachineCalibration, entry: dict[str, Any], mixtures: list[Mixture]
) -> MachineCalibration:
  stored = entry.get("residual")
  if stored is None:
    return calibration
  density = ResidualDensity(np.array(stored["deviations"], np.float64), mixtures[stored["mixture"]])
  return calibration._replace(residual=density)


def read_calibration(workdir: epath.PathLike) -> tuple[dict[str, MachineCalibration], dict[str, Any]]:
  """Returns (each machine's calibration, the file's other fields).

  Raises:
    ValueError: there is none, or a field is missing, with the machine that lacks it.
  """
  fields = ("run_id", "checkpoint_steps", "rule", "detect", "machines")
  file = epath.Path(workdir) / CALIBRATION
  content = read_json(file, "train.py (or calibrate.py)", fields)
  entries = content.pop("machines")
  if not isinstance(entries, dict):
    raise ValueError(f"{file}: field 'machines' is no table of machines; calibrate.py writes it")
  machines = {}
  try:
    mixtures = [mixture_from_json(values) for values in content.pop("residual_mixtures", [])]
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(f"{file}: field 'residual_mixtures': {error}; calibrate.py writes it") from None
  for name, entry in entries.items():
    try:
      machines[name] = _with_residual(calibration_from_json(entry), entry, mixtures)
    except KeyError as error:
      raise ValueError(
        f"{file}: machine {name!r}: field {error} is missing; calibrate.py writes it"
      ) from None
    except (TypeError, ValueError, AttributeError, IndexError) as error:  # another type, or a field inside a fit
      raise ValueError(f"{file}: machine {name!r}: {error}; calibrate.py writes it") from None
  return machines, content


def calibration_faults(
  workdir: epath.PathLike, config: Config, run_id: str, about: dict[str, Any]
) -> list[str]:
  """Returns why the stored thresholds are of another run or of other scores than config.json asks for; or nothing.

  Args:
    about: calibration.json's fields but the machines'.
  """
  file = epath.Path(workdir) / CALIBRATION
  faults = []
  if about["run_id"] != run_id:
    faults.append(f"{file}: of run {about['run_id']}, this is {run_id}; run calibrate.py")
  if about.get("prior", "") != read_prior_text(workdir):
    faults.append(f"{file}: fitted with another {PRIOR} than there is now; run calibrate.py")
  wanted = json.loads(json.dumps(to_dict(config.detect)))  # lists for tuples, as in the file
  for name in ("rule", "largest_metrics", "level_limit", "smoothed_minutes", "gamma", "error_floor"):
    if about["detect"].get(name) != wanted[name]:
      faults.append(
        f"{file}: fitted with detect.{name} {about['detect'].get(name)!r}, {CONFIG} has {wanted[name]!r};"
        " run calibrate.py"
      )
  return faults


def _describe_warning(warning: WarningLevel, threshold: float) -> str:
  text = f"{describe(warning.pot)}; check part {warning.check.num_alarm_rows} of {warning.check.num_rows} rows"
  if warning.threshold < threshold:
    return text
  return f"{text}; HELD DOWN to the critical threshold, {threshold:.6g}: no event of this machine will be a warning"


def _sums(checks: list[Check]) -> str:
  return (
    f"{sum(c.num_alarm_rows for c in checks)} alarm rows"
    f" ({sum(c.num_alarms for c in checks)} alarms) in {sum(c.num_rows for c in checks)} rows;"
    f" promised {sum(c.promised_alarm_rows for c in checks):.3g} rows"
    f" ({np.nansum([c.promised_alarms for c in checks]):.3g} alarms)"
  )


def machine_lines(calibrated: CalibratedRun) -> list[str]:
  """Returns all that is known of each machine's thresholds, a line for each."""
  lines = []
  for name, entry in calibrated.machines.items():
    text = (
      f"{name}: {describe(entry.pot)}; check part {entry.check.num_alarm_rows} of {entry.check.num_rows} rows"
    )
    lines.append(f"{text}; pooled: {entry.pooled}" if entry.pooled else text)
    if entry.warning is not None:
      lines.append(f"  warning: {_describe_warning(entry.warning, entry.threshold)}")
  return lines


def total_lines(calibrated: CalibratedRun) -> list[str]:
  """Returns the check part of all machines together, whether they are alive, and a line per role."""
  lines = [f"check part, all machines: {_sums([entry.check for entry in calibrated.machines.values()])}"]
  warnings = [entry.warning.check for entry in calibrated.machines.values() if entry.warning is not None]
  if warnings:
    lines.append(f"  warning: {_sums(warnings)}")
  lines.append(alive_line(calibrated.alive))
  for role in calibrated.roles:
    told = f"role {role.role}, machines without a model of their own: "
    if role.calibration is None:
      lines.append(f"{told}cannot be scored: {role.refused}")
      continue
    check = role.calibration.check
    lines.append(
      f"{told}{describe(role.calibration.pot)}; check part {check.num_alarm_rows} of {check.num_rows} rows;"
      f" {role.calibration.pooled}"
    )
  return lines
