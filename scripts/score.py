"""Scores every row of every machine with the stored network and calibration, and names the causes of alarms.

python scripts/score.py --workdir=runs/mine
python scripts/score.py --workdir=runs/mine --source=newdata --output=scored --extra=ignore
python scripts/score.py --workdir=runs/mine --source=newhosts --cold_start=runs/roles --output=scored_hosts

A machine of new files that the run was not trained on is scored by the mixture of its role: of the run itself where
it is one of role mixtures, else of --cold_start's. The column model says which model spoke.

A row's score does not depend on the other rows of the files. Its threshold does where it is one that streams (spot,
dspot): every call begins with the state at the end of calibration, and a row's threshold is of the rows before it.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import host
import numpy as np
import run_flags
from absl import flags
from etils import epath
from program import VERBOSE, UsageError, run
from score_summary import Line, describe, full_line, summary_lines
from score_tables import Judged, write_machine
from terminal import say, track

from mtad_jax.config import Config
from mtad_jax.config_choices import RunMode
from mtad_jax.data.contract import check_contract
from mtad_jax.data.machine import Machine, Series
from mtad_jax.data.preparation import Preparation, PreparedSplit, apply_preparation, own_values
from mtad_jax.detect.calibrate_run import calibration_faults, read_calibration
from mtad_jax.detect.calibration import MachineCalibration
from mtad_jax.detect.judges import ColdStart, Judge, describe_cold, judge_cold, judge_group
from mtad_jax.detect.original_export import write_original
from mtad_jax.detect.score_machine import score_machines
from mtad_jax.detect.tables import TableWriter, open_tables
from mtad_jax.explain.event_list import count_events
from mtad_jax.roles.attribution import Scorer

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
run_flags.define_cold_start()


def _check_mode(config: Config) -> None:
  trained = config.model.run_mode.value
  if FLAGS.run_mode and FLAGS.run_mode != trained:
    raise UsageError(
      f"--run_mode={FLAGS.run_mode}: this model was trained {trained}; it can be scored in that mode only"
    )


def _machines(opened: run_flags.Run, cold: ColdStart | None) -> dict[str, Machine]:
  """Returns the machines to score by name: of new files, or of the run's own data."""
  known = [machine.name for group in opened.groups for machine in group.machines]
  if FLAGS.source:
    machines = run_flags.read_new_files(opened, FLAGS.source, FLAGS.extra, cold)
  else:
    machines = run_flags.load_run_machines(opened, FLAGS.data_dir, None)
  found = {machine.name: machine for machine in machines}
  place = FLAGS.source or FLAGS.data_dir or opened.run["data_dir"] or opened.run["source"]
  unknown = [name for name in found if name not in known]
  if unknown and cold is None:
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
  preparation: Preparation, machine: Machine, config: Config, tail: _Tail | None
) -> tuple[Machine, PreparedSplit]:
  """Returns the machine with the split to score in its `test`, and that split prepared by training statistics."""
  raw = machine.train if FLAGS.split == "train" else machine.test
  columns = check_contract(
    preparation,
    machine.name,
    machine.metrics,
    raw,
    config.data,
    named=True,
    extra="refuse",
  )
  series = Series(raw.values[:, columns], raw.timestamps)
  previous = None if tail is None else tail.last_row
  split = apply_preparation(preparation, series, config.data, previous)
  is_test = raw is machine.test
  machine = machine._replace(test=series, labels=machine.labels if is_test else None)
  return machine, split


def _training_tails(opened: run_flags.Run, config: Config) -> dict[str, _Tail]:
  """Returns what each machine's series go on from, for --context."""
  machines = run_flags.load_run_machines(opened, FLAGS.data_dir, None)
  groups = run_flags.prepared_again(opened, config, machines, FLAGS.workdir)
  last = {machine.name: machine.train.values[-1] for machine in machines}
  return {
    machine.name: _Tail(machine.train, last[machine.name]) for group in groups for machine in group.machines
  }


def _judges(
  opened: run_flags.Run,
  cold: ColdStart | None,
  known: list[str],
  new: list[Machine],
  calibrations: dict[str, MachineCalibration],
  steps: list[int],
) -> Iterator[Judge]:
  """Yields what scores the machines, those without a model of their own last; holds no group's parameters itself."""
  begun_from = opened.run.get("warm_start_from", {})
  for group, step in zip(opened.groups, steps, strict=True):
    if any(stored.name in known for stored in group.machines):
      yield judge_group(FLAGS.workdir, opened.config, group, known, calibrations, step, begun_from)
  if cold is not None:
    yield from judge_cold(cold, new)


def _score(
  judge: Judge,
  machines: dict[str, Machine],
  tails: dict[str, _Tail],
  writers: dict[str, TableWriter],
  folder: epath.Path,
) -> list[Line]:
  """Scores and writes the machines of one judge; returns what is told of each."""
  for name, remark in judge.remarks.items():
    print(f"{name}: {remark}", flush=True)
  prepared = [
    _prepare(preparation, machines[name], judge.config, tails.get(name))
    for name, preparation in zip(judge.names, judge.preparations, strict=True)
  ]
  all_scored = score_machines(
    [split for _, split in prepared],
    judge.params,
    judge.targets,
    judge.preparations,
    judge.calibrations,
    judge.config,
    [tails[name].split if name in tails else None for name in judge.names],
    track,
  )
  metrics = tuple(judge.metrics[i] for i in judge.targets)
  lines: list[Line] = []
  for i, ((machine, split), scored) in enumerate(zip(prepared, all_scored, strict=True)):
    preparation, calibration = judge.preparations[i], judge.calibrations[i]
    # what a person compares with the expected band is what was there: not clipped, and null where missing
    actual = own_values(preparation, machine.test)[:, list(judge.targets)]
    scored = scored._replace(actual=actual)
    scorer = Scorer(*[leaf[i] for leaf in judge.params]) if isinstance(judge.params, Scorer) else None
    judged = Judged(machine, scored, calibration, judge.models[i], split, scorer)
    events = write_machine(writers, judged, metrics, judge.config.detect, all_rows=FLAGS.all_metric_scores)
    if FLAGS.export == "original":
      write_original(folder / "original" / machine.name, scored, metrics)
    outside = dict(zip(preparation.metrics, split.outside_share.tolist(), strict=True))
    line = describe(machine.name, scored, events, count_events(events, calibration), outside)
    if VERBOSE.value:
      say(full_line(line))
    lines.append(line)
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
  cold = run_flags.cold_start(opened, FLAGS.workdir, FLAGS.source)
  host.prepare()
  machines = _machines(opened, cold)
  folder = epath.Path(FLAGS.workdir)
  if FLAGS.source:
    folder = folder / "scores" / epath.Path(FLAGS.source).name
  elif FLAGS.split != "test":
    folder = folder / "scores" / FLAGS.split
  if FLAGS.output:
    folder = epath.Path(FLAGS.output)
  tails = _training_tails(opened, config) if FLAGS.context else {}
  has_labels = FLAGS.split == "test" and any(machine.labels is not None for machine in machines.values())
  trained = {stored.name for group in opened.groups for stored in group.machines}
  known = [name for name in machines if name in trained]
  new = [machine for name, machine in machines.items() if name not in trained]
  told_of = {} if cold is None else describe_cold(cold, new)
  with (
    run_flags.sole_writer(folder, "score.py"),
    open_tables(folder, opened.run["run_id"], has_labels, told_of) as writers,
  ):
    lines: list[Line] = []
    for judge in _judges(opened, cold, known, new, calibrations, about["checkpoint_steps"]):
      lines += _score(judge, machines, tails, writers, folder)
      del judge  # its parameters go before the next group's come
  print("\n".join(summary_lines(lines, str(folder / "scores.parquet"))))
  print(f"{len(machines)} machines in {time.perf_counter() - began:.0f} s; tables in {folder}")
  return 0


if __name__ == "__main__":
  run(main)
