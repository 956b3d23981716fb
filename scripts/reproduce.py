"""The README's table of one public data set: prepared, trained, scored and evaluated, once a seed, then averaged.

python scripts/reproduce.py --dataset=msl --source=telemanom --workdir=runs/msl
python scripts/reproduce.py --dataset=smd --source=ServerMachineDataset --workdir=runs/smd_table --seeds=0

Goes on where it was stopped. Prints every figure of the detector and of all floors as the mean over machines, and
over seeds with half their span. The machines of SMD that the scoring rule was chosen on are left out of the means.
"""

import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ablation_cells import TUNING_MACHINES
from absl import flags
from program import UsageError, run
from sub_runs import check_made_with, mean_and_span, run_program, run_training
from terminal import say, track

from mtad_jax.evaluate.table import align

FIGURES = (  # head, path in a machine's block
  ("AP", ("average_precision",)),
  ("VUS-PR", ("vus_pr",)),
  ("VUS-ROC", ("vus_roc",)),
  ("AUC-ROC", ("auc_roc",)),
  ("best F1*", ("oracle", "f1")),
  ("Fc1*", ("composite_f1_oracle",)),
  ("PA%K*", ("pa_k_area_oracle",)),
  ("PA F1*", ("point_adjusted_oracle", "f1")),
  ("F1", ("at_threshold", "pot", "f1")),
  ("range F1", ("at_threshold", "pot", "range_f1")),
  ("affil. F1", ("at_threshold", "pot", "affiliation_f1")),
)
BEST = "best_of_each_machine"
Seeds = list[list[dict[str, Any]]]  # by seed, by machine: a machine's block of evaluation.json
FLAGS = flags.FLAGS
flags.DEFINE_enum("dataset", None, ["smd", "smap", "msl"], "which table", required=True)
flags.DEFINE_string("source", None, "the publisher's folder", required=True)
flags.DEFINE_string("workdir", None, "where the data and the runs are kept", required=True)
flags.DEFINE_string("config", "", "settings; default: configs/DATASET.py:cpu")
flags.DEFINE_list("seeds", ["0", "1", "2"], "of the network and of the floors that draw")
flags.DEFINE_list("without", None, "machines left out of the means; default: SMD's four tuning machines")
flags.DEFINE_list("machines", [], "only these machines; empty: all")


def _evaluated(seed: int) -> dict[str, Any]:
  """Returns a seed's evaluation.json, made where it is not there yet."""
  root = Path(FLAGS.workdir)
  folder, data = root / f"{FLAGS.dataset}-{seed}", root / "data"
  done, config = folder / "evaluation.json", FLAGS.config or f"configs/{FLAGS.dataset}.py:cpu"
  check_made_with(folder, {"config": config, "source": FLAGS.source, "machines": FLAGS.machines})
  if not done.exists():
    if not (data / FLAGS.dataset).exists():
      run_program("prepare.py", f"--dataset={FLAGS.dataset}", f"--source={FLAGS.source}", f"--data_dir={data}")
    changed: dict[str, Any] = {"train.random_seed": seed, "evaluate.random_seed": seed, "train.progress_bar": False}
    if FLAGS.machines:
      changed["data.machines"] = repr(tuple(FLAGS.machines))
    run_training(
      f"--config={config}",
      f"--data_dir={data}",
      f"--workdir={folder}",
      *(f"--config.{name}={value}" for name, value in changed.items()),
    )
    run_program("score.py", f"--workdir={folder}")
    run_program("evaluate.py", f"--workdir={folder}")
  return json.loads(done.read_text())


def _figure(name: str, entry: dict[str, Any], path: tuple[str, ...]) -> float:
  """Returns a figure of the detector or of a floor on one machine, NaN where it has none."""
  value: Any = entry["detector"] if name == "detector" else entry["floors"][name]
  for key in path:
    value = value[key]
  return float("nan") if value is None else float(value)


def _mean(values: list[float]) -> float:
  """Returns the mean of those that are not NaN, NaN where all are."""
  known = [value for value in values if not math.isnan(value)]
  return sum(known) / len(known) if known else float("nan")


def _best(values: list[float]) -> float:
  return max((value for value in values if not math.isnan(value)), default=float("nan"))


def _cells(seeds: Seeds, figure: Callable[[dict[str, Any], tuple[str, ...]], float]) -> list[str]:
  """Returns a row of the table: every figure's mean over machines, then over seeds with half their span."""
  means = [[_mean([figure(entry, path) for entry in machines]) for machines in seeds] for _, path in FIGURES]
  return [mean_and_span(values) for values in means]


def main() -> int:
  """Makes the runs that are not there yet and prints the table; returns the exit code."""
  if not FLAGS.seeds or not all(seed.isdigit() for seed in FLAGS.seeds):
    raise UsageError(f"--seeds={','.join(FLAGS.seeds)}: whole numbers with commas are wanted")
  without = FLAGS.without
  if without is None:
    without = list(TUNING_MACHINES) if FLAGS.dataset == "smd" else []
  results = []
  for seed in track([int(text) for text in FLAGS.seeds], "seeds"):
    began = time.perf_counter()
    results.append(_evaluated(seed))
    say(f"{FLAGS.dataset}, seed {seed}: {time.perf_counter() - began:.0f} s")
  kept = [name for name in results[0]["mean"]["machines"] if name not in without]
  if not kept:
    raise ValueError(f"no machine with an anomaly is left; left out are {', '.join(without)}")
  table = [["mean of machines", *(head for head, _ in FIGURES)]]
  order = []
  names = ("detector", *results[0]["machines"][kept[0]]["floors"])
  seeds = [[result["machines"][machine] for machine in kept] for result in results]
  for name in names:
    cells = _cells(seeds, partial(_figure, name))
    order.append((name != "detector", -float(cells[0].split()[0]), [name, *cells]))
  table += [row for *_, row in sorted(order)]
  table.append([BEST, *_cells(seeds, lambda entry, path: _best([_figure(name, entry, path) for name in names]))])
  print(f"\n{FLAGS.dataset}: {len(kept)} machines, seeds {', '.join(FLAGS.seeds)}; ±: half the span of the seeds")
  if without:
    print(f"left out, the scoring rule was chosen on them: {', '.join(without)}")
  print(align(table))
  print("* oracle, its threshold chosen with the labels; F1s: at the POT threshold, a floor flagging as many rows")
  print(f"{BEST}: of each machine and figure, the best of the detectors above; the labels choose it")
  for key in ("hit_rate_100", "hit_rate_100_random", "first_named_right", "first_named_right_random"):
    values = [(result["root_cause"] or {}).get("all_true_segments", {}).get(key) for result in results]
    if all(value is not None for value in values):
      print(f"{key}, per true segment of all machines: {mean_and_span([float(value) for value in values])}")
  return 0


if __name__ == "__main__":
  run(main)
