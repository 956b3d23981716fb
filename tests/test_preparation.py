"""Preparation: fitted on the fit part alone, applied without looking, counted and refused by name."""

import dataclasses
import json

import numpy as np
import pytest

from mtad_jax.config import DataConfig
from mtad_jax.data.machine import Machine, Series, empty_series
from mtad_jax.data.preparation import apply_preparation, fit_preparation, from_json, own_values, to_json

WINDOW = 20
SETTINGS = DataConfig()
METRICS = ("cpu", "bytes_total", "size", "gone", "queue")


def _times(num_rows: int) -> np.ndarray:
  return np.datetime64("2024-01-01", "ms") + np.arange(num_rows) * np.timedelta64(5, "m")


def _values(num_rows: int, seed: int) -> np.ndarray:
  rng = np.random.default_rng(seed)
  load = np.sin(np.arange(num_rows) / 40) + rng.normal(size=num_rows) * 0.1
  total = 1e9 + np.cumsum(rng.integers(1, 100, num_rows))
  queue = rng.normal(size=num_rows)
  return np.stack([load, total, np.full(num_rows, 64.0), np.full(num_rows, np.nan), queue], axis=1)


def _machine(num_rows: int = 1500, values: np.ndarray | None = None) -> Machine:
  values = _values(num_rows, 0) if values is None else values
  train = Series(values, _times(len(values)))
  return Machine("web-1", "web", METRICS, train, Series(_values(400, 1), _times(400)))


def test_every_step_is_taken_and_counted() -> None:
  values = _values(1500, 0)
  values[100:110, 4] = np.nan
  values[500, 4] += 40
  machine = _machine(values=values)
  preparation, split, parts, notes = fit_preparation(machine, WINDOW, SETTINGS)
  assert notes["counters"] == ["bytes_total"]
  assert notes["never_seen"] == ["gone"]
  assert notes["constant"] == ["size", "gone"]
  assert notes["filled_share"]["queue"] == pytest.approx(10 / 1500)
  assert notes["filled_share"]["gone"] == 1.0
  assert 0 < notes["cleaned_share"]["queue"] < 0.05
  assert notes["gap_rows"] == WINDOW
  assert preparation.step_s == 300.0
  assert split.values.dtype == np.float32
  assert np.all(np.isfinite(split.values))
  assert split.filled[100:110, 4].all()
  assert split.usable.all()
  assert split.values[: parts.fit[1]].min() >= 0.0
  assert split.values[: parts.fit[1]].max() <= 1.0
  assert split.values[500, 4] < 0.95  # the spike went before the scaler was fitted
  json.dumps(notes, allow_nan=False)


def test_nothing_after_the_fit_part_is_fitted_on() -> None:
  machine = _machine()
  preparation, split, parts, _ = fit_preparation(machine, WINDOW, SETTINGS)
  changed = machine.train.values.copy()
  changed[parts.fit[1] :] *= 3
  other, other_split, _, _ = fit_preparation(_machine(values=changed), WINDOW, SETTINGS)
  assert to_json(preparation) == to_json(other)
  np.testing.assert_array_equal(split.values[: parts.fit[1]], other_split.values[: parts.fit[1]])


def test_only_the_fit_part_is_cleaned() -> None:
  values = _values(1500, 0)
  values[[400, 1450], 4] += 40
  machine = _machine(values=values)
  _, split, parts, _ = fit_preparation(machine, WINDOW, SETTINGS)
  assert parts.check[0] < 1450
  assert split.values[1450, 4] == 1.0 + SETTINGS.clip_margin
  assert split.values[400, 4] <= 1.0


def test_excluded_rows_are_marked_and_not_fitted_on() -> None:
  values = _values(1500, 0)
  values[200:300, 0] = 50.0
  machine = _machine(values=values)
  settings = dataclasses.replace(SETTINGS, exclude=("web-1:200-300", "web-2:0-5"))
  preparation, split, _, notes = fit_preparation(machine, WINDOW, settings)
  assert notes["excluded_rows"] == 100
  np.testing.assert_array_equal(np.flatnonzero(~split.usable), np.arange(200, 300))
  assert preparation.scaler.maximum[0] < 2.0


def test_excluded_times_cover_the_slots_of_a_gap() -> None:
  keep = np.r_[0:250, 260:1500]
  machine = _machine()._replace(train=Series(_values(1500, 0)[keep], _times(1500)[keep]))
  span = f"{_times(1500)[240]}/{_times(1500)[270]}"
  settings = dataclasses.replace(SETTINGS, exclude=(f"web-1:{span}",))
  _, split, _, notes = fit_preparation(machine, WINDOW, settings)
  np.testing.assert_array_equal(np.flatnonzero(~split.usable), np.arange(240, 271))
  assert notes["excluded_rows"] == 21
  assert len(split.row_to_grid) == 1490


def test_applying_to_the_training_rows_gives_the_training_split() -> None:
  settings = dataclasses.replace(SETTINGS, clean=False)
  machine = _machine()
  preparation, split, _, _ = fit_preparation(machine, WINDOW, settings)
  again = apply_preparation(preparation, machine.train, settings)
  np.testing.assert_array_equal(again.values, split.values)
  np.testing.assert_array_equal(again.filled, split.filled)


def test_applying_is_causal_and_does_not_look_at_the_batch() -> None:
  machine = _machine()
  preparation, _, _, _ = fit_preparation(machine, WINDOW, SETTINGS)
  whole = apply_preparation(preparation, machine.test, SETTINGS)
  for end in (2, 57, 399):
    assert machine.test.timestamps is not None
    part = Series(machine.test.values[:end], machine.test.timestamps[:end])
    np.testing.assert_array_equal(apply_preparation(preparation, part, SETTINGS).values, whole.values[:end])


def test_outside_share_is_per_metric() -> None:
  machine = _machine()
  preparation, _, _, _ = fit_preparation(machine, WINDOW, SETTINGS)
  values = machine.test.values.copy()
  values[:100, 2] = 65.0
  split = apply_preparation(preparation, machine.test._replace(values=values), SETTINGS)
  assert split.outside_share[2] == 0.25


def test_own_values_are_what_the_file_held() -> None:
  """Neither clipped nor filled; a counter as its growth per step, after a gap shared over the steps passed."""
  preparation, _, _, _ = fit_preparation(_machine(), WINDOW, SETTINGS)
  series = Series(_values(100, 3), _times(100))
  series.values[50, 4] = 1e6
  series.values[60:62, 4] = np.nan
  series.values[70:72, 1] = np.nan
  found = own_values(preparation, series)
  np.testing.assert_array_equal(found[:, [0, 2, 3, 4]], series.values[:, [0, 2, 3, 4]])
  assert found[40, 1] == series.values[40, 1] - series.values[39, 1]
  assert np.isnan(found[70:72, 1]).all()
  assert found[72, 1] == (series.values[72, 1] - series.values[69, 1]) / 3


def test_an_empty_series_has_no_rows() -> None:
  preparation, _, _, _ = fit_preparation(_machine(), WINDOW, SETTINGS)
  split = apply_preparation(preparation, empty_series(len(METRICS)), SETTINGS)
  assert split.values.shape == (0, 5)
  np.testing.assert_array_equal(split.outside_share, np.zeros(5))


def test_json_round_trip_is_exact() -> None:
  machine = _machine()
  preparation, _, _, _ = fit_preparation(machine, WINDOW, SETTINGS)
  text = json.dumps(to_json(preparation), allow_nan=False)
  again = from_json(json.loads(text))
  assert to_json(again) == to_json(preparation)
  np.testing.assert_array_equal(
    apply_preparation(again, machine.test, SETTINGS).values,
    apply_preparation(preparation, machine.test, SETTINGS).values,
  )


def test_a_damaged_json_names_the_field() -> None:
  values = to_json(fit_preparation(_machine(), WINDOW, SETTINGS)[0])
  del values["scaler"]["maximum"]
  with pytest.raises(ValueError, match=r"field 'scaler.maximum' is missing"):
    from_json(values)


def test_series_without_timestamps_and_counters_left_alone() -> None:
  machine = _machine()
  machine = machine._replace(train=machine.train._replace(timestamps=None))
  settings = dataclasses.replace(SETTINGS, counters="none")
  preparation, _, _, notes = fit_preparation(machine, WINDOW, settings)
  assert preparation.step_s is None
  assert notes["counters"] == []
  assert preparation.scaler.minimum[1] > 9e8


def test_a_machine_of_constants_is_refused_by_name() -> None:
  with pytest.raises(ValueError, match=r"machine web-1, train: all 5 metrics are constant"):
    fit_preparation(_machine(values=np.ones((500, 5))), WINDOW, SETTINGS)


def test_a_machine_of_constants_is_accepted_on_request() -> None:
  machine = _machine(values=np.ones((500, 5)))
  preparation, split, _, notes = fit_preparation(machine, WINDOW, SETTINGS, accept_constant=True)
  assert notes["constant"] == list(METRICS)
  np.testing.assert_array_equal(split.values, np.zeros((500, 5), np.float32))
  left = apply_preparation(preparation, Series(np.full((3, 5), 2.0)), SETTINGS)
  np.testing.assert_array_equal(left.values, np.ones((3, 5), np.float32))


def test_a_short_split_is_refused_by_name_and_rows() -> None:
  with pytest.raises(ValueError, match=r"machine web-1, train: .* 25 rows; window_size 20 needs at least 28"):
    fit_preparation(_machine(25), WINDOW, SETTINGS)


def test_an_empty_training_split_is_refused() -> None:
  machine = _machine()._replace(train=empty_series(5))
  with pytest.raises(ValueError, match=r"machine web-1, train: .* 0 rows"):
    fit_preparation(machine, WINDOW, SETTINGS)


def test_excluding_everything_is_refused() -> None:
  settings = dataclasses.replace(SETTINGS, exclude=("*:0-1200",))
  with pytest.raises(ValueError, match=r"machine web-1, train: 0 of \d+ fit rows are left"):
    fit_preparation(_machine(), WINDOW, settings)


def test_another_number_of_metrics_is_refused() -> None:
  preparation, _, _, _ = fit_preparation(_machine(), WINDOW, SETTINGS)
  with pytest.raises(ValueError, match="series has 4 metrics; the training split has 5"):
    apply_preparation(preparation, empty_series(4), SETTINGS)
