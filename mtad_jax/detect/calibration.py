"""Calibration of machines of equal metrics: error distributions and thresholds, tried on the check part.

Both are fitted on the calibration part; levels are measured from the fit part's means. Nothing here sees a test row
or a row that chose the best state; on the check part nothing is fitted at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtad_jax.config import Config, DetectConfig
from mtad_jax.data.fleet import Group, PreparedMachine
from mtad_jax.data.track import Track, untracked
from mtad_jax.detect.combine import SMOOTHED, metric_scores, row_scores, smoothed_rows
from mtad_jax.detect.errors import ErrorModel, fit_error_model, join
from mtad_jax.detect.feature_attention import UsualAttention, usual_attention
from mtad_jax.detect.held_out import HeldOut, PartErrors, measure_errors
from mtad_jax.detect.pot import RUN_ROWS, PotFit, count_clusters
from mtad_jax.detect.residual_mixture import ResidualDensity, fit_residuals, with_density
from mtad_jax.detect.thresholds import (
  Streaming,
  calibration_thresholds,
  critical_rate,
  fit_threshold,
  row_thresholds,
  warning_rate,
)
from mtad_jax.roles.prior import MetricPrior, know_nothing, of_columns

MIN_OWN_ROWS = (
  30  # below, a mean and deviation per metric of a machine's own say nothing; the role's are used
)


class Check(NamedTuple):
  """The threshold tried on the check part: rows there, alarm rows and alarms (declustered), and the promised ones."""

  num_rows: int
  num_alarm_rows: int
  num_alarms: int
  promised_alarm_rows: float
  promised_alarms: float


class Tried(NamedTuple):
  """A machine's last held-out rows under its calibration, in the order of time.

  rows: [N] of the training grid. scores, thresholds: [N]. metric_scores: [N, F']. is_check: [N] bool, whether nothing
  at all was fitted on the row before it came. step_s: seconds from row to row, None where the data have no clock.
  """

  rows: np.ndarray
  scores: np.ndarray
  thresholds: np.ndarray
  metric_scores: np.ndarray
  is_check: np.ndarray
  step_s: float | None


class WarningLevel(NamedTuple):
  """A second threshold, never above the machine's own; check: as it came out on the check part."""

  threshold: float
  pot: PotFit
  check: Check


class MachineCalibration(NamedTuple):
  """What scoring one machine needs beside its network.

  errors: the error distributions. centre: [F'] the metrics' means on the fit part, scaled, where `level` is measured
  from. prior: of its F metrics. usual: [F'] mean metric score on calibration rows. threshold: alarm above it.
  initial: POT's initial quantile. num_rows: calibration rows of its own. pooled: what was pooled over the role.
  warning: None where no warnings are asked for.
  residual: the mixture of the network's errors, where the rule is density; calibration.json has it once a role.
  streaming: where the threshold follows the scores; `threshold` and `initial` are then those it begins with.
  attention: the metrics' usual shares of a network's attention; None of a model without, or calibrated before there
  were any.
  """

  errors: ErrorModel
  centre: np.ndarray
  prior: MetricPrior
  usual: np.ndarray
  initial: float
  threshold: float
  pot: PotFit
  num_rows: int
  pooled: str
  check: Check
  warning: WarningLevel | None = None
  streaming: Streaming | None = None
  residual: ResidualDensity | None = None
  attention: UsualAttention | None = None


def step_seconds(machine: PreparedMachine, config: Config) -> float | None:
  """Returns the seconds from row to row, or None where neither the data nor the settings say."""
  return machine.preparation.step_s or (config.data.sampling_step_s or None)


def calibrate_group(group: Group, params: Any, config: Config) -> dict[str, MachineCalibration]:
  """Returns each machine's calibration; as `calibrate_blocks`, for a group that is whole."""
  return calibrate_blocks([(group, params)], config)


def quiet_rows(settings: DetectConfig, step_s: float | None) -> int:
  """Returns how many quiet rows part two alarms: more than one fault's smoothed score can be quiet in between."""
  longest = smoothed_rows(settings, step_s)[-1] if settings.rule in SMOOTHED else 1
  return max(RUN_ROWS, longest)


def try_threshold(scores: np.ndarray, thresholds: np.ndarray | float, pot: PotFit, run_rows: int) -> Check:
  """Returns how the thresholds, one or one a row, do on the scores [N] of the check part."""
  alarms = scores > thresholds
  promised = pot.q * len(scores)
  clusters_per_row = pot.num_clusters / pot.num_excesses if pot.num_excesses else float("nan")
  return Check(
    num_rows=len(scores),
    num_alarm_rows=int(alarms.sum()),
    num_alarms=count_clusters(alarms, run_rows),
    promised_alarm_rows=promised,
    promised_alarms=promised * clusters_per_row,
  )


def calibrate_blocks(
  blocks: Iterable[tuple[Group, Any]],
  config: Config,
  tried: dict[str, Tried] | None = None,
  priors: Mapping[str, MetricPrior] | None = None,
  track: Track = untracked,
) -> dict[str, MachineCalibration]:
  """Returns the calibration of each machine of all blocks, in their order.

  Args:
    blocks: of equal metrics and targets: (prepared machines, their stacked best parameters); taken one at a time, so
      that a generator need not hold the parameters of all.
    priors: what is known of each machine's metrics, by its name; None: nothing.
    tried: is given each machine's calibration and check rows as the calibration scores them.
    track: watches the model's batches, then the thresholds, machine by machine.

  Raises:
    ValueError: naming the machine and role where not one calibration row is usable, or no threshold can be had, or
      a number of alarms a week is asked for and the data have no clock.
  """
  settings, floor = config.detect, config.model.variance_floor
  machines: list[PreparedMachine] = []
  held: list[HeldOut] = []
  known: list[MetricPrior] = []
  targets: tuple[int, ...] = ()
  for group, params in blocks:
    machines += group.machines
    targets = group.targets
    known += [
      know_nothing(len(group.metrics)) if priors is None else priors[machine.name] for machine in group.machines
    ]
    held += measure_errors(group, params, config, track)
  roles = [machine.role for machine in machines]
  densities, held = _with_densities(machines, held, [of_columns(prior, targets) for prior in known], config)
  models, scores, pooled, attended = [], [], [], []
  for i, machine in enumerate(machines):
    own = held[i].num_rows >= MIN_OWN_ROWS
    peers = [i] if own else [k for k, role in enumerate(roles) if role == machine.role]
    try:
      models.append(fit_error_model(join([held[k].calibration.errors for k in peers])))
    except ValueError as error:
      raise ValueError(f"machine {machine.name} (role {machine.role}): {error}") from None
    attended.append(_usual_attention([held[k] for k in peers]))
    pooled.append("" if own else f"error distributions over {len(peers)} machines of role {machine.role}")
    own_part = held[i].calibration
    scores.append(
      metric_scores(
        own_part.errors, models[i], own_part.filled, settings.rule, settings, floor, of_columns(known[i], targets)
      )
    )
  found = {}
  for i in track(range(len(machines)), "thresholds"):
    machine = machines[i]
    own_rows = held[i].num_rows
    peers = [i]
    if own_rows < settings.min_calibration_rows:
      peers = [k for k, role in enumerate(roles) if role == machine.role]
      note = f"thresholds over {len(peers)} machines of role {machine.role}"
      pooled[i] = "; ".join(filter(None, [pooled[i], note]))
    step_s = step_seconds(machine, config)
    by_peer = {
      k: row_scores(
        scores[k],
        held[k].calibration.rows,
        settings.rule,
        settings,
        step_seconds(machines[k], config),
        held[k].calibration.errors.surprise,
      )
      for k in peers
    }
    run_rows = quiet_rows(settings, step_s)
    own_scores, fitted_on = by_peer[i], list(by_peer.values())
    pot, threshold, streaming = fit_threshold(
      machine.name, own_scores, fitted_on, step_s, settings, run_rows, critical_rate(settings)
    )
    part = held[i].check
    own_prior = of_columns(known[i], targets)
    by_metric = metric_scores(part.errors, models[i], part.filled, settings.rule, settings, floor, own_prior)
    checked = row_scores(by_metric, part.rows, settings.rule, settings, step_s, part.errors.surprise)
    thresholds = row_thresholds(threshold, streaming, checked)
    if tried is not None:
      tried[machine.name] = Tried(
        rows=np.concatenate([held[i].calibration.rows, held[i].check.rows]),
        scores=np.concatenate([own_scores, checked]),
        thresholds=np.concatenate([calibration_thresholds(threshold, streaming, own_scores), thresholds]),
        metric_scores=np.concatenate([scores[i], by_metric]),
        is_check=np.arange(own_rows + len(checked)) >= own_rows,
        step_s=step_s,
      )
    warning, rate = None, warning_rate(settings)
    if rate is not None:
      second = fit_threshold(machine.name, own_scores, fitted_on, step_s, settings, run_rows, rate)
      lower = min(second.value, threshold)
      warning = WarningLevel(lower, second.pot, try_threshold(checked, lower, second.pot, run_rows))
    found[machine.name] = MachineCalibration(
      errors=models[i],
      centre=held[i].centre,
      prior=known[i],
      usual=np.concatenate([scores[k] for k in peers]).mean(axis=0),
      initial=pot.initial,
      threshold=threshold,
      pot=pot,
      num_rows=own_rows,
      pooled=pooled[i],
      check=try_threshold(checked, thresholds, pot, run_rows),
      warning=warning,
      streaming=streaming,
      residual=densities[i],
      attention=attended[i],
    )
  return found


def _usual_attention(held: Sequence[HeldOut]) -> UsualAttention | None:
  """Returns the usual shares over some machines' calibration rows; None where their models have no attention."""
  shares = [each.attention for each in held if each.attention is not None]
  return usual_attention(np.concatenate(shares)) if shares else None


def _with_densities(
  machines: Sequence[PreparedMachine], held: Sequence[HeldOut], priors: Sequence[MetricPrior], config: Config
) -> tuple[list[ResidualDensity | None], list[HeldOut]]:
  """Returns each machine's density of the network's errors, and its errors with it; where one is asked for."""
  validation = [each.validation.errors for each in held if each.validation is not None]
  if len(validation) < len(held):
    return [None] * len(held), list(held)
  names, roles = [machine.name for machine in machines], [machine.role for machine in machines]
  densities = fit_residuals(names, roles, validation, config)

  def told(part: PartErrors, i: int) -> PartErrors:
    return part._replace(errors=with_density(part.errors, densities[i], priors[i]))

  return list(densities), [
    each._replace(calibration=told(each.calibration, i), check=told(each.check, i), validation=None)
    for i, each in enumerate(held)
  ]
