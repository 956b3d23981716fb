"""Trains every machine of a fleet at once, then fits calibration and thresholds; run again, it resumes.

python scripts/train.py --config=configs/fleet.py:cpu --source=myfleet --workdir=runs/mine     # :cpu fits two cores
python scripts/train.py --config=configs/smd.py:cpu --data_dir=data --workdir=runs/smd         # what prepare.py made
python scripts/train.py --config=configs/role_gmm.py --source=myfleet --workdir=runs/roles     # a mixture a role

# a stretch that is known to be bad stays out; only later rows; begin with the weights of another run
python scripts/train.py --config=configs/fleet.py:cpu --source=myfleet --workdir=runs/clean --exclude='web-1:0-30'
python scripts/train.py --config=configs/fleet.py:cpu --source=myfleet --workdir=runs/late --train_from=web-1:60
python scripts/train.py --config=configs/fleet.py:cpu --source=myfleet --workdir=runs/next --warm_start=runs/mine

# several processes, one fleet: this and the other numbers on the other hosts; or srun, a TPU pod, Kubernetes
python scripts/train.py ... --coordinator=HOST:1234 --num_processes=2 --process_id=0
srun python scripts/train.py ... --distributed
"""

import contextlib
import dataclasses
import signal
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import host
import machine_summary
import run_flags
from absl import flags
from etils import epath
from program import EXIT_ALL_RETIRED, EXIT_STOPPED, QUIET, UsageError, run
from terminal import first_lines, notice, track

from mtad_jax.config import Config
from mtad_jax.config_choices import Detector
from mtad_jax.data.fleet import Group, PreparedMachine, prepare_groups
from mtad_jax.data.load import load_machines
from mtad_jax.data.track import untracked
from mtad_jax.detect.calibrate_run import calibrate_run
from mtad_jax.roles.prior import parse_prior, read_prior_text, read_text
from mtad_jax.roles.role_file import ROLE_MIXTURES
from mtad_jax.roles.role_models import (
  describe_models,
  read_role_models,
  resolve_priors,
  train_roles,
  write_role_models,
)
from mtad_jax.train import processes
from mtad_jax.train.fleet_file import read_fleet
from mtad_jax.train.loop import Outcome, train_group
from mtad_jax.train.metrics_log import read_metrics
from mtad_jax.train.processes import is_writer
from mtad_jax.train.run_file import note_sources, open_run, written_by
from mtad_jax.train.run_length import total_steps
from mtad_jax.train.share import read_share
from mtad_jax.train.stop_signal import stop_on_signal
from mtad_jax.train.stored_run import sole_writer
from mtad_jax.train.trouble_report import summary_lines
from mtad_jax.train.warm_start import describe_sources, warm_start
from mtad_jax.train.workdir import CALIBRATION, FLEET, PRIOR, write_json, write_whole

MOST_TROUBLED = 6  # machines whose trouble is told
FLAGS = flags.FLAGS
run_flags.define_config()
flags.DEFINE_string("data_dir", None, "folder with datasets made by prepare.py")
flags.DEFINE_string("source", None, "in place of --data_dir: a folder of raw files")
flags.DEFINE_string("workdir", None, "where the run is kept; may be on gs://", required=True)
flags.DEFINE_string(
  "warm_start",
  None,
  "another run's work directory: every machine begins with its own model there, a new one with its role's best",
)
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where several processes train one fleet")
flags.DEFINE_integer("num_processes", None, "with --coordinator: how many there are", lower_bound=1)
flags.DEFINE_integer("process_id", None, "with --coordinator: which one this is, from 0", lower_bound=0)
flags.DEFINE_bool(
  "distributed",
  False,
  "in place of --coordinator: TPU pod, Slurm, Kubernetes (GKE) or Open MPI say which processes train one fleet",
)
flags.DEFINE_string("prior", None, "what experts know of metrics: a TOML file; kept as the run's prior.toml")
flags.DEFINE_multi_string("exclude", [], "MACHINE:START-END rows or MACHINE:TIME/TIME; MACHINE may be *")
flags.DEFINE_multi_string("train_from", [], "first training ROW or TIME of all, or MACHINE:ROW, MACHINE:TIME")


def _change(machine: PreparedMachine) -> float:
  """Returns how much preparing changed of a machine, as a share of its values."""
  notes = machine.notes
  shares = sum(notes["filled_share"].values()) + sum(notes["cleaned_share"].values())
  return shares / len(machine.preparation.metrics) + notes["excluded_rows"] / notes["num_rows"]


def describe_machine(machine: PreparedMachine) -> str:
  """Returns what preparing one machine found: counts of everything that was filled or changed."""
  notes, num_metrics = machine.notes, len(machine.preparation.metrics)
  told = [f"{notes['num_rows']} rows"]
  if notes["grid_rows"] != notes["num_rows"]:
    told.append(f"{notes['grid_rows']} on the grid, {notes['grid_collisions']} shared a slot")
  if notes["filled_share"]:
    told.append(f"filled {sum(notes['filled_share'].values()) / num_metrics:.2%}")
  if notes["cleaned_share"]:
    told.append(f"cleaned {sum(notes['cleaned_share'].values()) / num_metrics:.2%}")
  for name in ("counters", "constant", "never_seen"):
    if notes[name]:
      shown = ", ".join(notes[name][:6]) + (", ..." if len(notes[name]) > 6 else "")
      told.append(f"{len(notes[name])} {name.replace('_', ' ')}: {shown}")
  if notes["first_row"]:
    told.append(f"trained from row {notes['first_row']} on")
  if notes["excluded_rows"]:
    told.append(f"{notes['excluded_rows']} rows excluded")
  told.append(f"gap {notes['gap_rows']} rows")
  return f"  {machine.name} ({machine.role}): {'; '.join(told)}"


def describe_groups(groups: list[Group]) -> list[str]:
  """Returns what preparing the data found, the machines that were changed most first."""
  lines = []
  for index, group in enumerate(groups):
    lines.append(
      f"{group.title(index)}: {len(group.machines)} machines, {len(group.metrics)} metrics,"
      f" {len(group.targets)} scored"
    )
    lines += [describe_machine(machine) for machine in sorted(group.machines, key=lambda machine: -_change(machine))]
  return first_lines(lines, str(epath.Path(FLAGS.workdir) / FLEET))


def describe_outcome(title: str, outcome: Outcome) -> str:
  """Returns one line on how a group's training ended."""
  losses = {name: loss for name, loss in outcome.best_loss.items() if loss < float("inf")}
  text = f"{title}: step {outcome.step}; lowest validation loss: "
  if not losses:
    return text + "none was finite"
  worst = max(losses, key=lambda name: losses[name])
  return text + f"median {statistics.median(losses.values()):.4f}, worst {losses[worst]:.4f} ({worst})"


def _first_params(
  group: Group, config: Config, other: str | None, told: dict[str, str | None]
) -> Callable[[], Any] | None:
  """Returns what makes a group's first parameters, called only where no checkpoint is there to go on from."""
  if not other:
    return None

  def begin() -> Any:
    found = warm_start(group, config, other)
    told.update(found.sources)
    if is_writer():
      print("\n".join(describe_sources(found.sources)), flush=True)
      note_sources(FLAGS.workdir, told)
    return found.params

  return begin


def _describe_work(config: Config, group: Group) -> str:
  num_machines = len(group.machines)
  if config.model.detector is Detector.LINEAR:
    return f"linear forecasts from {config.model.window_size} rows for {num_machines} machines"
  num_steps, batch_size = total_steps(config, group.extent.num_machines), config.train.batch_size
  total = num_steps * batch_size * num_machines
  return f"{num_steps} steps of {batch_size} windows for {num_machines} machines: a budget of {total:,} windows"


def _train(
  config: Config, groups: list[Group], about: dict, other: str | None, stop: threading.Event
) -> list[Outcome]:
  """Returns how each group ended; the groups after one that was stopped by a signal are not begun."""
  if QUIET.value:
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, progress_bar=False))
  outcomes: list[Outcome] = []
  sources: dict[str, str | None] = {}
  for index, group in enumerate(groups):
    _tell([f"{group.title(index)}: {_describe_work(config, group)}, on {processes.describe()}"])
    began = time.perf_counter()
    first = _first_params(group, config, other, sources)
    outcome = train_group(group, index, config, FLAGS.workdir, about, first, stop)
    outcomes.append(outcome)
    _tell([describe_outcome(group.title(index), outcome) + f"; {time.perf_counter() - began:.0f} s"])
    if is_writer():
      lines = summary_lines(read_metrics(FLAGS.workdir), index)
      _tell(first_lines(lines, "metrics.jsonl", MOST_TROUBLED))
    if stop.is_set() or not outcome.finished:
      break
  return outcomes


def _train_roles(config: Config, groups: list[Group], run_id: str) -> list[Outcome]:
  """Fits and writes the mixtures of all roles, where they are not there yet; returns no group's outcome."""
  if (epath.Path(FLAGS.workdir) / ROLE_MIXTURES).exists():
    models = read_role_models(FLAGS.workdir)
  else:
    began = time.perf_counter()
    models = train_roles(groups, config, track)
    write_role_models(FLAGS.workdir, models, run_id)
    _tell([f"{len(models)} role mixtures in {time.perf_counter() - began:.1f} s"])
  _tell(first_lines(describe_models(models), ROLE_MIXTURES))
  return []


def _tell(lines: list[str]) -> None:
  if is_writer():
    print("\n".join(lines), flush=True)


def _config() -> Config:
  config = run_flags.frozen_config()
  if FLAGS.exclude or FLAGS.train_from:
    data = dataclasses.replace(
      config.data,
      exclude=(*config.data.exclude, *FLAGS.exclude),
      train_from=(*config.data.train_from, *FLAGS.train_from),
    )
    config = dataclasses.replace(config, data=data)
  if bool(FLAGS.data_dir) == bool(FLAGS.source):
    raise UsageError("exactly one of --data_dir and --source is wanted")
  return config


def _join() -> None:
  given = [name for name in ("coordinator", "num_processes", "process_id") if FLAGS[name].value is not None]
  if FLAGS.distributed and given:
    raise UsageError(f"--distributed and --{given[0]}: one of them, not both")
  host.prepare()
  if FLAGS.distributed:
    processes.join_from_environment()
  else:
    processes.join(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)


def main() -> int:
  """Trains, then calibrates; returns the exit code."""
  config = _config()
  prior = read_text(FLAGS.prior) if FLAGS.prior else None
  _join()
  if config.model.detector is Detector.ROLE_MIXTURE and (FLAGS.warm_start or not processes.is_alone()):
    raise UsageError("config.model.detector=role_mixture: neither --warm_start nor several processes serve it")
  if config.model.detector is Detector.LINEAR and FLAGS.warm_start:
    raise UsageError("config.model.detector=linear: --warm_start gives it nothing to begin with; leave it out")
  watched = track if is_writer() else untracked
  groups, fleet = read_share(config, data_dir=FLAGS.data_dir, source=FLAGS.source, track=watched)
  holds_all = processes.is_alone()
  _tell(describe_groups(groups))
  place = FLAGS.prior or epath.Path(FLAGS.workdir) / PRIOR
  entries = parse_prior(read_prior_text(FLAGS.workdir) if prior is None else prior, place)
  if holds_all:
    resolve_priors(groups, entries, config, place)  # a slip of the pen is told now, not after the training
  with contextlib.ExitStack() as held:
    with processes.first_then_all("open the work directory"):
      if is_writer():
        held.enter_context(sole_writer(FLAGS.workdir, "train.py"))
        open_run(FLAGS.workdir, config, fleet, FLAGS.data_dir, FLAGS.source, FLAGS.warm_start)
        if prior is not None:
          write_whole(epath.Path(FLAGS.workdir) / PRIOR, prior)
    run = run_flags.open_workdir(FLAGS.workdir).run
    about = {"run_id": run["run_id"], **written_by()}
    with stop_on_signal() as stop:
      if config.model.detector is Detector.ROLE_MIXTURE:
        outcomes = _train_roles(config, groups, run["run_id"])
      else:
        outcomes = _train(config, groups, about, run.get("warm_start"), stop)
    stopped = stop.is_set() or not all(outcome.finished for outcome in outcomes)
    if stopped:
      for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # all is saved: a second one must not change the exit code
    processes.leave()
    if stopped:
      if is_writer():
        notice("stopped by a signal; run the same command again to go on")
      return EXIT_STOPPED
    if is_writer():
      if not holds_all:
        machines = load_machines(config.data, data_dir=FLAGS.data_dir, source=FLAGS.source, track=track)
        groups = prepare_groups(machines, config, track)
      stored = read_fleet(FLAGS.workdir)
      calibrated = calibrate_run(FLAGS.workdir, config, groups, stored, run["run_id"], track=track)
      write_json(epath.Path(FLAGS.workdir) / CALIBRATION, calibrated.content)
      _tell(machine_summary.summary_lines(calibrated, FLAGS.workdir, outcomes))
      if QUIET.value:
        retired = [name for outcome in outcomes for name, is_retired in outcome.retired.items() if is_retired]
        for name in retired:
          notice(f"{name}: retired; metrics.jsonl and inspect_checkpoint.py tell why")
  if outcomes and all(all(outcome.retired.values()) for outcome in outcomes):
    if is_writer():
      notice("every machine is retired: no model here was trained to its end")
    return EXIT_ALL_RETIRED
  return 0


if __name__ == "__main__":
  run(main)
