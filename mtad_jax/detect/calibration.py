"""Calibration of machines of equal metrics: error distributions and thresholds, tried on the check part.

Both are fitted on the calibration part. Nothing here sees a test row, a row that was fitted on, or a row that chose
the best state; on the check part nothing is fitted at all.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from mtad_jax.config import Config
from mtad_jax.data.fleet import Group, PreparedMachine, part_rows
from mtad_jax.detect.combine import metric_scores, row_scores
from mtad_jax.detect.errors import (
  ErrorModel,
  Errors,
  find_errors,
  fit_error_model,
  join,
  model_from_json,
  model_to_json,
  take_rows,
)
from mtad_jax.detect.pot import PotFit, count_clusters, fit_pot
from mtad_jax.detect.row_outputs import compute_row_outputs, expect_constants

MIN_OWN_ROWS = (
  30  # below, a mean and deviation per metric of a machine's own say nothing; the role's are used
)
SMALLEST_THRESHOLD = 1e-9  # a threshold of 0 (all calibration scores 0) would make the ratio meaningless
WEEK_S = 7 * 86_400.0


class Check(NamedTuple):
  """The threshold tried on the check part: rows there, alarm rows, alarms (declustered), the promised rows."""

  num_rows: int
  num_alarm_rows: int
  num_alarms: int
  promised_alarm_rows: float


class MachineCalibration(NamedTuple):
  """What scoring one machine needs beside its network.

  errors: the error distributions. centre: [F'] the metrics' means on the fit part, scaled, where `level` is measured
  from. usual: [F'] mean metric score on calibration rows. threshold: alarm above it.
  initial: POT's initial quantile. num_rows: calibration rows of its own. pooled: what was pooled over the role.
  """

  errors: ErrorModel
  centre: np.ndarray
  usual: np.ndarray
  initial: float
  threshold: float
  pot: PotFit
  num_rows: int
  pooled: str
  check: Check


class _Held(NamedTuple):
  """One machine's errors, filled flags and row numbers on its calibration and check rows; its `centre`."""

  centre: np.ndarray
  calibration: Errors
  calibration_filled: np.ndarray
  calibration_rows: np.ndarray
  check: Errors
  check_filled: np.ndarray
  check_rows: np.ndarray

  @property
  def num_rows(self) -> int:
    return len(self.calibration_rows)


def _held_out(group: Group, params: Any, config: Config) -> list[_Held]:
  window = config.model.window_size
  first_rows = [max(machine.parts.calibration[0] - window, 0) for machine in group.machines]
  series = [m.train.values[first:] for m, first in zip(group.machines, first_rows, strict=True)]
  outputs = compute_row_outputs(params, series, config, len(group.targets))
  columns = list(group.targets)
  held = []
  for machine, first, values, output in zip(group.machines, first_rows, series, outputs, strict=True):
    is_constant = machine.preparation.scaler.is_constant[columns]
    output = expect_constants(output, is_constant, config.model.variance_floor)
    fit = part_rows(machine, "fit", window, config.data)
    centre = machine.train.values[fit][:, columns].mean(axis=0, dtype=np.float64)
    errors = find_errors(values[:, columns], output, centre)
    filled = machine.train.filled[:, columns]
    parts: list[Any] = []
    for part in ("calibration", "check"):
      rows = part_rows(machine, part, window, config.data)
      parts += [take_rows(errors, rows - first), filled[rows], rows]
    held.append(_Held(centre, *parts))
  return held


def _step_s(machine: PreparedMachine, config: Config) -> float | None:
  return machine.preparation.step_s or (config.data.sampling_step_s or None)


def calibrate_group(group: Group, params: Any, config: Config) -> dict[str, MachineCalibration]:
  """Returns each machine's calibration; as `calibrate_blocks`, for a group that is whole."""
  return calibrate_blocks([(group, params)], config)


def calibrate_blocks(blocks: Iterable[tuple[Group, Any]], config: Config) -> dict[str, MachineCalibration]:
  """Returns the calibration of each machine of all blocks, in their order.

  Args:
    blocks: of equal metrics and targets: (prepared machines, their stacked best parameters); taken one at a time, so
      that a generator need not hold the parameters of all.

  Raises:
    ValueError: naming the machine and role where not one calibration row is usable, or no threshold can be had.
  """
  settings, floor = config.detect, config.model.variance_floor
  machines: list[PreparedMachine] = []
  held: list[_Held] = []
  for group, params in blocks:
    machines += group.machines
    held += _held_out(group, params, config)
  roles = [machine.role for machine in machines]
  models, scores, pooled = [], [], []
  for i, machine in enumerate(machines):
    own = held[i].num_rows >= MIN_OWN_ROWS
    peers = [i] if own else [k for k, role in enumerate(roles) if role == machine.role]
    try:
      models.append(fit_error_model(join([held[k].calibration for k in peers])))
    except ValueError as error:
      raise ValueError(f"machine {machine.name} (role {machine.role}): {error}") from None
    pooled.append("" if own else f"error distributions over {len(peers)} machines of role {machine.role}")
    scores.append(
      metric_scores(
        held[i].calibration, models[i], held[i].calibration_filled, settings.rule, settings, floor
      )
    )
  found = {}
  for i, machine in enumerate(machines):
    own_rows = held[i].num_rows
    peers = [i]
    if own_rows < settings.min_calibration_rows:
      peers = [k for k, role in enumerate(roles) if role == machine.role]
      note = f"thresholds over {len(peers)} machines of role {machine.role}"
      pooled[i] = "; ".join(filter(None, [pooled[i], note]))
    normal = np.concatenate(
      [row_scores(scores[k], held[k].calibration_rows, settings.rule, settings) for k in peers]
    )
    step = _step_s(machine, config)
    pot = fit_pot(
      normal,
      initial_quantile=settings.initial_quantile,
      q=settings.pot_q,
      rows_per_week=WEEK_S / step if step else None,
    )
    if not np.isfinite(pot.threshold):
      raise ValueError(
        f"machine {machine.name}: no threshold from {len(normal)} calibration rows: {pot.status}"
      )
    threshold = max(pot.threshold, SMALLEST_THRESHOLD)
    tried = row_scores(
      metric_scores(held[i].check, models[i], held[i].check_filled, settings.rule, settings, floor),
      held[i].check_rows,
      settings.rule,
      settings,
    )
    alarms = tried > threshold
    found[machine.name] = MachineCalibration(
      errors=models[i],
      centre=held[i].centre,
      usual=np.concatenate([scores[k] for k in peers]).mean(axis=0),
      initial=pot.initial,
      threshold=threshold,
      pot=pot,
      num_rows=own_rows,
      pooled=pooled[i],
      check=Check(len(tried), int(alarms.sum()), count_clusters(alarms), settings.pot_q * len(tried)),
    )
  return found


def _plain(values: Any) -> dict[str, Any]:
  """Returns a NamedTuple's fields for JSON; NaN, not fitted, is null."""
  return {
    name: None if isinstance(value, float) and not np.isfinite(value) else value
    for name, value in values._asdict().items()
  }


def calibration_to_json(calibration: MachineCalibration) -> dict[str, Any]:
  """Returns one machine's entry of calibration.json."""
  return {
    "initial": calibration.initial,
    "threshold": calibration.threshold,
    "num_rows": calibration.num_rows,
    "pooled": calibration.pooled,
    "pot": _plain(calibration.pot),
    "check": _plain(calibration.check),
    "centre": calibration.centre.tolist(),
    "usual": calibration.usual.tolist(),
    "errors": model_to_json(calibration.errors),
  }


def calibration_from_json(values: dict[str, Any]) -> MachineCalibration:
  """Returns what `calibration_to_json` wrote; null is NaN."""
  pot: dict[str, Any] = {name: float("nan") if value is None else value for name, value in values["pot"].items()}
  return MachineCalibration(
    errors=model_from_json(values["errors"]),
    centre=np.array(values["centre"], np.float64),
    usual=np.array(values["usual"], np.float64),
    initial=values["initial"],
    threshold=values["threshold"],
    pot=PotFit(**pot),
    num_rows=values["num_rows"],
    pooled=values["pooled"],
    check=Check(**values["check"]),
  )
