"""A tiny fleet and network for tests of training and scoring: seconds to compile, milliseconds to run."""

from typing import Any

import jax
import numpy as np

from mtad_jax.config import Config, freeze
from mtad_jax.data.fleet import Group, prepare_groups, training_arrays
from mtad_jax.data.machine import Machine, Series
from mtad_jax.train.fleet_step import make_programs

MODEL = {
  "window_size": 8,
  "kernel_size": 3,
  "hidden_size": 6,
  "forecast_size": 5,
  "forecast_layers": 1,
  "latent_size": 3,
  "decoder_size": 5,
}


def make_config(**groups: dict) -> Config:
  """Returns small settings; `groups` override fields by group."""
  tree: dict = {
    "model": dict(MODEL),
    "train": {
      "batch_size": 4,
      "num_train_steps": 20,
      "validate_every_steps": 5,
      "log_every_steps": 5,
      "checkpoint_every_steps": 10,
      "validation_windows": 16,
      "progress_bar": False,
    },
    "detect": {"score_batch": 32},
  }
  for name, values in groups.items():
    tree.setdefault(name, {}).update(values)
  return freeze(tree)


def make_machine(name: str, num_rows: int, seed: int, num_metrics: int = 3, role: str = "web") -> Machine:
  """Returns a machine of smooth, correlated, noisy metrics; no labels."""
  rng = np.random.default_rng(seed)
  time = np.arange(num_rows)
  load = np.sin(time / 9)[:, None] * rng.uniform(1, 3, num_metrics)[None, :]
  values = load + rng.normal(0, 0.1, (num_rows, num_metrics))
  metrics = tuple(f"m{i}" for i in range(num_metrics))
  test = load + rng.normal(0, 0.1, (num_rows, num_metrics))
  return Machine(name, role, metrics, Series(values), Series(test))


def draw_params(config: Config, group: Group) -> Any:
  """Returns the parameters [M, ...] that training of a group would draw, on the host."""
  programs = make_programs(config, len(group.metrics), group.targets)
  return jax.device_get(programs.init(training_arrays(group, config).machine_ids).params)


def make_group(config: Config, lengths: tuple[int, ...] = (200, 260, 230)) -> Group:
  """Returns one prepared group of machines of different lengths."""
  machines = [make_machine(f"machine-{i}", length, seed=i) for i, length in enumerate(lengths)]
  return prepare_groups(machines, config)[0]
