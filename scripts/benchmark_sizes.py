"""What a machine's training step costs in fleets of different sizes, in one process, by interleaved repeats."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmark_fleet import TimedTraining, random_fleet

from mtad_jax.config import Config
from mtad_jax.train.fleet_step import place
from mtad_jax.train.mesh import make_mesh


class Extent(NamedTuple):
  """What is measured. total_batch: windows of a step of the whole fleet; 0: the config's batch for each machine."""

  fleets: Sequence[int]
  metrics: int
  total_batch: int
  repeats: int
  seconds: float


def batch_of(num_machines: int, config: Config, total_batch: int) -> int:
  """Returns the windows of one machine's step; raises ValueError where the total cannot be shared out evenly."""
  if not total_batch:
    return config.train.batch_size
  if total_batch % num_machines:
    raise ValueError(f"--total_batch={total_batch}: {num_machines} machines cannot share that evenly")
  return total_batch // num_machines


def measure_sizes(config: Config, extent: Extent) -> list[dict[str, Any]]:
  """Returns one row a fleet: seconds per machine and step, per window, and over the cheapest fleet's."""
  sides: dict[int, TimedTraining] = {}
  batches = {num: batch_of(num, config, extent.total_batch) for num in extent.fleets}
  for num, batch in batches.items():
    changed = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=batch))
    mesh = make_mesh(num, batch)
    arrays = place(random_fleet(changed, num, extent.metrics), mesh)
    sides[num] = TimedTraining(changed, arrays, extent.metrics, mesh)
  times: dict[int, list[float]] = {num: [] for num in sides}
  order = list(sides)
  for _ in range(extent.repeats):
    for num in order:
      steps = max(1, round(extent.seconds / sides[num].step_s))
      times[num].append(sides[num].seconds(steps) / steps)
    order = [*order[1:], order[0]]  # none is always the first
  per_window = {num: [t / (num * batches[num]) for t in found] for num, found in times.items()}
  cheapest = min(per_window, key=lambda num: statistics.median(per_window[num]))
  rows = []
  for num, found in times.items():
    ratios = [mine / best for mine, best in zip(per_window[num], per_window[cheapest], strict=True)]
    rows.append(
      {
        "measure": "sizes",
        "machines": num,
        "metrics": extent.metrics,
        "window": config.model.window_size,
        "hidden": config.model.hidden_size,
        "batch": batches[num],
        "attention": config.model.attention.value,
        "step_s": statistics.median(found),
        "machine_step_s": statistics.median(found) / num,
        "window_s": statistics.median(per_window[num]),
        "over_cheapest": statistics.median(ratios),
        "over_cheapest_low": min(ratios),
        "over_cheapest_high": max(ratios),
        "compile_s": sides[num].compile_s,
      }
    )
  return rows


def describe(rows: Sequence[dict[str, Any]]) -> list[str]:
  """Returns the rows for a person."""
  return [
    f"{row['machines']} machines, batch {row['batch']}: {1e3 * row['machine_step_s']:.3f} ms a machine and step,"
    f" {1e6 * row['window_s']:.1f} us a window, {row['over_cheapest']:.2f} times the cheapest"
    f" ({row['over_cheapest_low']:.2f} to {row['over_cheapest_high']:.2f})"
    for row in rows
  ]
