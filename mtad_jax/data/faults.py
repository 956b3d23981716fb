"""Faults put into a simulated test split, with exact labels and causes.

A fault's strength is what it changes: the mean distance between what a metric shows and what it should show,
over the fault's rows, in deviations of that metric's own noise. So every fault can be seen in principle by
who knows what to expect. Weak faults stay inside the training range of every metric they touch.
"""

from typing import NamedTuple

import numpy as np

from mtad_jax.data.machine import Interpretation

KINDS = ("spike", "level_shift", "drift", "frozen", "swapped", "decorrelated")
STRENGTHS = ("weak", "middle", "strong")
NOISE_DEVIATIONS = {"weak": 3.0, "middle": 6.0, "strong": 12.0}  # mean change over a fault's rows, at least

# rows that a fault lasts, by strength
_NUM_ROWS = {
  "spike": {"weak": 2, "middle": 2, "strong": 2},
  "level_shift": {"weak": 18, "middle": 18, "strong": 18},
  "drift": {"weak": 48, "middle": 48, "strong": 48},
  "frozen": {"weak": 18, "middle": 24, "strong": 36},
  "swapped": {"weak": 18, "middle": 24, "strong": 36},
  "decorrelated": {"weak": 18, "middle": 24, "strong": 36},
}
LONGEST_ROWS = max(rows for by_strength in _NUM_ROWS.values() for rows in by_strength.values())
_NUM_TRIES = 600  # places looked at for one fault


class Site(NamedTuple):
  """A test split before its faults.

  values: [T, F] float64, no NaN, what the metrics show.
  expected: [T, F] the same without the metrics' own noise.
  noise: [F] deviation of that noise; 0 for metrics that no fault may touch.
  low, high: [F] range of the training split.
  pairs: metrics of one unit, which could be mistaken for each other.
  """

  values: np.ndarray
  expected: np.ndarray
  noise: np.ndarray
  low: np.ndarray
  high: np.ndarray
  pairs: tuple[tuple[int, int], ...]


class _Trial(NamedTuple):
  """One possible fault: its rows, metrics, and what they would show and be expected to show [n, k]."""

  start: int
  metrics: tuple[int, ...]
  values: np.ndarray
  expected: np.ndarray


def num_fault_rows(kind: str, strength: str) -> int:
  """Returns the rows that a fault of this kind and strength lasts."""
  return _NUM_ROWS[kind][strength]


def _added(
  site: Site, kind: str, strength: str, start: int, num_rows: int, rng: np.random.Generator
) -> _Trial:
  """Returns a fault that adds to what is there: a spike, a level shift or a drift."""
  touchable = np.flatnonzero(site.noise > 0)
  num_metrics = 2 if kind == "level_shift" else 1
  metrics = tuple(sorted(int(index) for index in rng.choice(touchable, num_metrics, replace=False)))
  # a drift rises from 0 to twice its mean
  shape = np.linspace(0, 2, num_rows) if kind == "drift" else np.ones(num_rows)
  signs = rng.choice([-1.0, 1.0], num_metrics)
  height = NOISE_DEVIATIONS[strength] * signs * site.noise[list(metrics)]
  change = shape[:, None] * height[None, :]  # [n, k]
  rows = slice(start, start + num_rows)
  columns = list(metrics)
  return _Trial(start, metrics, site.values[rows, columns] + change, site.expected[rows, columns] + change)


def _replaced(site: Site, kind: str, start: int, num_rows: int, rng: np.random.Generator) -> _Trial:
  """Returns a fault that puts something else in a metric's place."""
  rows = np.arange(start, start + num_rows)
  if kind == "swapped":
    first, second = site.pairs[int(rng.integers(len(site.pairs)))]
    crossed = [second, first]
    return _Trial(start, (first, second), site.values[rows][:, crossed], site.expected[rows][:, crossed])
  metric = int(rng.choice(np.flatnonzero(site.noise > 0)))
  if kind == "frozen":
    held = np.full((num_rows, 1), site.values[start - 1, metric])
    return _Trial(start, (metric,), held, held)
  # the metric's own past: the same values to the eye, but out of step with all others
  shift = int(rng.integers(num_rows, start + 1))
  past = rows - shift
  return _Trial(start, (metric,), site.values[past, metric][:, None], site.expected[past, metric][:, None])


def _excess(site: Site, trial: _Trial, strength: str) -> float:
  """Returns by how many noise deviations a trial is stronger than asked for; inf where it will not do."""
  columns = list(trial.metrics)
  rows = slice(trial.start, trial.start + len(trial.values))
  distance = np.abs(trial.expected - site.expected[rows, columns]).mean(axis=0) / site.noise[columns]
  if np.any(distance < NOISE_DEVIATIONS[strength] * (1 - 1e-9)) or np.any(trial.values < 0):
    return np.inf
  inside = (trial.values >= site.low[columns][None, :]) & (trial.values <= site.high[columns][None, :])
  if strength == "weak" and not np.all(inside):
    return np.inf
  return float(distance.max()) - NOISE_DEVIATIONS[strength]


def inject(
  site: Site, first_row: int, last_row: int, kind: str, strength: str, rng: np.random.Generator
) -> tuple[Interpretation, np.ndarray]:
  """Returns a fault that begins in [first_row, last_row], and what its metrics show [n, k] in its rows.

  Of the places tried at random, the one is taken whose change exceeds the strength asked for by least; for
  faults that add (whose change is exact) that is the first place that will do.

  Args:
    site: the test split without faults.
    first_row, last_row: of the fault's first row, both included; first_row >= the fault's length.
    kind: one of KINDS.
    strength: one of STRENGTHS.
    rng: decides on place, metrics and sign.

  Raises:
    ValueError: no place in these rows shows such a fault.
  """
  num_rows = num_fault_rows(kind, strength)
  best, least = None, np.inf
  for _ in range(_NUM_TRIES):
    start = int(rng.integers(first_row, last_row + 1))
    if kind in ("spike", "level_shift", "drift"):
      trial = _added(site, kind, strength, start, num_rows, rng)
    else:
      trial = _replaced(site, kind, start, num_rows, rng)
    excess = _excess(site, trial, strength)
    if excess < least:
      best, least = trial, excess
      if least < 1e-6:
        break
  if best is None:
    raise ValueError(
      f"no place for a {strength} {kind} fault in test rows {first_row} to {last_row}; simulate another seed,"
      " more test days or fewer faults per machine"
    )
  return Interpretation(best.start, best.start + num_rows, best.metrics, kind, strength), best.values


def deal_cells(num_faults: int, rng: np.random.Generator) -> list[tuple[str, str]]:
  """Returns kind and strength of every fault of a fleet, each pair as often as any other or one time more."""
  cells = [(kind, strength) for kind in KINDS for strength in STRENGTHS]
  dealt: list[tuple[str, str]] = []
  while len(dealt) < num_faults:
    dealt += [cells[index] for index in rng.permutation(len(cells))]
  return dealt[:num_faults]
