"""The simulator: rhythm, roles, faults where the labels say and nowhere else, and not too easy or hard."""

import collections
import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from mtad_jax.data import faults
from mtad_jax.data.counters import find_counters
from mtad_jax.data.machine import Interpretation, Machine
from mtad_jax.data.simulate import BETWEEN_ROWS, QUIET_ROWS, SimulatorSettings, simulate_fleet

SETTINGS = SimulatorSettings(random_seed=3)
ROWS_PER_DAY = 144
Fault = tuple[Machine, Machine, Interpretation]


@pytest.fixture(scope="module")
def fleet() -> list[Machine]:
  return simulate_fleet(SETTINGS)


@pytest.fixture(scope="module")
def clean_fleet() -> list[Machine]:
  """The same fleet without faults and without missing values."""
  return simulate_fleet(dataclasses.replace(SETTINGS, faults_per_machine=0, missing_share=0.0))


@pytest.fixture(scope="module")
def faulty_fleet() -> list[Machine]:
  return simulate_fleet(dataclasses.replace(SETTINGS, missing_share=0.0))


@pytest.fixture(scope="module")
def all_faults(faulty_fleet: list[Machine], clean_fleet: list[Machine]) -> list[Fault]:
  return [
    (faulty, clean, cause)
    for faulty, clean in zip(faulty_fleet, clean_fleet, strict=True)
    for cause in faulty.interpretation
  ]


def test_sizes_names_and_roles(fleet: list[Machine]) -> None:
  assert len({machine.name for machine in fleet}) == 6
  assert collections.Counter(machine.role for machine in fleet) == {"role0": 3, "role1": 3}
  for machine in fleet:
    assert len(machine.metrics) == len(set(machine.metrics)) == 13
    assert machine.train.values.shape == (21 * ROWS_PER_DAY, 13)
    assert machine.test.values.shape == (14 * ROWS_PER_DAY, 13)
    assert machine.train.timestamps is not None
    assert machine.test.timestamps is not None
    times = np.concatenate([machine.train.timestamps, machine.test.timestamps])
    assert times.dtype == np.dtype("datetime64[ms]")
    assert np.all(np.diff(times) == np.timedelta64(600, "s"))


def test_same_seed_same_bits_other_seed_other_values(fleet: list[Machine]) -> None:
  for one, other in zip(fleet, simulate_fleet(SETTINGS), strict=True):
    assert one.train.values.tobytes() == other.train.values.tobytes()
    assert one.test.values.tobytes() == other.test.values.tobytes()
    assert one.interpretation == other.interpretation
  changed = simulate_fleet(dataclasses.replace(SETTINGS, random_seed=4))
  assert not np.array_equal(fleet[0].train.values, changed[0].train.values, equal_nan=True)


def test_a_machine_does_not_depend_on_how_many_there_are(clean_fleet: list[Machine]) -> None:
  settings = dataclasses.replace(SETTINGS, num_machines=2, faults_per_machine=0, missing_share=0.0)
  np.testing.assert_array_equal(simulate_fleet(settings)[1].train.values, clean_fleet[1].train.values)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
  return float(np.corrcoef(one, other)[0, 1])


def test_daily_and_weekly_rhythm(clean_fleet: list[Machine]) -> None:
  for machine in clean_fleet:
    x = machine.train.values[:, machine.metrics.index("requests")]
    week, half_day = 7 * ROWS_PER_DAY, ROWS_PER_DAY // 2
    by_week = _correlation(x[week:], x[:-week])
    assert by_week > 0.85
    assert by_week > _correlation(x[3 * ROWS_PER_DAY :], x[: -3 * ROWS_PER_DAY])  # a Saturday is no Tuesday
    assert _correlation(x[half_day:], x[:-half_day]) < 0.2


def test_metrics_go_together_and_machines_of_a_role_are_alike(clean_fleet: list[Machine]) -> None:
  for machine in clean_fleet:
    column = machine.metrics.index
    values = machine.train.values
    assert _correlation(values[:, column("requests")], values[:, column("net_in")]) > 0.9
    assert _correlation(values[:, column("requests")], values[:, column("connections")]) > 0.7
    assert _correlation(values[:, column("cpu_user")], values[:, column("load_1")]) > 0.5
  same: list[float] = []
  other: list[float] = []
  for one, two in itertools.combinations(clean_fleet, 2):
    value = _correlation(one.train.values[:, 9], two.train.values[:, 9])
    (same if one.role == two.role else other).append(value)
  assert min(same) > max(other)


def test_one_counter_with_a_reset_and_one_constant(fleet: list[Machine]) -> None:
  for machine in fleet:
    is_counter = find_counters(machine.train.values)
    assert [machine.metrics[i] for i in np.flatnonzero(is_counter)] == ["uptime_bytes_total"]
    for split in (machine.train, machine.test):
      seen = split.values[:, is_counter][:, 0]
      assert np.sum(np.diff(seen[~np.isnan(seen)]) < 0) == 1
    constant = machine.train.values[:, machine.metrics.index("disk_size")]
    assert np.unique(constant[~np.isnan(constant)]).size == 1


def test_values_are_missing_in_stretches_but_not_in_faults(fleet: list[Machine]) -> None:
  for machine in fleet:
    assert machine.labels is not None
    for split in (machine.train, machine.test):
      lost = np.isnan(split.values)
      assert 0.01 <= lost.mean() < 0.02
      num_stretches = np.sum(lost[1:] & ~lost[:-1])
      assert lost.sum() / num_stretches >= 2
    assert not np.isnan(machine.test.values[machine.labels]).any()


def test_labels_are_the_causes_and_faults_keep_their_distance(fleet: list[Machine]) -> None:
  for machine in fleet:
    expected = np.zeros(len(machine.test.values), bool)
    for cause in machine.interpretation:
      assert cause.metrics
      assert not {machine.metrics[i] for i in cause.metrics} & {"uptime_bytes_total", "disk_size"}
      expected[cause.start : cause.end] = True
    np.testing.assert_array_equal(machine.labels, expected)
    assert machine.interpretation[0].start >= QUIET_ROWS
    for before, after in itertools.pairwise(machine.interpretation):
      assert after.start - before.end >= BETWEEN_ROWS


def test_every_cell_is_covered_evenly(fleet: list[Machine]) -> None:
  cells = collections.Counter((c.kind, c.strength) for machine in fleet for c in machine.interpretation)
  assert set(cells) == set(itertools.product(faults.KINDS, faults.STRENGTHS))
  assert set(cells.values()) == {3}


@pytest.mark.parametrize("seed", range(4))
def test_weak_faults_stay_inside_the_training_range(seed: int) -> None:
  num_weak = 0
  for machine in simulate_fleet(dataclasses.replace(SETTINGS, random_seed=seed)):
    low, high = np.nanmin(machine.train.values, axis=0), np.nanmax(machine.train.values, axis=0)
    for cause in machine.interpretation:
      if cause.strength == "weak":
        columns = list(cause.metrics)
        shown = machine.test.values[cause.start : cause.end, columns]
        assert np.all(shown >= low[columns][None, :])
        assert np.all(shown <= high[columns][None, :])
        num_weak += 1
  assert num_weak == 18


def test_faults_change_their_own_metrics_in_their_own_rows_only(
  faulty_fleet: list[Machine], clean_fleet: list[Machine]
) -> None:
  for faulty, clean in zip(faulty_fleet, clean_fleet, strict=True):
    np.testing.assert_array_equal(faulty.train.values, clean.train.values)
    allowed = np.zeros(faulty.test.values.shape, bool)
    for cause in faulty.interpretation:
      allowed[cause.start : cause.end, list(cause.metrics)] = True
    changed = faulty.test.values != clean.test.values
    assert not np.any(changed & ~allowed)
    assert np.mean(changed[allowed]) > 0.95


def test_each_kind_is_what_its_name_says(all_faults: list[Fault]) -> None:
  for faulty, clean, cause in all_faults:
    rows = slice(cause.start, cause.end)
    shown, normal = faulty.test.values[rows], clean.test.values[rows]
    first = cause.metrics[0]
    added = shown[:, first] - normal[:, first]
    if cause.kind == "spike":
      assert cause.end - cause.start == 2
    elif cause.kind == "level_shift":
      np.testing.assert_allclose(added, added[0], rtol=1e-6)
    elif cause.kind == "drift":
      np.testing.assert_allclose(np.diff(added), added[-1] / (len(added) - 1), rtol=1e-6)
    elif cause.kind == "frozen":
      assert np.all(shown[:, first] == clean.test.values[cause.start - 1, first])
    elif cause.kind == "swapped":
      np.testing.assert_array_equal(shown[:, list(cause.metrics)], normal[:, list(cause.metrics)[::-1]])
    else:
      past = clean.test.values[: cause.start, first]
      windows = np.lib.stride_tricks.sliding_window_view(past, len(shown))
      assert np.any(np.all(windows == shown[:, first][None, :], axis=1))


def _site(seed: int) -> faults.Site:
  rng = np.random.default_rng(seed)
  angle = np.arange(1200) * 2 * np.pi / 144
  expected = np.stack([50 + 20 * np.cos(angle + phase) for phase in (0.0, 1.0, 1.5)], axis=1)
  noise = np.array([1.0, 1.0, 0.0])
  values = expected + rng.normal(size=expected.shape) * noise[None, :]
  return faults.Site(values, expected, noise, values.min(axis=0), values.max(axis=0), ((0, 1),))


@pytest.mark.parametrize("kind", faults.KINDS)
@pytest.mark.parametrize("strength", faults.STRENGTHS)
def test_strength_is_the_mean_change_in_noise_deviations(kind: str, strength: str) -> None:
  site = _site(0)
  wanted = {"weak": 3, "middle": 6, "strong": 12}[strength]
  for seed in range(5):
    cause, shown = faults.inject(site, 100, 900, kind, strength, np.random.default_rng(seed))
    assert 100 <= cause.start <= 900
    assert 2 not in cause.metrics  # without noise: not to be touched
    rows, columns = slice(cause.start, cause.end), list(cause.metrics)
    distance = np.abs(shown - site.expected[rows, columns]).mean(axis=0)
    # what is shown has the metrics' own noise on top of the change
    assert np.all(distance > 0.6 * wanted)
    assert np.all(distance < 1.5 * wanted + 3)
    if strength == "weak":
      assert np.all((shown >= site.low[columns][None, :]) & (shown <= site.high[columns][None, :]))


def test_a_fault_without_a_place_is_refused() -> None:
  site = _site(0)
  flat = site._replace(expected=np.full_like(site.expected, 50.0), values=np.full_like(site.values, 50.0))
  with pytest.raises(ValueError, match="no place for a strong frozen fault in test rows 100 to 900"):
    faults.inject(flat, 100, 900, "frozen", "strong", np.random.default_rng(0))


def _recall(fleet: list[Machine], from_others: bool) -> dict[str, float]:
  """Returns recall by strength at one false alarm a day, by least squares from the other metrics of the row
  and the last three rows of all, or by the training range."""
  hits = collections.defaultdict(list)
  for machine in fleet:
    assert machine.labels is not None
    keep = slice(0, 11)  # neither counter nor constant
    train, test = machine.train.values[:, keep], machine.test.values[:, keep]
    if from_others:
      errors = []
      for index in range(train.shape[1]):
        inputs = []
        for values in (train, test):
          others = np.delete(values, index, axis=1)[3:]
          past = [values[3 - lag : len(values) - lag] for lag in (1, 2, 3)]
          inputs.append(np.hstack([others, *past, np.ones((len(others), 1))]))
        weights = np.linalg.lstsq(inputs[0][:2000], train[3:2003, index], rcond=None)[0]
        held_out = train[2103:, index] - inputs[0][2100:] @ weights
        errors.append(np.abs(test[3:, index] - inputs[1] @ weights) / held_out.std())
      score = np.append(np.zeros(3), np.max(errors, axis=0))
    else:
      low, high = train.min(axis=0), train.max(axis=0)
      score = np.max(np.maximum(low - test, test - high) / (high - low), axis=1)
    normal = np.sort(score[~machine.labels])[::-1]
    threshold = max(float(normal[SETTINGS.test_days]), 0.0)
    for cause in machine.interpretation:
      hits[cause.strength].append(score[cause.start : cause.end].max() > threshold)
  return {strength: float(np.mean(values)) for strength, values in hits.items()}


def test_context_shows_the_faults_and_the_training_range_does_not(faulty_fleet: list[Machine]) -> None:
  by_context, by_range = _recall(faulty_fleet, True), _recall(faulty_fleet, False)
  assert by_context["middle"] >= 0.8
  assert by_context["strong"] >= 0.9
  assert by_context["weak"] < by_context["strong"]
  assert by_range["weak"] <= 0.15
  assert by_range["middle"] <= 0.4


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"num_metrics": 5}, "simulator num_metrics: 5 is out of range; allowed: 6 to 14"),
    ({"num_roles": 7}, "simulator num_roles: 7 is out of range; allowed: 1 to 6"),
    ({"noise": float("nan")}, "simulator noise: nan is out of range"),
    ({"step_s": 0}, "simulator step_s: 0 is out of range"),
    ({"faults_per_machine": 100}, "simulator faults_per_machine: 100 leaves 19 test rows to each fault"),
  ],
)
def test_wrong_settings_are_refused(change: dict[str, Any], message: str) -> None:
  with pytest.raises(ValueError, match=message):
    simulate_fleet(dataclasses.replace(SETTINGS, **change))


@pytest.mark.parametrize("num_metrics", [6, 14])
def test_smallest_and_largest_metric_lists(num_metrics: int) -> None:
  settings = dataclasses.replace(SETTINGS, num_metrics=num_metrics, num_machines=2)
  for machine in simulate_fleet(settings):
    assert machine.train.values.shape[1] == num_metrics
    assert machine.metrics[-2:] == ("uptime_bytes_total", "disk_size")
