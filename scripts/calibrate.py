"""Fits calibration and thresholds again, the weights untouched.

python scripts/calibrate.py --workdir=runs/mine --sensitivity=normal --warning=sensitive --preview    # writes nothing
python scripts/calibrate.py --workdir=runs/mine --alarms_per_week=2 --preview
python scripts/calibrate.py --workdir=runs/mine --threshold=dspot --pot_q=1e-3 --preview      # follows the scores
python scripts/calibrate.py --workdir=runs/mine --alarm_checks=3 --alarm_window_checks=5 --release_ratio=0.8
python scripts/calibrate.py --workdir=runs/mine --pot_q=1e-3
"""

import host
import machine_summary
import run_flags
from absl import flags
from etils import epath
from program import UsageError, run
from terminal import first_lines, track

from mtad_jax.config import Config, dumps, freeze, to_dict
from mtad_jax.detect.calibrate_run import calibrate_run
from mtad_jax.detect.calibration import Tried
from mtad_jax.detect.parameters import read_params
from mtad_jax.explain.preview import Preview, preview_group, preview_lines
from mtad_jax.roles.prior import read_text
from mtad_jax.train.stored_run import sole_writer
from mtad_jax.train.workdir import CALIBRATION, CONFIG, PRIOR, write_json, write_whole

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "the run", required=True)
flags.DEFINE_string("data_dir", None, "where the training data lie now; default: where train.py read them")
flags.DEFINE_string("source", None, "in place of --data_dir: a folder of raw files")
flags.DEFINE_float("pot_q", None, "promised share of alarm rows on normal data")
flags.DEFINE_float("alarms_per_week", None, "promised alarms of a machine and week of normal data; 0: by pot_q")
flags.DEFINE_string(
  "sensitivity", None, "of critical events: sensitive, normal or insensitive; given: by --alarms_per_week or --pot_q"
)
flags.DEFINE_string("warning", None, "a second level below it: off, sensitive, normal or insensitive")
flags.DEFINE_integer("merge_gap_rows", None, "alarms closer than this are one event")
flags.DEFINE_integer("min_event_rows", None, "alarm rows that an event has at least")
flags.DEFINE_integer("alarm_checks", None, "an event begins where so many ...")
flags.DEFINE_integer("alarm_window_checks", None, "... of so many scored rows are above the threshold")
flags.DEFINE_float("release_ratio", None, "an event goes on until the score falls to this share of the threshold")
flags.DEFINE_integer("cooldown_rows", None, "what would begin so soon after an event goes on with that event")
flags.DEFINE_bool("preview", False, "write nothing; tell what these settings would have raised in the last week")
flags.DEFINE_string("threshold", None, "pot, conformal, spot or dspot; the last two follow the scores")
flags.DEFINE_integer("level_minutes", None, "dspot: what the level is a mean over")
flags.DEFINE_integer("learn_minutes", None, "dspot: an alarm that lasts longer moves the level")
flags.DEFINE_float("initial_quantile", None, "where POT's tail begins")
flags.DEFINE_float("error_floor", None, "smallest deviation that an error is measured in, scaled units")
flags.DEFINE_float("gamma", None, "weight of the reconstruction beside the forecast")
flags.DEFINE_integer("largest_metrics", None, "rule joint: the metrics whose scores are summed, the largest of a row")
flags.DEFINE_float("level_limit", None, "rule joint: deviations that the level counts for at most; 0: not at all")
flags.DEFINE_list("smoothed_minutes", None, "rule joint: what a row's score is averaged over, e.g. 1,4,16,64")
flags.DEFINE_string("rule", None, "joint, density, standardised, surprise, gamma or raw")
flags.DEFINE_string("prior", None, "what experts know of metrics: a TOML file; kept as the run's prior.toml")
flags.DEFINE_multi_string("exclude", [], "further ranges to leave out of the calibration; see train.py")


_FIELDS = [
  *("pot_q", "alarms_per_week", "sensitivity", "warning", "threshold", "initial_quantile", "error_floor", "gamma"),
  *("rule", "largest_metrics", "level_limit", "merge_gap_rows", "min_event_rows"),
  *("alarm_checks", "alarm_window_checks"),
  *("release_ratio", "cooldown_rows", "level_minutes", "learn_minutes"),
]


def _changed(config: Config) -> Config:
  tree = to_dict(config)
  for name in _FIELDS:
    if FLAGS[name].value is not None:
      tree["detect"][name] = FLAGS[name].value
  if FLAGS.sensitivity is None and not (FLAGS.pot_q is None and FLAGS.alarms_per_week is None):
    tree["detect"]["sensitivity"] = "given"  # which would go before them
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
  with sole_writer(FLAGS.workdir, "calibrate.py"):
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
  prior = read_text(FLAGS.prior) if FLAGS.prior else None
  calibrated = calibrate_run(
    FLAGS.workdir, config, groups, opened.groups, opened.run["run_id"], tuple(FLAGS.exclude), tried, prior, track
  )
  if FLAGS.preview:
    series = {machine.name: machine.train for machine in machines}
    previews: list[Preview] = []
    for group, step in zip(opened.groups, calibrated.content["checkpoint_steps"], strict=True):
      priors = {machine.name: calibrated.machines[machine.name].prior for machine in group.machines}
      params, _, _ = read_params(FLAGS.workdir, config, group, priors, step)
      previews += preview_group(group, params, series, calibrated.machines, tried, config, track)
    previews.sort(key=lambda preview: -len(preview.events))
    *lines, total = preview_lines(previews)
    print("\n".join([*first_lines(lines, ""), total]))
  else:
    if prior is not None:
      write_whole(epath.Path(FLAGS.workdir) / PRIOR, prior)
    write_json(epath.Path(FLAGS.workdir) / CALIBRATION, calibrated.content)
    write_whole(epath.Path(FLAGS.workdir) / CONFIG, dumps(config))
  print("\n".join(machine_summary.summary_lines(calibrated, FLAGS.workdir)))
  if FLAGS.exclude:
    print(f"left out of this calibration, and on record in calibration.json: {', '.join(FLAGS.exclude)}")
  return 0


if __name__ == "__main__":
  run(main)
