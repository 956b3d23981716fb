"""The table that train.py and calibrate.py end with: a row a machine, the worst first."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from etils import epath
from program import VERBOSE
from terminal import Row, first_lines, table_lines

from mtad_jax.detect.alive import Alive
from mtad_jax.detect.calibrate_run import CalibratedRun, machine_lines, total_lines
from mtad_jax.detect.calibration import MachineCalibration
from mtad_jax.train.loop import Outcome
from mtad_jax.train.workdir import CALIBRATION

_MOST_TOTALS = 6  # lines under the table; a fleet of role mixtures has one a role
_TRAINED = ("best loss", "at step", "skipped", "rolled back", "retired")
_CALIBRATED = ("threshold", "check alarms", "promised", "remarks")


class _Training(NamedTuple):
  """How one machine's training ended; loss: the lowest in validation, infinite where none was finite."""

  loss: float
  best_step: int
  num_skipped: int
  num_rolled_back: int
  is_retired: bool

  def cells(self) -> tuple[str, ...]:
    """Returns them for the table."""
    loss = f"{self.loss:.4f}" if math.isfinite(self.loss) else "not finite"
    step = str(self.best_step) if math.isfinite(self.loss) else "-"
    return loss, step, str(self.num_skipped), str(self.num_rolled_back), "RETIRED" if self.is_retired else "no"


def _by_machine(outcomes: Sequence[Outcome]) -> dict[str, _Training]:
  return {
    name: _Training(
      loss,
      outcome.best_step[name],
      outcome.num_skipped[name],
      outcome.num_rolled_back[name],
      outcome.retired[name],
    )
    for outcome in outcomes
    for name, loss in outcome.best_loss.items()
  }


def _is_dead(alive: Alive) -> bool:
  """Returns whether of the faults put into the check part not one raised an alarm."""
  return bool(sum(alive.injected.values()) and not sum(alive.detected.values()))


def _remarks(entry: MachineCalibration, alive: Alive) -> str:
  told = []
  if _is_dead(alive):
    told.append("NO FAULT put into its check part raises an alarm")
  if entry.warning is not None and entry.warning.threshold == entry.threshold:
    told.append("warnings HELD DOWN to the critical threshold")
  if entry.pot.status != "ok":
    told.append(entry.pot.status)
  if entry.pooled:
    told.append(entry.pooled)
  return "; ".join(told)


def summary_lines(calibrated: CalibratedRun, workdir: epath.PathLike, outcomes: Sequence[Outcome] = ()) -> list[str]:
  """Returns the table and what all machines come to; with --verbose each machine's thresholds in full before it.

  Args:
    outcomes: of the training that went before; without any, the table is of the thresholds alone.
  """
  trained = _by_machine(outcomes)
  ranked = []
  for name, entry in calibrated.machines.items():
    is_dead, check = _is_dead(calibrated.alive[name]), entry.check
    promised = check.promised_alarms
    excess = check.num_alarms - (promised if math.isfinite(promised) else check.promised_alarm_rows)
    cells = (
      f"{entry.threshold:.6g}",
      str(check.num_alarms),
      f"{promised:.2g}" if math.isfinite(promised) else "-",
      _remarks(entry, calibrated.alive[name]),
    )
    key: tuple[float, ...] = (-is_dead, -excess)
    row = Row((name, *cells), is_dead)
    if name in trained:
      own = trained[name]
      row = Row((name, *own.cells(), *cells), is_dead or own.is_retired)
      key = (-own.is_retired, -own.num_rolled_back, -own.num_skipped, *key, -own.loss)
    ranked.append((key, row))
  ranked.sort(key=lambda pair: pair[0])
  head = ("machine", *(_TRAINED if trained else ()), *_CALIBRATED)
  lines = machine_lines(calibrated) if VERBOSE.value else []
  place = str(epath.Path(workdir) / CALIBRATION)
  lines += table_lines(head, [row for _, row in ranked], place)
  return lines + first_lines(total_lines(calibrated), place, _MOST_TOTALS)
