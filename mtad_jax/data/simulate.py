"""A simulated fleet: settings go in, machines with faults in their test splits come out.

Machines of a role share the shape of their load factors (daily and weekly rhythm, slow noise); a machine has
its own gain and phase. Metrics follow the factors with gains, lags, saturations and noise of their own. One
counter, one constant, missing stretches; faults as `data/faults.py` describes them.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from scipy import signal

from mtad_jax.data import faults
from mtad_jax.data.faults import Site
from mtad_jax.data.machine import Interpretation, Machine, Series

START = np.datetime64("2024-01-01T00:00:00", "ms")  # a Monday
QUIET_ROWS = 100  # test rows before the first fault
BETWEEN_ROWS = 40  # rows between two faults, at least
_DAY_S = 86_400.0
_NUM_FACTORS = 3  # traffic, jobs, cache


@dataclasses.dataclass(frozen=True)
class SimulatorSettings:
  """Size and weather of a simulated fleet."""

  num_machines: int = 6
  num_roles: int = 2
  num_metrics: int = 13  # 6 to 14, the counter and the constant among them
  train_days: int = 21  # two weeks at least, so that the weekly rhythm is seen twice
  test_days: int = 14
  step_s: int = 600  # seconds per row
  random_seed: int = 0
  faults_per_machine: int = 9
  missing_share: float = 0.01  # of the values, in stretches
  noise: float = 1.0  # multiplies every metric's own noise
  bursts_per_week: float = 1.0  # short rushes of traffic, which are normal


class _Metric(NamedTuple):
  """How a metric follows the factors.

  unit: metrics of one unit can be swapped. weights: on traffic, jobs, cache. base, span: in that unit.
  bend: exponent of the load, or 0 for a saturating metric. lag: share of the old value kept each row.
  noise: deviation, as a share of the deviation of the metric itself.
  """

  name: str
  unit: str
  weights: tuple[float, float, float]
  base: float
  span: float
  bend: float
  lag: float
  noise: float


_METRICS = (
  _Metric("cpu_user", "percent", (0.7, 0.5, 0.0), 12.0, 50.0, 0.0, 0.0, 0.08),
  _Metric("mem_used", "percent", (0.2, 0.1, 0.7), 18.0, 42.0, 1.0, 0.8, 0.05),
  _Metric("net_in", "MB/s", (1.0, 0.0, 0.1), 8.0, 40.0, 1.0, 0.0, 0.08),
  _Metric("net_out", "MB/s", (0.9, 0.25, 0.0), 6.0, 46.0, 0.0, 0.2, 0.07),
  _Metric("requests", "1/s", (1.0, 0.0, 0.0), 60.0, 400.0, 1.0, 0.0, 0.06),
  _Metric("connections", "count", (0.8, 0.0, 0.3), 50.0, 300.0, 1.0, 0.6, 0.06),
  _Metric("latency_ms", "ms", (0.7, 0.4, 0.0), 25.0, 90.0, 2.0, 0.0, 0.14),
  _Metric("load_1", "load", (0.6, 0.6, 0.0), 0.6, 6.0, 1.3, 0.5, 0.08),
  _Metric("disk_read", "MB/s disk", (0.1, 0.8, 0.2), 5.0, 60.0, 1.0, 0.0, 0.18),
  _Metric("disk_write", "MB/s disk", (0.4, 0.6, 0.0), 6.0, 50.0, 1.0, 0.1, 0.12),
  _Metric("errors", "1/min", (0.8, 0.2, 0.0), 4.0, 9.0, 1.5, 0.0, 0.2),
  _Metric("threads", "count", (0.4, 0.5, 0.2), 60.0, 220.0, 1.0, 0.4, 0.07),
)
_COUNTER = "uptime_bytes_total"
_CONSTANT = "disk_size"


def _check(settings: SimulatorSettings) -> None:
  rows_per_day = _DAY_S / settings.step_s if settings.step_s > 0 else 0.0
  slot_rows = int(settings.test_days * rows_per_day - QUIET_ROWS) // max(settings.faults_per_machine, 1)
  needed = faults.LONGEST_ROWS + 2 * BETWEEN_ROWS
  limits = (
    ("num_machines", 1, 100_000),
    ("num_roles", 1, settings.num_machines),
    ("num_metrics", 6, len(_METRICS) + 2),
    ("train_days", 1, 10_000),
    ("test_days", 1, 10_000),
    ("step_s", 1, 3_600),
    ("random_seed", 0, 2**31 - 1),
    ("faults_per_machine", 0, 100_000),
    ("missing_share", 0, 0.3),
    ("noise", 0.01, 10),
    ("bursts_per_week", 0, 100),
  )
  for name, low, high in limits:
    value = getattr(settings, name)
    if not low <= value <= high:
      raise ValueError(f"simulator {name}: {value!r} is out of range; allowed: {low} to {high}")
  if settings.faults_per_machine and slot_rows < needed:
    raise ValueError(
      f"simulator faults_per_machine: {settings.faults_per_machine} leaves {slot_rows} test rows to each"
      f" fault; at least {needed} are needed"
    )


def _slow_noise(rng: np.random.Generator, num_rows: int, memory: float) -> np.ndarray:
  """Returns an AR(1) series [T] of deviation 1."""
  shocks = rng.normal(size=num_rows) * np.sqrt(1 - memory**2)
  shocks[0] /= np.sqrt(1 - memory**2)
  return np.asarray(signal.lfilter([1.0], [1.0, -memory], shocks))


def _role_rhythm(rng: np.random.Generator) -> np.ndarray:
  """Returns [factor, (peak hour, second harmonic, its hour, weekend level)] of one role."""
  peak_hours = np.array([14.0, 3.0, 19.0]) + rng.uniform(-3, 3, _NUM_FACTORS)
  second = rng.uniform(0.15, 0.4, _NUM_FACTORS)
  second_hours = rng.uniform(0, 12, _NUM_FACTORS)
  weekend = np.array([0.65, 1.15, 0.85]) + rng.uniform(-0.1, 0.1, _NUM_FACTORS)
  return np.stack([peak_hours, second, second_hours, weekend], axis=1)


def _factors(
  rhythm: np.ndarray, shared: np.ndarray, settings: SimulatorSettings, rng: np.random.Generator
) -> np.ndarray:
  """Returns one machine's load factors [T, 3], about 0 to 1.

  rhythm: of its role. shared: [T, 3] slow noise that all machines of the role feel.
  """
  num_rows = len(shared)
  seconds = np.arange(num_rows) * float(settings.step_s) + rng.uniform(-1800, 1800)  # the machine's phase
  hour = seconds / 3600.0 % 24.0
  # weekends begin and end within about three hours
  day_of_week = seconds / _DAY_S % 7.0
  is_weekend = (np.tanh((day_of_week - 5.0) * 16) - np.tanh((day_of_week - 7.0) * 16)) / 2
  is_weekend += (1 - np.tanh(day_of_week * 16)) / 2
  factors = np.empty((num_rows, _NUM_FACTORS))
  for index, (peak, second, second_hour, weekend) in enumerate(rhythm):
    daily = 0.45 + 0.3 * np.cos((hour - peak) * 2 * np.pi / 24)
    daily += 0.3 * second * np.cos((hour - second_hour) * 4 * np.pi / 24)
    own = _slow_noise(rng, num_rows, 0.985)
    factors[:, index] = daily * (1 + (weekend - 1) * is_weekend) + 0.035 * shared[:, index] + 0.035 * own
  num_bursts = rng.poisson(settings.bursts_per_week * num_rows * settings.step_s / (7 * _DAY_S))
  for centre, width, height in zip(
    rng.uniform(0, num_rows, num_bursts),
    rng.uniform(5, 10, num_bursts),
    rng.uniform(0.1, 0.25, num_bursts),
    strict=True,
  ):
    factors[:, 0] += height * np.exp(-0.5 * ((np.arange(num_rows) - centre) / width) ** 2)
  return np.maximum(factors, 0.02)


def _follow(metric: _Metric, factors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Returns what a metric shows without its own noise, [T]."""
  weights = np.array(metric.weights) * rng.uniform(0.85, 1.15, _NUM_FACTORS)
  load = factors @ weights
  load = signal.lfilter([1 - metric.lag], [1.0, -metric.lag], load, zi=[metric.lag * load[0]])[0]
  response = np.tanh(1.4 * load) if metric.bend == 0 else load**metric.bend
  return np.asarray(metric.base * rng.uniform(0.9, 1.1) + metric.span * rng.uniform(0.9, 1.1) * response)


def _counter(traffic: np.ndarray, num_train: int, rng: np.random.Generator) -> np.ndarray:
  """Returns bytes since the last start, [T]: grows with the traffic, restarts once in either split."""
  growth = np.rint(1e6 * traffic * rng.uniform(0.98, 1.02, len(traffic)))
  total = 4e9 + np.cumsum(growth)
  resets = [rng.integers(num_train // 4, num_train // 2)]
  num_test = len(traffic) - num_train
  resets.append(num_train + rng.integers(num_test // 4, 3 * num_test // 4))
  for row in resets:
    total[row:] -= total[row] - growth[row]
  return total


def _lose(values: np.ndarray, share: float, keep: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Returns the values [T, F] with stretches lost, of one metric or, one time in ten, of all of them.

  keep: [T] bool, rows that lose nothing (those of faults, whose labels must stay exact).
  """
  num_rows, num_metrics = values.shape
  lost = np.zeros((num_rows, num_metrics), bool)
  while lost.mean() < share:
    start, length = int(rng.integers(1, num_rows)), int(rng.integers(2, 9))
    rows = slice(start, start + length)
    if rng.random() < 0.1:
      lost[rows] = True
    else:
      lost[rows, int(rng.integers(num_metrics))] = True
    lost[keep] = False
  return np.where(lost, np.nan, values)


def _with_faults(
  site: Site, cells: list[tuple[str, str]], rng: np.random.Generator
) -> tuple[np.ndarray, tuple[Interpretation, ...]]:
  """Returns the test values with one fault of each cell, in time order, and their causes."""
  values = site.values.copy()
  found = []
  edges = np.linspace(QUIET_ROWS, len(values), len(cells) + 1).astype(int)
  for (kind, strength), low, high in zip(cells, edges[:-1], edges[1:], strict=True):
    last = high - BETWEEN_ROWS - faults.num_fault_rows(kind, strength)
    fault, shown = faults.inject(site, int(low), int(last), kind, strength, rng)
    values[fault.start : fault.end, list(fault.metrics)] = shown
    found.append(fault)
  return values, tuple(found)


def _simulate_machine(
  index: int,
  role: int,
  rhythm: np.ndarray,
  shared: np.ndarray,
  cells: list[tuple[str, str]],
  settings: SimulatorSettings,
  num_train: int,
) -> Machine:
  rng = np.random.default_rng([settings.random_seed, 2, index])
  num_rows = len(shared)
  followers = _METRICS[: settings.num_metrics - 2]
  factors = _factors(rhythm, shared, settings, rng)
  followed = np.stack([_follow(metric, factors, rng) for metric in followers], axis=1)
  noise = np.array([metric.noise for metric in followers]) * settings.noise * followed[:num_train].std(axis=0)
  shown = np.maximum(followed + rng.normal(size=followed.shape) * noise[None, :], 0.0)
  traffic = followed[:, 2] + followed[:, 3]
  extra = np.stack([_counter(traffic, num_train, rng), np.full(num_rows, 512.0)], axis=1)
  values, expected = np.hstack([shown, extra]), np.hstack([followed, extra])

  train = _lose(values[:num_train], settings.missing_share, np.zeros(num_train, bool), rng)
  test = values[num_train:]
  units = [metric.unit for metric in followers]
  pairs = tuple(
    (first, second)
    for first in range(len(units))
    for second in range(first + 1, len(units))
    if units[first] == units[second]
  )
  low, high = np.nanmin(train, axis=0), np.nanmax(train, axis=0)
  site = Site(test, expected[num_train:], np.append(noise, [0, 0]), low, high, pairs)
  test, causes = _with_faults(site, cells, rng)
  labels = np.zeros(len(test), bool)
  for cause in causes:
    labels[cause.start : cause.end] = True

  # the row before a fault stays too: a frozen metric holds its value
  keep = labels | np.append(labels[1:], False)
  test = _lose(test, settings.missing_share, keep, rng)

  times = START + np.arange(num_rows) * np.timedelta64(settings.step_s, "s")
  times = times.astype("datetime64[ms]")
  return Machine(
    name=f"role{role}-{index:02d}",
    role=f"role{role}",
    metrics=(*(metric.name for metric in followers), _COUNTER, _CONSTANT),
    train=Series(train, times[:num_train]),
    test=Series(test, times[num_train:]),
    labels=labels,
    interpretation=causes,
  )


def simulate_fleet(settings: SimulatorSettings) -> list[Machine]:
  """Returns the machines of a simulated fleet; the same settings give the same bits.

  Machine i has role i modulo num_roles. The test split follows the training split in time. Faults lie in the
  test split only, none in its first 100 rows, at least 40 rows apart; the 18 combinations of kind and
  strength are dealt as evenly over the fleet as their number allows.

  Raises:
    ValueError: naming the setting that is out of range, or a fault for which there is no place.
  """
  _check(settings)
  rows_per_day = _DAY_S / settings.step_s
  num_train, num_test = int(settings.train_days * rows_per_day), int(settings.test_days * rows_per_day)
  rng = np.random.default_rng([settings.random_seed, 0])
  dealt = faults.deal_cells(settings.num_machines * settings.faults_per_machine, rng)
  rhythms, shared = [], []
  for role in range(settings.num_roles):
    role_rng = np.random.default_rng([settings.random_seed, 1, role])
    rhythms.append(_role_rhythm(role_rng))
    common = [_slow_noise(role_rng, num_train + num_test, 0.985) for _ in range(_NUM_FACTORS)]
    shared.append(np.stack(common, axis=1))
  machines = []
  for index in range(settings.num_machines):
    role = index % settings.num_roles
    first = index * settings.faults_per_machine
    cells = dealt[first : first + settings.faults_per_machine]
    machines.append(_simulate_machine(index, role, rhythms[role], shared[role], cells, settings, num_train))
  return machines
