"""Measures what the guard and the checkpoints cost, as ratios within one run; JSON lines, then a table.

python scripts/benchmark.py --config=configs/smd.py:cpu
python scripts/benchmark.py --config=configs/smd.py --machines=28 --repeats=9 --measure=guard
"""

import dataclasses
import json
import statistics
import tempfile
import time
from typing import Any

import jax
import numpy as np
import run_flags
from absl import flags
from program import run

from mtad_jax.config import Config
from mtad_jax.data.fleet import FleetArrays
from mtad_jax.train import processes
from mtad_jax.train.checkpoints import Checkpoints
from mtad_jax.train.fleet_step import FleetPrograms, make_programs, place
from mtad_jax.train.run_file import written_by
from mtad_jax.train.state import TrainState
from mtad_jax.train.step import MachineArrays

FLAGS = flags.FLAGS
run_flags.define_config()
flags.DEFINE_multi_enum("measure", ["guard", "checkpoints"], ["guard", "checkpoints"], "what to measure")
flags.DEFINE_integer("machines", 4, "machines of the fleet", lower_bound=1)
flags.DEFINE_integer("metrics", 38, "metrics of each machine, all of them scored; SMD has 38", lower_bound=1)
flags.DEFINE_integer("repeats", 7, "interleaved repeats; the median counts", lower_bound=1)
flags.DEFINE_float("seconds", 4.0, "how long one repeat of one side lasts, about", lower_bound=0.1)
flags.DEFINE_string("folder", None, "where checkpoints are tried; default: a temporary folder")

NUM_ROWS = 4000  # training rows of a machine; a step's cost does not depend on it
ALL_STEPS = 1_000_000  # of the schedule: the rate hardly moves


def random_fleet(config: Config, num_machines: int, num_metrics: int) -> FleetArrays:
  """Returns arrays of a fleet of smooth random series in 0..1, every row of which may be trained on."""
  rng = np.random.default_rng(0)
  phase = rng.uniform(0, 6, (num_machines, 1, num_metrics))
  waves = np.sin(np.arange(NUM_ROWS)[None, :, None] / 30 + phase)
  values = 0.5 + 0.4 * waves + rng.normal(0, 0.02, waves.shape)
  rows = np.arange(config.model.window_size, NUM_ROWS, dtype=np.int32)
  count = np.full(num_machines, len(rows), np.int32)
  many = np.tile(rows, (num_machines, 1))
  ids = np.arange(num_machines, dtype=np.uint32)
  return FleetArrays(values.astype(np.float32), many, count, many[:, :64], np.full_like(count, 64), ids)


class Side:
  """One of the sides compared: its program and its state, kept between repeats."""

  def __init__(self, config: Config, arrays: MachineArrays, num_metrics: int):
    self._programs: FleetPrograms = make_programs(config, num_metrics, tuple(range(num_metrics)))
    self._arrays = arrays
    self.state: TrainState = self._programs.init(arrays.machine_ids)
    self.compile_s = self.step_s = self.seconds(1)
    self.step_s = self.seconds(3) / 3

  def seconds(self, num_steps: int) -> float:
    """Returns how long that many steps took."""
    began = time.perf_counter()
    self.state = self._programs.run(self.state, self._arrays, num_steps, ALL_STEPS)
    jax.block_until_ready(self.state)
    self.state = self._programs.clear_report(self.state)
    return time.perf_counter() - began


def steps_of(side: Side) -> int:
  """Returns how many steps make one repeat."""
  return max(1, round(FLAGS.seconds / side.step_s))


def measure_guard(config: Config, arrays: MachineArrays) -> dict[str, Any]:
  """Returns the step's time with the guard over that without it, by interleaved repeats."""
  sides = {}
  for name, guard in (("off", False), ("on", True)):
    changed = dataclasses.replace(config, train=dataclasses.replace(config.train, guard=guard))
    sides[name] = Side(changed, arrays, FLAGS.metrics)
  num = steps_of(sides["off"])
  times: dict[str, list[float]] = {name: [] for name in sides}
  for repeat in range(FLAGS.repeats):
    for name in ("off", "on") if repeat % 2 else ("on", "off"):  # neither is always the first
      times[name].append(sides[name].seconds(num) / num)
  ratios = [on / off for on, off in zip(times["on"], times["off"], strict=True)]
  return {
    "measure": "guard",
    "steps_per_repeat": num,
    "step_s_off": statistics.median(times["off"]),
    "step_s_on": statistics.median(times["on"]),
    "ratio": statistics.median(ratios),
    "ratio_low": min(ratios),
    "ratio_high": max(ratios),
    "compile_s_off": sides["off"].compile_s,
    "compile_s_on": sides["on"].compile_s,
  }


def measure_checkpoints(config: Config, arrays: MachineArrays) -> dict[str, Any]:
  """Returns what one checkpoint costs the steps: the wait in save(), and steps slower while it is written."""
  side = Side(config, arrays, FLAGS.metrics)
  names = tuple(f"machine-{i}" for i in range(FLAGS.machines))
  num, step, waits, extra = steps_of(side), 0, [], []
  with (
    tempfile.TemporaryDirectory(dir=FLAGS.folder) as folder,
    Checkpoints(folder, config.train.checkpoints_to_keep) as checkpoints,
  ):
    for _ in range(FLAGS.repeats):
      plain = side.seconds(num)
      step += 1
      began = time.perf_counter()
      checkpoints.save(step, side.state, names, {})
      waits.append(time.perf_counter() - began)
      with_save = side.seconds(num) + waits[-1]
      checkpoints.wait()
      extra.append(with_save - plain)
  interval = config.train.checkpoint_every_steps
  cost = statistics.median(extra)
  return {
    "measure": "checkpoints",
    "state_mib": sum(x.nbytes for x in jax.tree.leaves(side.state)) / 2**20,
    "step_s": side.step_s,
    "wait_s": statistics.median(waits),
    "cost_s": cost,
    "every_steps": interval,
    "share_of_step_time": cost / (interval * side.step_s),
  }


def table(results: list[dict[str, Any]]) -> list[str]:
  """Returns the results for a person."""
  lines = []
  for found in results:
    if found["measure"] == "guard":
      lines.append(
        f"guard: step {found['step_s_off']:.4f} s without, {found['step_s_on']:.4f} s with; ratio"
        f" {found['ratio']:.3f} ({found['ratio_low']:.3f} to {found['ratio_high']:.3f})"
      )
    else:
      lines.append(
        f"checkpoint of {found['state_mib']:.0f} MiB: steps wait {found['wait_s']:.3f} s, cost in all"
        f" {found['cost_s']:.3f} s; {found['share_of_step_time']:.2%} of the time at one every"
        f" {found['every_steps']} steps"
      )
  return lines


def main() -> int:
  """Measures and prints; returns the exit code."""
  config = run_flags.frozen_config()
  arrays = place(random_fleet(config, FLAGS.machines, FLAGS.metrics))
  about = {
    "machines": FLAGS.machines,
    "metrics": FLAGS.metrics,
    "window": config.model.window_size,
    "hidden": config.model.hidden_size,
    "batch": config.train.batch_size,
    "repeats": FLAGS.repeats,
    **written_by(),
  }
  print(json.dumps(about))
  measures = {"guard": measure_guard, "checkpoints": measure_checkpoints}
  results = []
  for name in FLAGS.measure:
    results.append(measures[name](config, arrays))
    print(json.dumps(results[-1]), flush=True)
  print(f"{FLAGS.machines} machines of {FLAGS.metrics} metrics on {processes.describe()}:")
  print("\n".join(table(results)))
  return 0


if __name__ == "__main__":
  run(main)
