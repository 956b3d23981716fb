"""Fits calibration and thresholds again, the weights untouched.

python scripts/calibrate.py --workdir=RUNDIR --pot_q=1e-3
python scripts/calibrate.py --workdir=RUNDIR --alarms_per_week=2 --preview     # tries it, writes nothing
python scripts/calibrate.py --workdir=RUNDIR --threshold=dspot --pot_q=1e-3
"""

import host
import run_flags
from absl import flags
from etils import epath
from program import UsageError, run

from mtad_jax.config import Config, dumps, freeze, to_dict
from mtad_jax.detect.calibrate_run import calibrate_run, report_lines
from mtad_jax.detect.calibration import Tried
from mtad_jax.explain.preview import previews
from mtad_jax.train.workdir import CALIBRATION, CONFIG, write_json, write_whole

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "the run", required=True)
flags.DEFINE_string("data_dir", None, "where the training data lie now; default: where train.py read them")
flags.DEFINE_string("source", None, "in place of --data_dir: a folder of raw files")
flags.DEFINE_float("pot_q", None, "promised share of alarm rows on normal data")
flags.DEFINE_float("alarms_per_week", None, "promised alarms of a machine and week of normal data; 0: by pot_q")
flags.DEFINE_bool("preview", False, "write nothing; tell what these settings would have raised in the last week")
flags.DEFINE_string("threshold", None, "pot, conformal, spot or dspot; the last two follow the scores")
flags.DEFINE_integer("level_minutes", None, "dspot: what the level is a mean over")
flags.DEFINE_integer("learn_minutes", None, "dspot: an alarm that lasts longer moves the level")
flags.DEFINE_float("initial_quantile", None, "where POT's tail begins")
flags.DEFINE_float("error_floor", None, "smallest deviation that an error is measured in, scaled units")
flags.DEFINE_float("gamma", None, "weight of the reconstruction beside the forecast")
flags.DEFINE_integer("largest_metrics", None, "rule joint: the metrics whose scores are summed, the largest of a row")
flags.DEFINE_list("smoothed_minutes", None, "rule joint: what a row's score is averaged over, e.g. 1,4,16,64")
flags.DEFINE_string("rule", None, "joint, standardised, surprise, gamma or raw")
flags.DEFINE_multi_string("exclude", [], "further ranges to leave out of the calibration; see train.py")


def _changed(config: Config) -> Config:
  tree = to_dict(config)
  fields = ("pot_q", "alarms_per_week", "threshold", "initial_quantile", "error_floor", "gamma", "rule")
  for name in (*fields, "largest_metrics", "level_minutes", "learn_minutes"):
    if FLAGS[name].value is not None:
      tree["detect"][name] = FLAGS[name].value
  if FLAGS.pot_q is not None and FLAGS.alarms_per_week is None:
    tree["detect"]["alarms_per_week"] = 0.0  # which would go before it
  if FLAGS.smoothed_minutes is not None:
    if not all(item.isdigit() for item in FLAGS.smoothed_minutes):
      raise UsageError(f"--smoothed_minutes={','.join(FLAGS.smoothed_minutes)}: whole numbers with commas are wanted")
    tree["detect"]["smoothed_minutes"] = [int(item) for item in FLAGS.smoothed_minutes]
  try:
    return freeze(tree)
  except ValueError as error:
    raise UsageError(error) from None


def main() -> int:
  """Calibrates and writes calibration.json and the settings it was made with; returns the exit code."""
  run_flags.open_workdir(FLAGS.workdir)  # no lock is put into a folder that is no work directory
  with run_flags.sole_writer(FLAGS.workdir, "calibrate.py"):
    return _calibrate()


def _calibrate() -> int:
  host.prepare()
  opened = run_flags.open_workdir(FLAGS.workdir)
  config = _changed(opened.config)
  machines = run_flags.load_run_machines(opened, FLAGS.data_dir, FLAGS.source)
  groups = run_flags.prepared_again(opened, config, machines, FLAGS.workdir)
  if FLAGS.exclude:
    groups = run_flags.without_calibration_rows(groups, machines, FLAGS.exclude)
  tried: dict[str, Tried] = {}
  calibrated = calibrate_run(
    FLAGS.workdir, config, groups, opened.groups, opened.run["run_id"], tuple(FLAGS.exclude), tried
  )
  if FLAGS.preview:
    metrics = {m.name: [g.metrics[i] for i in g.targets] for g in opened.groups for m in g.machines}
    series = {machine.name: machine.train for machine in machines}
    print("\n".join(previews(calibrated.machines, tried, metrics, series, config.detect)))
  else:
    write_json(epath.Path(FLAGS.workdir) / CALIBRATION, calibrated.content)
    write_whole(epath.Path(FLAGS.workdir) / CONFIG, dumps(config))
  print("\n".join(report_lines(calibrated)))
  if FLAGS.exclude:
    print(f"left out of this calibration, and on record in calibration.json: {', '.join(FLAGS.exclude)}")
  return 0


if __name__ == "__main__":
  run(main)
