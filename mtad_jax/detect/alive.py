"""Whether a calibrated detector is alive: faults put into the check part, and how many of them raise an alarm.

In: prepared machines, parameters, calibrations. Out: `Alive` by machine. The faults are large: one row, or a stretch,
of one metric, ten of its deviations away. They are no measure of what a detector finds in the world; a machine on
which they raise no alarm has a threshold that nothing reaches, or a network that says nothing.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mtad_jax.config import Config
from mtad_jax.data.fleet import Group, PreparedMachine, machine_id, part_rows
from mtad_jax.data.track import Track, untracked
from mtad_jax.detect.calibration import MachineCalibration, step_seconds
from mtad_jax.detect.combine import metric_scores, row_scores, smoothed_rows
from mtad_jax.detect.held_out import part_errors
from mtad_jax.detect.residual_mixture import with_density
from mtad_jax.detect.thresholds import row_thresholds
from mtad_jax.roles.prior import BOTH, MetricPrior, of_columns

DEVIATIONS = 10.0  # of a metric on the fit part, that a fault moves it by
SMALLEST_CHANGE = 0.2  # of the training range; a metric that hardly ever moves is moved by this
KINDS = {"spike": 1, "level_shift": 10}  # rows
_QUIET_ROWS = 20  # between two faults, beside what their scores are smoothed over


class Fault(NamedTuple):
  """kind: of `KINDS`. start, end: rows of the training grid, end exclusive. metric: its column."""

  kind: str
  start: int
  end: int
  metric: int


class Alive(NamedTuple):
  """Faults put in and faults that raised an alarm, by kind; none where the check part is too short for one."""

  injected: dict[str, int]
  detected: dict[str, int]


def inject_faults(
  machine: PreparedMachine, columns: list[int], config: Config, prior: MetricPrior
) -> tuple[PreparedMachine, list[Fault]]:
  """Returns the machine with faults in its check part, kinds by turns, and the faults; the same at every call.

  Args:
    columns: of the scored metrics; those that never moved in training stay as they are, and so do those that the
      prior, of all metrics, ignores. A fault goes the way that matters, and beyond what may vary.
  """
  window, step_s = config.model.window_size, step_seconds(machine, config)
  fixed = machine.preparation.scaler.is_constant | prior.is_ignored
  movable = [column for column in columns if not fixed[column]]
  usable = part_rows(machine, "check", window, config.data)
  spacing = smoothed_rows(config.detect, step_s)[-1] + max(KINDS.values()) + _QUIET_ROWS
  faults: list[Fault] = []
  if not movable or not len(usable):
    return machine, faults
  values = machine.train.values.copy()
  deviations = np.std(values[part_rows(machine, "fit", window, config.data)], axis=0)
  rng = np.random.default_rng(machine_id(machine.name))
  for start in range(int(usable[0]), int(usable[-1]) + 2 - max(KINDS.values()), spacing):
    kind = list(KINDS)[len(faults) % len(KINDS)]
    end, metric = start + KINDS[kind], int(rng.choice(movable))
    way = rng.choice([-1.0, 1.0]) if prior.direction[metric] == BOTH else float(prior.direction[metric])
    change = max(DEVIATIONS * max(float(deviations[metric]), float(prior.floor[metric])), SMALLEST_CHANGE) * way
    limit = config.data.clip_margin
    values[start:end, metric] = np.clip(values[start:end, metric] + change, -limit, 1 + limit)
    faults.append(Fault(kind, start, end, metric))
  return machine._replace(train=machine.train._replace(values=values)), faults


def try_faults(
  group: Group,
  params: Any,
  calibrations: Mapping[str, MachineCalibration],
  config: Config,
  track: Track = untracked,
) -> dict[str, Alive]:
  """Returns what each machine's detector makes of the faults.

  Args:
    params: stacked, [M, ...]. calibrations: by machine name. track: watches the model's batches.
  """
  settings, columns = config.detect, list(group.targets)
  made = [inject_faults(machine, columns, config, calibrations[machine.name].prior) for machine in group.machines]
  faulty = group._replace(machines=tuple(machine for machine, _ in made))
  centres = [calibrations[machine.name].centre for machine in group.machines]
  measured = part_errors(faulty, params, config, centres, ("check",), track)
  found = {}
  for (machine, faults), (part,) in zip(made, measured, strict=True):
    calibration = calibrations[machine.name]
    errors, prior = part.errors, of_columns(calibration.prior, group.targets)
    if calibration.residual is not None:
      errors = with_density(errors, calibration.residual, prior)
    by_metric = metric_scores(
      errors,
      calibration.errors,
      part.filled,
      settings.rule,
      settings,
      config.model.variance_floor,
      prior,
    )
    step_s = step_seconds(machine, config)
    scores = row_scores(by_metric, part.rows, settings.rule, settings, step_s, errors.surprise)
    alarms = part.rows[scores > row_thresholds(calibration.threshold, calibration.streaming, scores)]
    injected, detected = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    for fault in faults:
      injected[fault.kind] += 1
      detected[fault.kind] += bool(np.any((alarms >= fault.start) & (alarms < fault.end)))
    found[machine.name] = Alive(injected, detected)
  return found


def alive_line(found: Mapping[str, Alive]) -> str:
  """Returns the sums for a person, and the machines on which no fault at all raised an alarm."""
  told = []
  for kind in KINDS:
    counts = [(alive.detected[kind], alive.injected[kind]) for alive in found.values()]
    told.append(f"{sum(hits for hits, _ in counts)} of {sum(all_of for _, all_of in counts)} {kind}s")
  counted = ", ".join(told).replace("_", " ")
  line = f"faults of {DEVIATIONS:g} deviations put into the check part raise an alarm: {counted}"
  dead = [
    name for name, alive in found.items() if sum(alive.injected.values()) and not sum(alive.detected.values())
  ]
  return line + (f"; NOT ONE on {', '.join(dead)}" if dead else "")
