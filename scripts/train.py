"""Trains every machine of a fleet at once, then fits calibration and thresholds; run again, it resumes.

python scripts/train.py --config=configs/smd.py:cpu --data_dir=DATADIR --workdir=RUNDIR
python scripts/train.py --config=configs/fleet.py:cpu --source=FLEETDIR --workdir=RUNDIR --exclude='web-1:0-500'
"""

import dataclasses
import time

import jax
import run_flags
from absl import flags
from program import EXIT_STOPPED, UsageError, run

from mtad_jax.config import Config
from mtad_jax.data.fleet import Group, prepare_groups
from mtad_jax.data.load import load_machines
from mtad_jax.detect.calibrate_run import calibrate_run, report_lines
from mtad_jax.train.fleet_file import describe_fleet, read_fleet
from mtad_jax.train.loop import Outcome, total_steps, train_group
from mtad_jax.train.workdir import open_run, versions

FLAGS = flags.FLAGS
run_flags.define_config()
flags.DEFINE_string("data_dir", None, "folder with datasets made by prepare.py")
flags.DEFINE_string("source", None, "in place of --data_dir: a folder of raw files")
flags.DEFINE_string("workdir", None, "where the run is kept; may be on gs://", required=True)
flags.DEFINE_multi_string("exclude", [], "MACHINE:START-END rows or MACHINE:TIME/TIME; MACHINE may be *")


def describe_groups(groups: list[Group]) -> list[str]:
  """Returns what preparing the data found, for a person: counts of everything that was filled or changed."""
  lines = []
  for index, group in enumerate(groups):
    lines.append(
      f"group {index}: {len(group.machines)} machines, {len(group.metrics)} metrics, {len(group.targets)} scored"
    )
    for machine in group.machines:
      notes = machine.notes
      told = [f"{notes['num_rows']} rows"]
      if notes["grid_rows"] != notes["num_rows"]:
        told.append(f"{notes['grid_rows']} on the grid, {notes['grid_collisions']} shared a slot")
      if notes["filled_share"]:
        told.append(f"filled {sum(notes['filled_share'].values()) / len(group.metrics):.2%}")
      if notes["cleaned_share"]:
        told.append(f"cleaned {sum(notes['cleaned_share'].values()) / len(group.metrics):.2%}")
      for name in ("counters", "constant", "never_seen"):
        if notes[name]:
          shown = ", ".join(notes[name][:6]) + (", ..." if len(notes[name]) > 6 else "")
          told.append(f"{len(notes[name])} {name.replace('_', ' ')}: {shown}")
      if notes["excluded_rows"]:
        told.append(f"{notes['excluded_rows']} rows excluded")
      told.append(f"gap {notes['gap_rows']} rows")
      lines.append(f"  {machine.name} ({machine.role}): {'; '.join(told)}")
  return lines


def describe_outcome(index: int, outcome: Outcome) -> str:
  """Returns one line on how a group's training ended."""
  losses = sorted(outcome.best_loss.values())
  skipped = {name: count for name, count in outcome.num_skipped.items() if count}
  text = (
    f"group {index}: step {outcome.step}; lowest validation loss: median {losses[len(losses) // 2]:.4f},"
    f" worst {losses[-1]:.4f} ({max(outcome.best_loss, key=lambda name: outcome.best_loss[name])})"
  )
  return text + (f"; steps skipped: {skipped}" if skipped else "; no step skipped")


def _train(config: Config, groups: list[Group], about: dict) -> bool:
  for index, group in enumerate(groups):
    num_steps = total_steps(config, len(group.machines))
    windows = num_steps * config.train.batch_size * len(group.machines)
    print(
      f"group {index}: {num_steps} steps of {config.train.batch_size} windows for {len(group.machines)} machines:"
      f" a budget of {windows:,} windows, on {jax.devices()[0].platform}",
      flush=True,
    )
    began = time.perf_counter()
    outcome = train_group(group, index, config, FLAGS.workdir, about)
    print(describe_outcome(index, outcome) + f"; {time.perf_counter() - began:.0f} s", flush=True)
    if not outcome.finished:
      print("stopped by a signal; run the same command again to go on")
      return False
  return True


def main() -> int:
  """Trains, then calibrates; returns the exit code."""
  config = run_flags.frozen_config()
  if FLAGS.exclude:
    data = dataclasses.replace(config.data, exclude=(*config.data.exclude, *FLAGS.exclude))
    config = dataclasses.replace(config, data=data)
  if bool(FLAGS.data_dir) == bool(FLAGS.source):
    raise UsageError("exactly one of --data_dir and --source is wanted")
  machines = load_machines(config.data, data_dir=FLAGS.data_dir, source=FLAGS.source)
  groups = prepare_groups(machines, config)
  print("\n".join(describe_groups(groups)), flush=True)
  opened = open_run(FLAGS.workdir, config, describe_fleet(groups), FLAGS.data_dir, FLAGS.source)
  if not _train(config, groups, {"run_id": opened["run_id"], "versions": versions()}):
    return EXIT_STOPPED
  found = calibrate_run(FLAGS.workdir, config, groups, read_fleet(FLAGS.workdir), opened["run_id"])
  print("\n".join(report_lines(found)))
  return 0


if __name__ == "__main__":
  run(main)
