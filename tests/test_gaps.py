"""Grid and filling: against a slow loop, and the refusals."""

import numpy as np
import pytest

from mtad_jax.data.gaps import Grid, fill, grid_step, place_on_grid, sampling_step
from mtad_jax.data.machine import Series, empty_series

NAN = np.nan


def put_on_grid(series: Series, step_s: float | None, leading_fill: np.ndarray) -> Grid:
  """The series on its grid with every gap filled, as the preparation does it in two steps."""
  grid = place_on_grid(series, step_s)
  return grid._replace(values=fill(grid.values, leading_fill))


def _times(seconds: list[float]) -> np.ndarray:
  start = np.datetime64("2024-01-01T00:00:00", "ms")
  return start + np.array([round(1000 * s) for s in seconds]).astype("timedelta64[ms]")


def _fill_slowly(values: np.ndarray, leading: np.ndarray) -> np.ndarray:
  result = values.copy()
  for column in range(values.shape[1]):
    last = leading[column]
    for row in range(len(values)):
      last = last if np.isnan(values[row, column]) else values[row, column]
      result[row, column] = last
  return result


def test_filling_agrees_with_a_loop() -> None:
  rng = np.random.default_rng(0)
  values = rng.normal(size=(200, 4))
  values[rng.random(values.shape) < 0.4] = NAN
  values[:7, 0] = NAN
  values[:, 3] = NAN
  leading = np.array([5.0, 6.0, 7.0, 8.0])
  grid = put_on_grid(Series(values), None, leading)
  np.testing.assert_array_equal(grid.values, _fill_slowly(values, leading))
  np.testing.assert_array_equal(grid.filled, np.isnan(values))
  np.testing.assert_array_equal(grid.row_to_grid, np.arange(200))


def test_filling_is_causal() -> None:
  values = np.array([[1.0], [NAN], [3.0], [NAN], [9.0]])
  whole = put_on_grid(Series(values), None, np.zeros(1)).values
  for end in range(1, 6):
    part = put_on_grid(Series(values[:end]), None, np.zeros(1)).values
    np.testing.assert_array_equal(part, whole[:end])


def test_jittered_rows_go_to_the_nearest_slot_and_gaps_are_filled() -> None:
  series = Series(np.array([[1.0], [2.0], [3.0], [4.0]]), _times([0, 62, 118, 300]))
  grid = put_on_grid(series, 60.0, np.zeros(1))
  np.testing.assert_array_equal(grid.row_to_grid, [0, 1, 2, 5])
  np.testing.assert_array_equal(grid.values[:, 0], [1, 2, 3, 3, 3, 4])
  np.testing.assert_array_equal(grid.filled[:, 0], [False, False, False, True, True, False])


def test_two_rows_in_one_slot_the_later_wins_and_is_counted() -> None:
  series = Series(np.array([[1.0], [2.0], [3.0]]), _times([0, 58, 63]))
  grid = put_on_grid(series, 60.0, np.zeros(1))
  np.testing.assert_array_equal(grid.values[:, 0], [1, 3])
  np.testing.assert_array_equal(grid.row_to_grid, [0, 1, 1])
  assert grid.num_collisions == 1


def test_sampling_step_is_the_median_in_seconds() -> None:
  assert sampling_step(Series(np.zeros((4, 1)), _times([0, 0.5, 1.0, 9.0]))) == 0.5
  assert sampling_step(Series(np.zeros((4, 1)))) is None
  assert sampling_step(Series(np.zeros((1, 1)), _times([0]))) is None


def test_regular_timestamps_change_nothing() -> None:
  values = np.random.default_rng(1).normal(size=(50, 3))
  grid = put_on_grid(Series(values, _times([300.0 * i for i in range(50)])), 300.0, np.zeros(3))
  np.testing.assert_array_equal(grid.values, values)
  assert not grid.filled.any()
  assert grid.num_collisions == 0


@pytest.mark.parametrize("timestamps", [None, _times([])])
def test_a_series_without_rows(timestamps: np.ndarray | None) -> None:
  grid = put_on_grid(Series(empty_series(3).values, timestamps), 60.0, np.zeros(3))
  assert grid.values.shape == (0, 3)
  assert len(grid.row_to_grid) == 0


def test_a_wrong_clock_is_refused() -> None:
  series = Series(np.zeros((3, 1)), _times([0, 60, 60 * 1000]))
  with pytest.raises(ValueError, match=r"row 2: .* grid of 1001 slots of 60 s for 3 rows; at most 50"):
    place_on_grid(series, 60.0)


def test_timestamps_that_do_not_rise_are_refused() -> None:
  with pytest.raises(ValueError, match=r"row 2: timestamp .* does not come after"):
    place_on_grid(Series(np.zeros((3, 1)), _times([0, 60, 60])), 60.0)


def test_infinite_values_are_refused() -> None:
  with pytest.raises(ValueError, match=r"row 1, column 0: inf is not allowed"):
    place_on_grid(Series(np.array([[1.0], [np.inf]])), None)


def test_a_step_of_zero_is_refused() -> None:
  with pytest.raises(ValueError, match=r"sampling step 0.0 s is not allowed"):
    place_on_grid(Series(np.zeros((2, 1)), _times([0, 60])), 0.0)


def test_jitter_on_every_row_of_a_long_record_never_drifts_off_the_grid() -> None:
  rng = np.random.default_rng(0)
  num_rows = 5000
  milliseconds = np.arange(num_rows) * 60_000 + rng.integers(-9_000, 9_000, num_rows)
  series = Series(np.arange(num_rows, dtype=float)[:, None], milliseconds.astype("datetime64[ms]"))
  step_s = grid_step(series)
  assert abs(step_s - 60) < 0.01
  whole = place_on_grid(series, step_s)
  np.testing.assert_array_equal(whole.row_to_grid, np.arange(num_rows))
  assert whole.num_collisions == 0
  later = Series(series.values[:100], series.timestamps[:100] + np.timedelta64(90, "D"))
  np.testing.assert_array_equal(place_on_grid(later, step_s).row_to_grid, np.arange(100))


def test_gaps_and_late_rows_leave_the_grid_step_as_it_is() -> None:
  seconds = [0.0, 60, 132, 180, 240, 900, 960, 1020]
  series = Series(np.zeros((len(seconds), 1)), _times(seconds))
  assert grid_step(series) == 60
  assert grid_step(Series(np.zeros((1, 1)), _times([0.0]))) is None


def test_a_finer_record_on_a_coarser_grid_keeps_the_given_step() -> None:
  milliseconds = np.arange(60) * 10_000
  series = Series(np.arange(60, dtype=float)[:, None], milliseconds.astype("datetime64[ms]"))
  grid = place_on_grid(series, 60.0)
  assert len(grid.values) == 11  # 0 to 590 s, nearest slot
  assert grid.values[0, 0] == 2  # the latest row within half a step
