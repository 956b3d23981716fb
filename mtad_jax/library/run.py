"""A work directory fitted and scored in memory, by the functions and with the files of train.py and score.py.

In: machines. Out: the folder that train.py would leave, with the training rows' scores where score.py --split=train
puts them; and `Judged` machines.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from etils import epath

from mtad_jax.config import Config
from mtad_jax.config_choices import Detector
from mtad_jax.data.fleet import Group, prepare_groups
from mtad_jax.data.machine import Machine
from mtad_jax.detect.calibrate_run import (
  calibrate_run,
  calibration_faults,
  machine_lines,
  read_calibration,
  total_lines,
)
from mtad_jax.detect.calibration import MachineCalibration
from mtad_jax.detect.judges import ColdStart, Judge, open_cold_start
from mtad_jax.detect.score_run import Judged, judges_of_run, score_judge
from mtad_jax.detect.tables import open_tables
from mtad_jax.detect.trained_order import in_trained_order
from mtad_jax.library.score_tables import write_machine
from mtad_jax.roles.prior import parse_prior, read_prior_text
from mtad_jax.roles.role_file import ROLE_MIXTURES
from mtad_jax.roles.role_models import describe_models, resolve_priors, train_roles, write_role_models
from mtad_jax.train.fleet_file import describe_fleet
from mtad_jax.train.loop import train_group
from mtad_jax.train.metrics_log import read_metrics
from mtad_jax.train.run_file import open_run, written_by
from mtad_jax.train.stored_run import Run, open_workdir, sole_writer
from mtad_jax.train.trouble_report import summary_lines
from mtad_jax.train.workdir import CALIBRATION, PRIOR, write_json, write_whole

TRAINING_SCORES = epath.Path("scores") / "train"  # as score.py --split=train


class Fitted(NamedTuple):
  """A work directory that can be scored with: its run, and what calibration.json has."""

  workdir: epath.Path
  run: Run
  calibrations: dict[str, MachineCalibration]
  steps: list[int]


@contextlib.contextmanager
def quietly(verbose: bool) -> Iterator[None]:
  """Keeps what the steps tell a person off the screen, unless it is asked for."""
  with contextlib.nullcontext() if verbose else contextlib.redirect_stdout(io.StringIO()):
    yield


def fit_run(workdir: epath.PathLike, config: Config, machines: Sequence[Machine], prior: str | None) -> Fitted:
  """Returns the work directory fitted on the machines' training rows, taken up where it was left, if it was.

  Args:
    workdir: empty, or of the same settings and rows. prior: text of a prior file; None: the folder's own, or none.

  Raises:
    ValueError: rows that cannot be trained on, or a work directory of something else.
  """
  folder = epath.Path(workdir)
  groups = prepare_groups(machines, config)
  text = read_prior_text(folder) if prior is None else prior
  resolve_priors(groups, parse_prior(text, folder / PRIOR), config, folder / PRIOR)  # told now, not after training
  with sole_writer(folder, "mtad_jax"):
    run_id = open_run(folder, config, describe_fleet(groups), None, None)["run_id"]
    if prior is not None:
      write_whole(folder / PRIOR, prior)
    if config.model.detector is Detector.ROLE_MIXTURE:
      _fit_mixtures(folder, config, groups, run_id)
    else:
      _fit_networks(folder, config, groups, run_id)
    calibrated = calibrate_run(folder, config, groups, open_workdir(folder).groups, run_id)
    write_json(folder / CALIBRATION, calibrated.content)
    print("\n".join(machine_lines(calibrated) + total_lines(calibrated)), flush=True)
    fitted = open_fitted(folder)
    write_training_scores(fitted, machines)
  return fitted


def _fit_mixtures(folder: epath.Path, config: Config, groups: list[Group], run_id: str) -> None:
  if (folder / ROLE_MIXTURES).exists():
    return
  models = train_roles(groups, config)
  write_role_models(folder, models, run_id)
  print("\n".join(describe_models(models)), flush=True)


def _fit_networks(folder: epath.Path, config: Config, groups: list[Group], run_id: str) -> None:
  about: dict[str, Any] = {"run_id": run_id, **written_by()}
  for index, group in enumerate(groups):
    # an event that nobody sets: Ctrl-C is the program's own to handle
    outcome = train_group(group, index, config, folder, about, None, threading.Event())
    print("\n".join(summary_lines(read_metrics(folder), index)), flush=True)
    for name, retired in outcome.retired.items():
      if retired:
        told = f"machine {name} was retired in training after too many rollbacks; its best state scores"
        warnings.warn(told, stacklevel=4)


def open_fitted(workdir: epath.PathLike) -> Fitted:
  """Returns a work directory ready to score; raises ValueError where it is none or its calibration another run's."""
  folder = epath.Path(workdir)
  run = open_workdir(folder)
  calibrations, about = read_calibration(folder)
  faults = calibration_faults(folder, run.config, run.run["run_id"], about)
  if faults:
    raise ValueError(faults[0])
  return Fitted(folder, run, calibrations, about["checkpoint_steps"])


class Judges:
  """What scores the machines of a run; a run of one group keeps it from call to call, for the same machines."""

  def __init__(self, fitted: Fitted):
    self._fitted = fitted
    self._kept: tuple[list[str], Judge] | None = None

  def score(self, machines: Sequence[Machine], *, train_split: bool = False) -> Iterator[tuple[Judge, Judged]]:
    """Yields machines scored, those of one group after those of another.

    Args:
      machines: their rows in `test`, or with `train_split` in `train`.

    Raises:
      ValueError: a machine without a model, or rows that break the input contract, in one line.
    """
    workdir, run, _, _ = self._fitted
    trained = {stored.name for group in run.groups for stored in group.machines}
    known = [machine.name for machine in machines if machine.name in trained]
    cold = None
    if len(known) < len(machines) and run.config.model.detector is Detector.ROLE_MIXTURE:
      cold = open_cold_start(workdir, run.config, run.groups, run.run["run_id"])
    if not train_split:
      machines = [in_trained_order(run, machine, "X", "refuse", cold) for machine in machines]
    by_name = {machine.name: machine for machine in machines}
    new = [machine for machine in machines if machine.name not in trained]
    for judge in self._judges(cold, known, new):
      for judged in score_judge(judge, by_name, {}, train_split=train_split):
        yield judge, judged

  def _judges(self, cold: ColdStart | None, known: list[str], new: list[Machine]) -> Iterator[Judge]:
    if self._kept is not None and self._kept[0] == known and not new:
      yield self._kept[1]
      return
    workdir, run, calibrations, steps = self._fitted
    for judge in judges_of_run(workdir, run, cold, known, new, calibrations, steps):
      for name, remark in judge.remarks.items():
        warnings.warn(f"machine {name}: {remark}", stacklevel=2)
      if len(run.groups) == 1 and not new:  # the parameters of several groups may be more than memory holds
        self._kept = known, judge
      yield judge


def write_training_scores(fitted: Fitted, machines: Sequence[Machine]) -> None:
  """Writes the tables of score.py --split=train."""
  folder, run = fitted.workdir / TRAINING_SCORES, fitted.run
  folder.mkdir(parents=True, exist_ok=True)
  with open_tables(folder, run.run["run_id"], False) as writers:
    for judge, judged in Judges(fitted).score(machines, train_split=True):
      metrics = tuple(judge.metrics[i] for i in judge.targets)
      write_machine(writers, judged, metrics, judge.config, all_rows=False)
