"""A random fleet and its training program, timed: what the measures of `benchmark.py` have in common."""

import time

import jax
import numpy as np
from jax.sharding import Mesh

from mtad_jax.config import Config
from mtad_jax.data.fleet import FleetArrays
from mtad_jax.train.fleet_step import FleetPrograms, make_programs
from mtad_jax.train.state import TrainState
from mtad_jax.train.step import MachineArrays

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


class TimedTraining:
  """The fleet's training program and its state, kept between repeats."""

  def __init__(self, config: Config, arrays: MachineArrays, num_metrics: int, mesh: Mesh):
    self.programs: FleetPrograms = make_programs(config, num_metrics, tuple(range(num_metrics)), mesh)
    self._arrays = arrays
    self.state: TrainState = self.programs.init(arrays.machine_ids)
    self.compile_s = self.step_s = self.seconds(1)
    self.step_s = self.seconds(3) / 3

  def seconds(self, num_steps: int) -> float:
    """Returns how long that many steps took."""
    began = time.perf_counter()
    self.state = self.programs.run(self.state, self._arrays, num_steps, ALL_STEPS)
    jax.block_until_ready(self.state)
    self.state = self.programs.clear_report(self.state)
    return time.perf_counter() - began
