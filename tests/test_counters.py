"""Counters: found by their shape, turned into rates, across resets and gaps."""

import numpy as np

from mtad_jax.data.counters import difference, find_counters

ONE = np.array([True])
NAN = np.nan


def _counter(rng: np.random.Generator, num_rows: int) -> np.ndarray:
  return np.cumsum(rng.integers(0, 50, num_rows)).astype(np.float64) + 2e9


def test_only_ever_rising_metrics_are_counters() -> None:
  rng = np.random.default_rng(0)
  num_rows = 3000
  counter = _counter(rng, num_rows)
  reset = counter - counter[0]
  reset[1500:] -= reset[1500]
  gappy = counter.copy()
  gappy[100:160] = NAN
  noise = rng.normal(size=num_rows) + 10
  walk = np.cumsum(rng.normal(size=num_rows)) + 500
  steps = np.repeat(np.arange(30.0), 100)  # rises, but seldom
  sawtooth = np.arange(num_rows) % 100.0  # falls too often
  dip = counter.copy()
  dip[2000:] -= 1e6  # a fall that is no reset
  values = np.stack([counter, reset, gappy, noise, walk, steps, sawtooth, dip, np.ones(num_rows)], axis=1)
  expected = [True, True, True, False, False, False, False, False, False]
  np.testing.assert_array_equal(find_counters(values), expected)


def test_a_metric_without_values_or_with_few_is_no_counter() -> None:
  values = np.full((100, 2), NAN)
  values[:15, 1] = np.arange(15)
  assert not find_counters(values).any()


def test_rates_sum_to_the_growth() -> None:
  counter = _counter(np.random.default_rng(1), 500)[:, None]
  rates = difference(counter, ONE)
  np.testing.assert_array_equal(counter[0] + np.cumsum(rates[1:, 0]), counter[1:, 0])
  assert rates[0, 0] == rates[1, 0]


def test_at_a_reset_the_rate_is_the_new_value() -> None:
  values = np.array([[100.0], [110.0], [4.0], [9.0]])
  np.testing.assert_array_equal(difference(values, ONE)[:, 0], [10, 10, 4, 5])


def test_growth_across_a_gap_is_divided_by_the_steps_passed() -> None:
  values = np.array([[10.0], [12.0], [NAN], [NAN], [21.0], [22.0]])
  np.testing.assert_array_equal(difference(values, ONE)[:, 0], [2, 2, NAN, NAN, 3, 1])


def test_the_row_before_is_used_where_it_is_known() -> None:
  values = np.array([[12.0], [15.0]])
  np.testing.assert_array_equal(difference(values, ONE, np.array([10.0]))[:, 0], [2, 3])
  np.testing.assert_array_equal(difference(values, ONE, np.array([NAN]))[:, 0], [3, 3])


def test_rates_are_causal_from_the_second_row() -> None:
  values = _counter(np.random.default_rng(2), 60)[:, None]
  values[20:31] = NAN
  whole = difference(values, ONE)
  for end in range(2, 60):
    np.testing.assert_array_equal(difference(values[:end], ONE), whole[:end])


def test_other_metrics_and_short_series_pass_through() -> None:
  values = np.array([[5.0, 1.0], [7.0, NAN]])
  result = difference(values, np.array([False, True]))
  np.testing.assert_array_equal(result, [[5.0, NAN], [7.0, NAN]])
  assert difference(np.zeros((0, 2)), np.array([True, True])).shape == (0, 2)
