"""Which scoring and threshold settings find faults on a fleet's own training rows: no label, no network.

python scripts/rehearse.py --config=configs/fleet.py --source=myfleet --compare=threshold=dspot,pot_q=2e-3
python scripts/rehearse.py --config=configs/smd.py --data_dir=data --compare=level_limit=1e9 --compare=level_limit=0

Every machine's training split is played as deployment: its first 35% fit a linear autoregression, the next rows
calibrate, and into the last 52% faults are put. --compare changes settings of config.detect, a row of the table each.
"""

import json
import re

import numpy as np
import run_flags
from absl import flags
from program import UsageError, run
from rehearsal import Judgement, Rehearsal, judge, rehearse
from sub_runs import mean_and_span
from terminal import say, track

from mtad_jax.config import Config, freeze, to_dict
from mtad_jax.config_choices import ScoringRule
from mtad_jax.data.fleet import find_targets, machine_id
from mtad_jax.data.gaps import sampling_step
from mtad_jax.data.load import load_machines
from mtad_jax.data.machine import Machine
from mtad_jax.evaluate.floors import usable_splits
from mtad_jax.evaluate.table import align

FLAGS = flags.FLAGS
run_flags.define_config()
flags.DEFINE_string("data_dir", None, "folder of the prepared data set")
flags.DEFINE_string("source", None, "in place of --data_dir: a folder of raw files")
flags.DEFINE_multi_string(
  "compare", [], "settings of config.detect with commas, e.g. threshold=dspot,pot_q=1e-3"
)
flags.DEFINE_list("seeds", ["0", "1"], "of the faults")


def _changed(config: Config, text: str) -> Config:
  """Returns the config with what one --compare says, e.g. "threshold=dspot,pot_q=1e-3"; lists as in JSON."""
  tree = to_dict(config)
  for setting in re.split(r",(?=\w+=)", text):
    name, found, value = setting.partition("=")
    if not found or name not in tree["detect"]:
      known = ", ".join(tree["detect"])
      raise UsageError(
        f"--compare={text}: {setting!r} is no setting of config.detect with a value; known: {known}"
      )
    try:
      tree["detect"][name] = json.loads(value)
    except json.JSONDecodeError:  # a word
      tree["detect"][name] = value
  try:
    return freeze(tree)
  except ValueError as error:
    raise UsageError(f"--compare={text}: {error}") from None


def _rehearsed(machine: Machine, config: Config, seed: int) -> Rehearsal:
  train, _ = usable_splits(machine, config)
  try:
    return rehearse(
      train, find_targets(machine.metrics, config.data.target_metrics), machine_id(machine.name) + seed
    )
  except ValueError as error:
    raise ValueError(f"{machine.name}: {error}") from None


def _row(name: str, by_seed: list[list[Judgement]]) -> list[str]:
  means = [np.mean(np.array(judgements), axis=0) for judgements in by_seed]  # over machines, a row a seed
  figures = [mean_and_span([float(mean[i]) for mean in means]) for i in range(3)]
  shares = [np.median(np.array(judgements), axis=0)[3:] for judgements in by_seed]
  return [name, *figures, f"{np.mean([s[0] for s in shares]):.2%}", f"{np.mean([s[1] for s in shares]):.2%}"]


def main() -> int:
  """Rehearses every machine under every row's settings and prints the table; returns the exit code."""
  config = run_flags.frozen_config()
  if not FLAGS.seeds or not all(seed.isdigit() for seed in FLAGS.seeds):
    raise UsageError(f"--seeds={','.join(FLAGS.seeds)}: whole numbers with commas are wanted")
  rows = {"config": config, **{text: _changed(config, text) for text in FLAGS.compare}}
  for name, changed in rows.items():
    if changed.detect.rule is ScoringRule.DENSITY:
      raise UsageError(f"{name}: rule density scores by a mixture, and a rehearsal fits none")
  machines = load_machines(config.data, data_dir=FLAGS.data_dir, source=FLAGS.source, track=track)
  found: dict[str, list[list[Judgement]]] = {name: [[] for _ in FLAGS.seeds] for name in rows}
  left_out: list[str] = []
  for machine in track(machines, "rehearsals"):
    step_s = sampling_step(machine.train) or config.data.sampling_step_s or None
    try:
      rehearsals = [_rehearsed(machine, config, int(seed)) for seed in FLAGS.seeds]
    except ValueError as error:
      left_out.append(str(error))
      continue
    for name, changed in rows.items():
      for i, rehearsal in enumerate(rehearsals):
        found[name][i].append(judge(rehearsal, changed.detect, step_s))
  if not found["config"][0]:
    raise ValueError(f"not one of {len(machines)} machines can be rehearsed; {left_out[0]}")
  for line in left_out:
    say(f"left out: {line}")
  print(
    f"\nMean of {len(found['config'][0])} machines; seeds {', '.join(FLAGS.seeds)}; ±: half the span of the seeds"
  )
  head = ["config.detect", "AP", "F1 at the threshold", "best F1*", "alarm rows**", "promised**"]
  print(align([head, *(_row(name, by_seed) for name, by_seed in found.items())]))
  print("* its threshold is chosen with the faults known")
  print("** of the rows without faults, the median machine")
  return 0


if __name__ == "__main__":
  run(main)
