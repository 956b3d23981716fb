"""One factor at a time on four tuning machines of SMD: what each part of the detector is worth.

python scripts/ablate.py --data_dir=data --workdir=runs/cells                      # goes on where it was stopped
python scripts/ablate.py --data_dir=data --workdir=runs/cells --cells=default,no_attention --seeds=0

A cell is a whole run (train, score, evaluate) with some settings changed, or the default's network calibrated another
way. Its labels choose defaults, so its machines are left out of every reported mean. Cells are kept in --workdir.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation_cells import CELLS, FIGURES, TUNING_MACHINES, Cell
from absl import flags
from program import UsageError, run
from sub_runs import check_made_with, mean_and_span, run_program, run_training
from terminal import say, track

from mtad_jax.detect.tables import SCHEMAS
from mtad_jax.evaluate.table import align

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "folder of the prepared SMD", required=True)
flags.DEFINE_string("workdir", None, "where the cells' runs are kept", required=True)
flags.DEFINE_string("config", "configs/smd.py:cpu", "the default's settings")
flags.DEFINE_integer("window_budget", 480_000, "windows a cell trains on, all machines together", lower_bound=1)
flags.DEFINE_list("cells", list(CELLS), "which rows")
flags.DEFINE_list("seeds", ["0", "1"], "of the network")
flags.DEFINE_list("machines", list(TUNING_MACHINES), "which machines")


def _train(folder: Path, settings: Mapping[str, Any], seed: int, machines: Sequence[str], *more: str) -> None:
  """Trains machines, each with the same number of windows, with the settings changed; `more`: flags of train.py."""
  changed = {
    "train.window_budget": round(FLAGS.window_budget * len(machines) / len(FLAGS.machines)),
    "train.random_seed": seed,
    "train.progress_bar": False,
    **settings,
  }
  arguments = [f"--config.{name}={value}" for name, value in changed.items()]
  run_training(
    f"--config={FLAGS.config}",
    f"--data_dir={FLAGS.data_dir}",
    f"--workdir={folder}",
    f"--config.data.machines={tuple(machines)!r}",
    *arguments,
    *more,
  )


def _make(name: str, cell: Cell, seed: int) -> dict[str, Any]:
  """Returns a cell's evaluation.json, made where it is not there yet."""
  folder = Path(FLAGS.workdir) / f"{name}-{seed}"
  done = folder / "evaluation.json"
  about = {"config": FLAGS.config, "window_budget": FLAGS.window_budget, "machines": FLAGS.machines}
  if cell.begun_by:
    about["begun_by"] = cell.begun_by
  check_made_with(folder, {**about, "settings": dict(cell.settings), "calibrate": dict(cell.calibrate or {})})
  if not done.exists():
    if cell.calibrate:
      _make("default", CELLS["default"], seed)
      if not (folder / "config.json").exists():
        half = folder.with_suffix(".half")
        shutil.rmtree(half, ignore_errors=True)
        # what the default's run has come to is not this cell's
        made = (*(f"{table}.parquet" for table in SCHEMAS), "evaluation.json")
        shutil.copytree(Path(FLAGS.workdir) / f"default-{seed}", half, ignore=shutil.ignore_patterns(*made))
        half.rename(folder)
      changed = [f"--{flag}={value}" for flag, value in cell.calibrate.items()]
      run_program("calibrate.py", f"--workdir={folder}", *changed)
    elif cell.begun_by:
      source = folder.with_name(f"{folder.name}.begun_by")
      _train(source, cell.settings, seed, cell.begun_by)
      _train(folder, cell.settings, seed, FLAGS.machines, f"--warm_start={source}")
    else:
      _train(folder, cell.settings, seed, FLAGS.machines)
    run_program("score.py", f"--workdir={folder}")
    # the floors know nothing of a cell: one evaluation has them
    run_program("evaluate.py", f"--workdir={folder}", *([] if name == "default" else ["--floors="]))
  return json.loads(done.read_text())


def _figure(result: dict[str, Any], path: Sequence[str]) -> float:
  value: Any = result
  for key in path:
    value = value[key]
  return float("nan") if value is None else float(value)


def main() -> int:
  """Makes the cells that are not there yet and prints the table; returns the exit code."""
  unknown = [name for name in FLAGS.cells if name not in CELLS]
  if unknown:
    raise UsageError(f"--cells: {unknown[0]!r} is unknown; known: {', '.join(CELLS)}")
  if not FLAGS.seeds or not all(seed.isdigit() for seed in FLAGS.seeds):
    raise UsageError(f"--seeds={','.join(FLAGS.seeds)}: whole numbers with commas are wanted")
  figures: dict[str, list[list[float]]] = {name: [] for name in FLAGS.cells}
  floors: dict[str, float] = {}
  for name, seed in track([(name, int(seed)) for name in FLAGS.cells for seed in FLAGS.seeds], "cells"):
    began = time.perf_counter()
    result = _make(name, CELLS[name], seed)
    figures[name].append([_figure(result, path) for _, path in FIGURES])
    floors |= {floor: entry["average_precision"] for floor, entry in result["mean"]["floors"].items()}
    told = f"{name}, seed {seed}: average precision {figures[name][-1][0]:.3f}"
    say(f"{told} ({time.perf_counter() - began:.0f} s)")
  rows = [["cell", *(head for head, _ in FIGURES)]]
  for name, values in figures.items():
    rows.append([name, *(mean_and_span(list(column)) for column in zip(*values, strict=True))])
  print(f"\nMean of {', '.join(FLAGS.machines)}; seeds {', '.join(FLAGS.seeds)}; ±: half the span of the seeds")
  print(align(rows))
  falling = sorted(floors.items(), key=lambda pair: -pair[1])
  if falling:
    print("floors: " + ", ".join(f"{name} {value:.3f}" for name, value in falling))
  return 0


if __name__ == "__main__":
  run(main)
