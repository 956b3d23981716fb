"""What the guard and the checkpoints cost a training step, as ratios within one run."""

import dataclasses
import statistics
import tempfile
import time
from typing import Any

import jax
from benchmark_fleet import TimedTraining, random_fleet

from mtad_jax.config import Config
from mtad_jax.train.checkpoints import Checkpoints
from mtad_jax.train.fleet_step import place
from mtad_jax.train.mesh import make_mesh


@dataclasses.dataclass(frozen=True)
class Extent:
  """How large a fleet is measured, and how long."""

  machines: int
  metrics: int
  repeats: int
  seconds: float  # of one repeat of one side, about
  folder: str | None  # where checkpoints are tried


def steps_of(side: TimedTraining, extent: Extent) -> int:
  """Returns how many steps make one repeat."""
  return max(1, round(extent.seconds / side.step_s))


def measure_guard(config: Config, extent: Extent) -> dict[str, Any]:
  """Returns the step's time with the guard over that without it, by interleaved repeats."""
  mesh = make_mesh(extent.machines, config.train.batch_size)
  arrays = place(random_fleet(config, extent.machines, extent.metrics), mesh)
  sides = {}
  for name, guard in (("off", False), ("on", True)):
    changed = dataclasses.replace(config, train=dataclasses.replace(config.train, guard=guard))
    sides[name] = TimedTraining(changed, arrays, extent.metrics, mesh)
  num = steps_of(sides["off"], extent)
  times: dict[str, list[float]] = {name: [] for name in sides}
  for repeat in range(extent.repeats):
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


def measure_checkpoints(config: Config, extent: Extent) -> dict[str, Any]:
  """Returns what one checkpoint costs the steps: the wait in save(), and steps slower while it is written."""
  mesh = make_mesh(extent.machines, config.train.batch_size)
  arrays = place(random_fleet(config, extent.machines, extent.metrics), mesh)
  side = TimedTraining(config, arrays, extent.metrics, mesh)
  names = tuple(f"machine-{i}" for i in range(extent.machines))
  num, step, waits, extra = steps_of(side, extent), 0, [], []
  with (
    tempfile.TemporaryDirectory(dir=extent.folder) as folder,
    Checkpoints(folder, config.train.checkpoints_to_keep) as checkpoints,
  ):
    for _ in range(extent.repeats):
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
