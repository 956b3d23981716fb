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

import host
import run_flags
from absl import flags
from etils import epath
from program import VERBOSE, UsageError, run
from score_summary import Line, describe, full_line, summary_lines
from terminal import say, track
from worker_thread import WorkerThread

from mtad_jax.config import Config
from mtad_jax.config_choices import RunMode
from mtad_jax.data.machine import Machine
from mtad_jax.detect.calibrate_run import calibration_faults, read_calibration
from mtad_jax.detect.judges import ColdStart, Judge, describe_cold
from mtad_jax.detect.original_export import write_original
from mtad_jax.detect.score_run import Judged, Tail, judges_of_run, score_judge
from mtad_jax.detect.tables import TableWriter, open_tables
from mtad_jax.explain.event_list import count_events
from mtad_jax.library.score_tables import write_machine
from mtad_jax.train.stored_run import sole_writer

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


def _training_tails(opened: run_flags.Run, config: Config) -> dict[str, Tail]:
  """Returns what each machine's series go on from, for --context."""
  machines = run_flags.load_run_machines(opened, FLAGS.data_dir, None)
  groups = run_flags.prepared_again(opened, config, machines, FLAGS.workdir)
  last = {machine.name: machine.train.values[-1] for machine in machines}
  return {
    machine.name: Tail(machine.train, last[machine.name]) for group in groups for machine in group.machines
  }


def _write(
  judged: Judged,
  writers: dict[str, TableWriter],
  folder: epath.Path,
  metrics: tuple[str, ...],
  config: Config,
) -> Line:
  """Writes one machine's rows; returns what is told of it."""
  scored = judged.scored
  events = write_machine(writers, judged, metrics, config, all_rows=FLAGS.all_metric_scores)
  if FLAGS.export == "original":
    write_original(folder / "original" / judged.machine.name, scored, metrics)
  outside = dict(zip(judged.inputs, judged.split.outside_share.tolist(), strict=True))
  line = describe(judged.machine.name, scored, events, count_events(events, judged.calibration), outside)
  if VERBOSE.value:
    say(full_line(line))
  return line


def _score(
  judge: Judge,
  machines: dict[str, Machine],
  tails: dict[str, Tail],
  writers: dict[str, TableWriter],
  folder: epath.Path,
  writing: WorkerThread[Line],
) -> None:
  """Scores the machines of one judge, and hands each on to be written while the next is computed."""
  for name, remark in judge.remarks.items():
    print(f"{name}: {remark}", flush=True)
  metrics = tuple(judge.metrics[i] for i in judge.targets)
  for judged in score_judge(judge, machines, tails, train_split=FLAGS.split == "train", track=track):
    writing.do(_write, judged, writers, folder, metrics, judge.config)


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
  judges = judges_of_run(FLAGS.workdir, opened, cold, known, new, calibrations, about["checkpoint_steps"])
  with (
    sole_writer(folder, "score.py"),
    open_tables(folder, opened.run["run_id"], has_labels, told_of) as writers,
    WorkerThread[Line]() as writing,
  ):
    for judge in judges:
      _score(judge, machines, tails, writers, folder, writing)
      del judge  # its parameters go before the next group's come
    lines = writing.results()
  print("\n".join(summary_lines(lines, str(folder / "scores.parquet"))))
  print(f"{len(machines)} machines in {time.perf_counter() - began:.0f} s; tables in {folder}")
  return 0


if __name__ == "__main__":
  run(main)
