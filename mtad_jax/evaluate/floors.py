"""The floors by name, on the rows that the detector gets: what every figure stands beside.

In: raw machines and a run's settings. Out: one score a test row and floor.
"""

import importlib.util
from collections.abc import Callable, Sequence

import numpy as np

from mtad_jax.config import Config
from mtad_jax.data.counters import difference, find_counters
from mtad_jax.data.exclude import excluded_rows, parse_exclusions
from mtad_jax.data.machine import Machine
from mtad_jax.data.train_from import first_training_row, parse_beginnings
from mtad_jax.evaluate import baselines, distance_baselines

Floor = Callable[[np.ndarray, np.ndarray, Config, int], np.ndarray]  # train, test, settings, seed

FLOORS: dict[str, Floor] = {
  "random": lambda train, test, config, seed: baselines.random_scores(len(test), seed),
  "all_positive": lambda train, test, config, seed: baselines.all_positive(len(test)),
  "training_range": lambda train, test, config, seed: baselines.training_range(train, test),
  "l2_norm": lambda train, test, config, seed: baselines.l2_norm(train, test),
  "pca_error": lambda train, test, config, seed: baselines.pca_error(train, test, config.evaluate.pca_variance),
  "nearest_neighbour": lambda train, test, config, seed: distance_baselines.nearest_neighbour(train, test, seed),
  "kmeans_windows": lambda train, test, config, seed: distance_baselines.kmeans_windows(train, test, seed),
  "linear_autoregression": lambda train, test, config, seed: baselines.linear_autoregression(train, test),
}
_OF_SCIKIT_LEARN = ("nearest_neighbour", "kmeans_windows")
LEFT_OUT = 'scikit-learn is not installed; pip install "mtad_jax[baselines]"'


def available_floors() -> tuple[tuple[str, ...], dict[str, str]]:
  """Returns (the floors that can be computed here, {one that cannot: why})."""
  if importlib.util.find_spec("sklearn") is not None:
    return tuple(FLOORS), {}
  rest = tuple(name for name in FLOORS if name not in _OF_SCIKIT_LEARN)
  return rest, dict.fromkeys(_OF_SCIKIT_LEARN, LEFT_OUT)


def check_floors(names: Sequence[str]) -> tuple[str, ...]:
  """Returns the names; raises ValueError where one is unknown, stands there twice, or cannot be computed here."""
  _, left_out = available_floors()
  for i, name in enumerate(names):
    if name not in FLOORS:
      raise ValueError(f"floor {name!r} is unknown; known: {', '.join(FLOORS)}")
    if name in names[:i]:
      raise ValueError(f"floor {name!r} is named twice")
    if name in left_out:
      raise ValueError(f"floor {name}: {left_out[name]}")
  return tuple(names)


def usable_splits(machine: Machine, config: Config) -> tuple[np.ndarray, np.ndarray]:
  """Returns (train [T_train, F], test [T, F]) as the detector gets them, without NaN, unscaled.

  Excluded training rows are left out, counters are differenced as the settings say, gaps are filled from the past.

  Args:
    machine: raw series.
    config: data.counters, data.exclude and data.train_from are read.

  Raises:
    ValueError: no training row is left.
  """
  train, test = machine.train.values, machine.test.values
  exclusions = parse_exclusions(config.data.exclude)
  times, beginnings = machine.train.timestamps, parse_beginnings(config.data.train_from)
  is_excluded = excluded_rows(exclusions, machine.name, len(train), times)
  is_excluded[: first_training_row(beginnings, machine.name, len(train), times)] = True
  if config.data.counters == "auto":
    is_counter = find_counters(train[~is_excluded])
    train, test = difference(train, is_counter), difference(test, is_counter)
  train = baselines.fill_forward(train[~is_excluded])
  if len(train) == 0:
    raise ValueError(f"{machine.name}: no training row is left; at least one is needed")
  return train, baselines.fill_forward(test, train[-1])


def floor_scores(
  machine: Machine, config: Config, seed: int, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
  """Returns the floors' scores of one machine, [T] by name.

  Args:
    machine: raw series; the floors get `usable_splits` of it.
    config: as `usable_splits`, and evaluate.pca_variance.
    seed: one of the machine's own, so that no two share their random scores.
    names: of `FLOORS`; None: those that are available.

  Raises:
    ValueError: as `check_floors`, no training row left, or too few rows for one of the floors.
  """
  names = available_floors()[0] if names is None else check_floors(names)
  train, test = usable_splits(machine, config)
  scores = {}
  for name in names:
    try:
      scores[name] = FLOORS[name](train, test, config, seed)
    except ValueError as error:
      raise ValueError(f"{machine.name}: floor {name}: {error}") from None
  return scores
