"""Scores every row of every machine with the stored network and calibration, and names the causes of alarms.

python scripts/score.py --workdir=RUNDIR
python scripts/score.py --workdir=RUNDIR --source=NEWFILES --output=DIR --extra=ignore

A row's score does not depend on the other rows of the files. Its threshold does where it is one that streams (spot,
dspot): every call begins with the state at the end of calibration, and a row's threshold is of the rows before it.
"""

import time
from typing import NamedTuple

import host
import jax
import numpy as np
import run_flags
from absl import flags
from etils import epath
from program import UsageError, run

from mtad_jax.config import Config, RunMode
from mtad_jax.data.contract import check_contract
from mtad_jax.data.machine import Machine, Series
from mtad_jax.data.preparation import PreparedSplit, apply_preparation, own_values
from mtad_jax.detect.calibrate_run import calibration_faults, read_calibration
from mtad_jax.detect.calibration import MachineCalibration
from mtad_jax.detect.events import Event
from mtad_jax.detect.original_export import write_original
from mtad_jax.detect.parameters import read_params
from mtad_jax.detect.score_machine import ScoredRows, score_machines
from mtad_jax.detect.tables import TableWriter, open_tables
from mtad_jax.evaluate.segments import segments_of
from mtad_jax.explain.event_list import count_events, list_events, near_events, rank_segments
from mtad_jax.train.fleet_file import StoredGroup, StoredMachine

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "the run", required=True)
flags.DEFINE_enum("split", "test", ["test", "train"], "which prepared split")
flags.DEFINE_string("source", None, "new raw files: a fleet folder; its test/ is scored")
flags.DEFINE_string("data_dir", None, "where the prepared data lie now; default: where train.py read them")
flags.DEFINE_string(
  "output", None, "where the tables go; default: the work directory, or with --source its scores/NAME"
)
flags.DEFINE_bool(
  "context", False, "the series go on where the training split ends: its last rows are the first window"
)
flags.DEFINE_enum(
  "extra", "refuse", ["refuse", "ignore"], "what to do with metrics that training did not have"
)
flags.DEFINE_bool("all_metric_scores", False, "metric_scores.parquet of every row, not only near events")
flags.DEFINE_enum("export", None, ["original"], "also write the original program's files")
flags.DEFINE_enum(
  "run_mode", None, [mode.value for mode in RunMode], "must be the mode of training, if given"
)


def _check_mode(config: Config) -> None:
  trained = config.model.run_mode.value
  if FLAGS.run_mode and FLAGS.run_mode != trained:
    raise UsageError(
      f"--run_mode={FLAGS.run_mode}: this model was trained {trained}; it can be scored in that mode only"
    )


def _machines(opened: run_flags.Run) -> dict[str, Machine]:
  """Returns the machines to score by name: of new files, or of the run's own data."""
  known = [machine.name for group in opened.groups for machine in group.machines]
  if FLAGS.source:
    machines = run_flags.read_new_files(opened, FLAGS.source, FLAGS.extra)
  else:
    machines = run_flags.load_run_machines(opened, FLAGS.data_dir, None)
  found = {machine.name: machine for machine in machines}
  place = FLAGS.source or FLAGS.data_dir or opened.run["data_dir"] or opened.run["source"]
  unknown = [name for name in found if name not in known]
  if unknown:
    raise ValueError(f"{place}: machine {unknown[0]!r} is there that the run was not trained on")
  absent = [name for name in known if name not in found]
  if absent and not FLAGS.source:  # new files may be of some machines only
    raise ValueError(f"{place}: machine {absent[0]!r} is missing that the run was trained on")
  return found


def _check_calibration(opened: run_flags.Run, about: dict) -> None:
  """Raises ValueError where the stored thresholds are of another run or of other scores than config.json asks for."""
  faults = calibration_faults(FLAGS.workdir, opened.config, opened.run["run_id"], about)
  if faults:
    raise ValueError(faults[0])


class _Tail(NamedTuple):
  """What a split goes on from, for --context: the prepared training split and its last raw row [F]."""

  split: PreparedSplit
  last_row: np.ndarray


def _prepare(
  stored: StoredMachine, machine: Machine, config: Config, tail: _Tail | None
) -> tuple[Machine, PreparedSplit]:
  """Returns the machine with the split to score in its `test`, and that split prepared by training statistics."""
  raw = machine.train if FLAGS.split == "train" else machine.test
  columns = check_contract(
    stored.preparation,
    machine.name,
    machine.metrics,
    raw,
    config.data,
    named=True,
    extra="refuse",
  )
  series = Series(raw.values[:, columns], raw.timestamps)
  previous = None if tail is None else tail.last_row
  split = apply_preparation(stored.preparation, series, config.data, previous)
  is_test = raw is machine.test
  machine = machine._replace(test=series, labels=machine.labels if is_test else None)
  return machine, split


def _write_machine(
  writers: dict[str, TableWriter],
  machine: Machine,
  scored: ScoredRows,
  calibration: MachineCalibration,
  metrics: tuple[str, ...],
  config: Config,
) -> list[Event]:
  """Writes one machine's rows to all tables; returns its events."""
  num_rows, times = len(scored.score), machine.test.timestamps
  names, warning = [machine.name] * num_rows, calibration.warning
  writers["scores"].write(
    {
      "machine": names,
      "row": np.arange(num_rows),
      **({} if times is None else {"timestamp": times}),
      "score": scored.score,
      "threshold": scored.threshold,
      "threshold_initial": np.full(num_rows, calibration.initial),
      "score_ratio": scored.ratio,
      "is_anomaly": scored.is_anomaly,
      "valid": scored.valid,
      **{f"score_{rule}": values for rule, values in scored.by_rule.items()},
      **({} if machine.labels is None else {"label": machine.labels}),
      **({} if warning is None else {"threshold_warning": np.full(num_rows, warning.threshold)}),
    }
  )
  events = list_events(machine.name, scored, calibration, metrics, times, config.detect)
  if events:
    columns = {name: [getattr(event, name) for event in events] for name in events[0]._fields}
    columns["contributors"] = [
      [{"metric": metric, "contribution": share} for metric, share in event.contributors] for event in events
    ]
    writers["events"].write(columns)
  near = near_events(events, num_rows, config.detect.event_margin_rows)
  rows = np.flatnonzero((near & scored.valid) if not FLAGS.all_metric_scores else np.ones(num_rows, bool))
  fields = ("forecast", "reconstruction", "expected_low", "expected_high", "actual")
  writers["metric_scores"].write(
    {
      "machine": [machine.name] * (len(rows) * len(metrics)),
      "row": np.repeat(rows, len(metrics)),
      "metric": list(metrics) * len(rows),
      "score": scored.metric_scores[rows].ravel(),
      **{name: getattr(scored, name)[rows].ravel() for name in fields},
    }
  )
  if machine.labels is not None:
    segments = segments_of(machine.labels)
    writers["segments"].write(
      {
        "machine": [machine.name] * len(segments),
        "start_row": segments[:, 0],
        "end_row": segments[:, 1],
        "metrics": rank_segments(scored, segments, calibration.usual, metrics),
      }
    )
  return events


def _training_tails(opened: run_flags.Run, config: Config) -> dict[str, _Tail]:
  """Returns what each machine's series go on from, for --context."""
  machines = run_flags.load_run_machines(opened, FLAGS.data_dir, None)
  groups = run_flags.prepared_again(opened, config, machines, FLAGS.workdir)
  last = {machine.name: machine.train.values[-1] for machine in machines}
  return {
    machine.name: _Tail(machine.train, last[machine.name]) for group in groups for machine in group.machines
  }


def _score_group(
  group: StoredGroup,
  machines: dict[str, Machine],
  tails: dict[str, _Tail],
  calibrations: dict[str, MachineCalibration],
  config: Config,
  step: int,
  writers: dict[str, TableWriter],
  folder: epath.Path,
) -> list[str]:
  """Scores and writes the machines of one group that are there; returns lines for a person."""
  lanes = [i for i, stored in enumerate(group.machines) if stored.name in machines]
  if not lanes:
    return []
  priors = {stored.name: calibrations[stored.name].prior for stored in group.machines}
  params, _, remarks = read_params(FLAGS.workdir, config, group, priors, step)
  for name in [name for name in remarks if name in machines]:
    print(f"{name}: {remarks[name]}", flush=True)
  params = jax.tree.map(lambda leaf: leaf[np.array(lanes)], params)
  members = [group.machines[i] for i in lanes]
  prepared = [_prepare(stored, machines[stored.name], config, tails.get(stored.name)) for stored in members]
  all_scored = score_machines(
    [split for _, split in prepared],
    params,
    group.targets,
    [stored.preparation for stored in members],
    [calibrations[stored.name] for stored in members],
    config,
    [tails[stored.name].split if stored.name in tails else None for stored in members],
  )
  metrics = tuple(group.metrics[i] for i in group.targets)
  lines = []
  for stored, (machine, split), scored in zip(members, prepared, all_scored, strict=True):
    calibration = calibrations[machine.name]
    # what a person compares with the expected band is what was there: not clipped, and null where missing
    actual = own_values(stored.preparation, machine.test)[:, list(group.targets)]
    scored = scored._replace(actual=actual)
    events = _write_machine(writers, machine, scored, calibration, metrics, config)
    if FLAGS.export == "original":
      write_original(folder / "original" / machine.name, scored, metrics)
    told = f"{len(scored.score)} rows, {int(scored.valid.sum())} scored, {count_events(events, calibration)}"
    told += f", {scored.is_anomaly.sum() / max(scored.valid.sum(), 1):.2%} of rows above the threshold"
    outside = sorted(zip(split.outside_share, stored.preparation.metrics, strict=True), reverse=True)[:3]
    worst = ", ".join(f"{name} {share:.0%}" for share, name in outside if share >= 0.005)
    lines.append(f"{machine.name}: {told}; outside the training range: {worst or 'next to nothing'}")
  return lines


def main() -> int:
  """Scores and writes the tables; returns the exit code."""
  began = time.perf_counter()
  opened = run_flags.open_workdir(FLAGS.workdir)
  config = opened.config
  _check_mode(config)
  if FLAGS.context and FLAGS.split == "train" and not FLAGS.source:
    raise UsageError("--context: the training split has no rows before it")
  if FLAGS.source and FLAGS.split != "test":
    raise UsageError("--split=train: of new files, test/ is scored; leave --split or --source out")
  calibrations, about = read_calibration(FLAGS.workdir)
  _check_calibration(opened, about)
  host.prepare()
  machines = _machines(opened)
  folder = epath.Path(FLAGS.workdir)
  if FLAGS.source:
    folder = folder / "scores" / epath.Path(FLAGS.source).name
  elif FLAGS.split != "test":
    folder = folder / "scores" / FLAGS.split
  if FLAGS.output:
    folder = epath.Path(FLAGS.output)
  tails = _training_tails(opened, config) if FLAGS.context else {}
  has_labels = FLAGS.split == "test" and any(machine.labels is not None for machine in machines.values())
  with (
    run_flags.sole_writer(folder, "score.py"),
    open_tables(folder, opened.run["run_id"], has_labels) as writers,
  ):
    for group, step in zip(opened.groups, about["checkpoint_steps"], strict=True):
      lines = _score_group(group, machines, tails, calibrations, config, step, writers, folder)
      if lines:
        print("\n".join(lines), flush=True)
  print(f"{len(machines)} machines in {time.perf_counter() - began:.0f} s; tables in {folder}")
  return 0


if __name__ == "__main__":
  run(main)
