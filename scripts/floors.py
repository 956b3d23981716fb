"""What simple detectors get on a fleet, no model needed: the floors that a figure must beat.

python scripts/floors.py --dataset=smd --source=ServerMachineDataset
python scripts/floors.py --dataset=folder --source=myfleet --floors=pca_error,linear_autoregression
python scripts/floors.py --dataset=folder --data_dir=data --seeds=5 --output=floors.json

Prints average precision and best F1 (its threshold chosen with the labels), mean over machines, and over the seeds
of the floors that draw. The first rows of each test split are left out, as a detector with a window has none there.
"""

import time

import numpy as np
from absl import flags
from program import run
from terminal import track

from mtad_jax.config import Config, DataConfig
from mtad_jax.data.builder import DATASETS
from mtad_jax.data.load import load_machines
from mtad_jax.data.machine import Machine
from mtad_jax.evaluate.floors import FLOORS, available_floors, check_floors, floor_scores
from mtad_jax.evaluate.metrics import average_precision, best_f1
from mtad_jax.evaluate.table import align
from mtad_jax.train.workdir import write_json

_DATASET = flags.DEFINE_enum("dataset", None, DATASETS, "whose test labels are held against", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "folder of prepared datasets")
_SOURCE = flags.DEFINE_string("source", None, "folder of raw files, in place of --data_dir")
_MACHINES = flags.DEFINE_list("machines", [], "only these machines; empty: all")
_WITHOUT = flags.DEFINE_list("without", [], "machines that are left out, e.g. P-2, which SMAP lists twice")
_FLOORS = flags.DEFINE_list("floors", None, f"of {', '.join(FLOORS)}; default: all that can be computed")
_SKIP_ROWS = flags.DEFINE_integer("skip_rows", 100, "first rows of a test split left out", lower_bound=0)
_SEEDS = flags.DEFINE_integer("seeds", 3, "draws of the floors that draw: seeds 0, 1, ...", lower_bound=1)
_COUNTERS = flags.DEFINE_enum("counters", "none", ["none", "auto"], "auto: counters are differenced first")
_OUTPUT = flags.DEFINE_string("output", None, "a JSON file with every machine's figures")
_DRAWING = ("random", "nearest_neighbour", "kmeans_windows")


def _figures(machine: Machine, lane: int, names: tuple[str, ...], config: Config) -> dict[str, list[dict]]:
  """Returns the machine's figures by floor, one entry a seed."""
  rows = slice(_SKIP_ROWS.value, None)
  labels = machine.labels[rows] if machine.labels is not None else np.zeros(0)
  found: dict[str, list[dict]] = {name: [] for name in names}
  for seed in range(_SEEDS.value):
    wanted = [name for name in names if seed == 0 or name in _DRAWING]
    # machines apart by more than any number of seeds, so that no two share their random scores
    scores = floor_scores(machine, config, 1000 * lane + seed, wanted)
    for name in wanted:
      precision, best = average_precision(labels, scores[name][rows]), best_f1(labels, scores[name][rows])
      found[name].append({"average_precision": precision, "best_f1": best.f1})
  return found


def main() -> None:
  """Computes the floors of every labelled machine and prints their means."""
  names, left_out = available_floors()
  if _FLOORS.value is not None:
    names, left_out = check_floors(_FLOORS.value), {}
  data = DataConfig(dataset=_DATASET.value, machines=tuple(_MACHINES.value), counters=_COUNTERS.value)
  config = Config(data=data)
  machines = load_machines(data, data_dir=_DATA_DIR.value, source=_SOURCE.value, track=track)
  unknown = set(_WITHOUT.value) - {machine.name for machine in machines}
  if unknown:
    raise ValueError(f"--without: no machine {min(unknown)!r}; known: {', '.join(m.name for m in machines)}")
  chosen = [machine for machine in machines if machine.name not in _WITHOUT.value]
  with_anomaly = [
    m for m in chosen if m.labels is not None and np.any(m.labels[_SKIP_ROWS.value :])
  ]
  if not with_anomaly:
    place = _DATA_DIR.value or _SOURCE.value
    raise ValueError(f"{place}: no machine has an anomalous test row after the first {_SKIP_ROWS.value}")
  began = time.monotonic()
  by_machine = {m.name: _figures(m, lane, names, config) for lane, m in enumerate(track(with_anomaly, "floors"))}
  mean = {
    name: {
      key: float(np.mean([np.mean([row[key] for row in found[name]]) for found in by_machine.values()]))
      for key in ("average_precision", "best_f1")
    }
    for name in names
  }
  if _OUTPUT.value:
    settings = {"dataset": _DATASET.value, "skip_rows": _SKIP_ROWS.value, "seeds": _SEEDS.value}
    write_json(_OUTPUT.value, {"settings": settings, "mean": mean, "machines": by_machine})
  rows = [["floor", "average precision", "best F1*"]]
  for name in sorted(names, key=lambda name: mean[name]["average_precision"]):
    rows.append([name, *(f"{mean[name][key]:.3f}" for key in ("average_precision", "best_f1"))])
  print(align(rows))
  print("\n* its threshold chosen with the labels")
  print(f"mean of {len(with_anomaly)} machines, {_SEEDS.value} seeds, in {time.monotonic() - began:.0f} s")
  if len(with_anomaly) < len(chosen):
    print(f"without labels or an anomaly: {', '.join(m.name for m in chosen if m not in with_anomaly)}")
  for name, reason in left_out.items():
    print(f"left out: {name}: {reason}")


if __name__ == "__main__":
  run(main)
