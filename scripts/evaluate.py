"""Holds scores against labels beside the floors; fits nothing that scoring uses.

python scripts/evaluate.py --workdir=runs/mine
python scripts/evaluate.py --workdir=runs/mine --floors=random,pca_error --early_hit_rows=5 --delay_limit_rows=60
python scripts/evaluate.py --workdir=runs/mine --source=newdata --scores=scored
python scripts/evaluate.py --workdir=runs/mine --source=newhosts --cold_start=runs/roles --scores=scored_hosts

Reads scores.parquet and segments.parquet (in the work directory, or where --scores says), the run's settings
and its raw data; writes evaluation.json beside the scores and prints a table, the worst machines first.
"""

import dataclasses

import run_flags
from absl import flags
from etils import epath
from program import VERBOSE, run
from terminal import track

from mtad_jax.config import Config, DetectConfig
from mtad_jax.data.machine import Machine, Series
from mtad_jax.detect.judges import peers
from mtad_jax.evaluate.floors import FLOORS, available_floors, check_floors
from mtad_jax.evaluate.inputs import common_scores, read_rankings, read_scores, scored_machines
from mtad_jax.evaluate.promise import promise_figures, promise_line
from mtad_jax.evaluate.summary import evaluate_fleet
from mtad_jax.evaluate.table import format_table
from mtad_jax.train.workdir import CALIBRATION, read_json, write_json

_WORKDIR = flags.DEFINE_string("workdir", None, "the work directory of a training run", required=True)
_SCORES = flags.DEFINE_string("scores", "", "folder with scores.parquet; default: the work directory")
_EARLY = flags.DEFINE_integer(
  "early_hit_rows", None, "an alarm this many rows before a segment counts for it; default: the run's",
  lower_bound=0,
)  # fmt: skip
_DELAY = flags.DEFINE_integer(
  "delay_limit_rows", None, "a hit later than this after a segment's start does not count; 0: no limit",
  lower_bound=0,
)  # fmt: skip
_FLOORS = flags.DEFINE_list(
  "floors", None, f"what the detector is held against, of {', '.join(FLOORS)}; default: all that can be computed"
)
_DATA_DIR = flags.DEFINE_string("data_dir", "", "prepared datasets, where they have moved since training")
_SOURCE = flags.DEFINE_string(
  "source", "", "the fleet folder that score.py --source scored, with --scores its tables"
)
run_flags.define_cold_start()


_MOST_MACHINES = 6  # with the floors' table and the notes, a screen
# what shapes the events that score.py raises, beside merging and a minimum length, which figures here follow too
_NOT_COUNTED = ("warning", "alarm_checks", "release_ratio", "cooldown_rows")


def _settings(config: Config) -> Config:
  """Returns the run's settings with the flags' tolerances in them."""
  given = {"early_hit_rows": _EARLY.value, "delay_limit_rows": _DELAY.value}
  changed = {name: value for name, value in given.items() if value is not None}
  return dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, **changed))


def _machines(opened: run_flags.Run) -> list[Machine]:
  """Returns the machines that were scored: the run's own, or with --source their new test splits.

  The training rows, for the floors, are the run's; those of a machine without any are a peer's.
  """
  machines = run_flags.load_run_machines(opened, _DATA_DIR.value or None, None)
  if not _SOURCE.value:
    return machines
  trained = {machine.name: machine.train for machine in machines}
  cold = run_flags.cold_start(opened, _WORKDIR.value, _SOURCE.value)
  found = run_flags.read_new_files(opened, _SOURCE.value, "ignore", cold)
  there: dict[str, Series] = trained
  if cold is not None and cold.run_id != opened.run["run_id"]:
    run = run_flags.open_workdir(str(cold.workdir))
    there = {machine.name: machine.train for machine in run_flags.load_run_machines(run, None, None)}
  result = []
  for machine in found:
    rows = trained.get(machine.name)
    if rows is None and cold is not None:
      peer = peers(cold, machine)[0]
      print(f"{machine.name}: no training rows of its own; its floors are fitted on those of {peer}, of its role")
      rows = there[peer]
    result.append(machine if rows is None else machine._replace(train=rows))
  return result


def main() -> None:
  """Reads, evaluates, writes evaluation.json in one step, and prints the table."""
  opened = run_flags.open_workdir(_WORKDIR.value)
  config = _settings(opened.config)
  folder = epath.Path(_SCORES.value or _WORKDIR.value)
  tables = read_scores(folder / "scores.parquet")
  machines = _machines(opened)
  rankings = None
  if (folder / "segments.parquet").exists():
    rankings = read_rankings(folder / "segments.parquet")
  floors, floors_left_out = available_floors()
  if _FLOORS.value is not None:
    floors, floors_left_out = check_floors(_FLOORS.value), {}
  scored = scored_machines(tables, machines, rankings, config, floors, track)
  result = evaluate_fleet(scored, config.evaluate, config.detect, track)
  result["run_id"] = opened.run["run_id"]
  _, left_out = common_scores(tables)
  result["other_scores_left_out"] = left_out
  result["floors_left_out"] = floors_left_out
  calibration = epath.Path(_WORKDIR.value) / CALIBRATION
  if calibration.exists():
    entries = read_json(calibration, "train.py (or calibrate.py)", ("machines",))["machines"]
    result["promise"] = promise_figures(entries)
  write_json(folder / "evaluation.json", result)
  print(format_table(result, None if VERBOSE.value else _MOST_MACHINES))
  print(promise_line(result["promise"]) if calibration.exists() else f"promise not evaluated: no {calibration}")
  for name, reason in left_out.items():
    print(f"score {name} left out: {reason}")
  for name, reason in floors_left_out.items():
    print(f"floor {name} left out: {reason}")
  shaped = [name for name in _NOT_COUNTED if getattr(config.detect, name) != getattr(DetectConfig(), name)]
  if shaped:
    told = ", ".join(f"detect.{name} {getattr(config.detect, name)!r}" for name in shaped)
    print(f"events counted here are runs above the critical threshold, merged; without {told}")
  if rankings is None:
    print(f"causes not evaluated: no segments.parquet in {folder}")
  print(f"\n{folder / 'evaluation.json'}")


if __name__ == "__main__":
  run(main)
