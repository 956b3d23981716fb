"""The input contract: what is put right, what is ignored by flag, what is refused and by which words."""

from typing import Any

import numpy as np
import pytest

from mtad_jax.config import DataConfig
from mtad_jax.data.contract import check_contract
from mtad_jax.data.machine import Machine, Series, empty_series
from mtad_jax.data.preparation import Preparation, fit_preparation

SETTINGS = DataConfig()
METRICS = ("cpu", "mem", "net")


def _series(num_rows: int, step_s: int, num_metrics: int = 3) -> Series:
  values = np.random.default_rng(0).normal(size=(num_rows, num_metrics))
  times = np.datetime64("2024-01-01", "ms") + np.arange(num_rows) * np.timedelta64(step_s, "s")
  return Series(values, times)


@pytest.fixture(scope="module")
def preparation() -> Preparation:
  machine = Machine("web-1", "web", METRICS, _series(400, 60), empty_series(3))
  return fit_preparation(machine, 10, SETTINGS)[0]


def _check(
  preparation: Preparation, metrics: tuple[str, ...], series: Series | None = None, **changes: Any
) -> Any:
  series = _series(50, 60, len(metrics)) if series is None else series
  options: dict[str, Any] = {"named": True, "extra": "refuse", **changes}
  return check_contract(preparation, "web-1", metrics, series, SETTINGS, **options)


def test_same_names_pass(preparation: Preparation) -> None:
  np.testing.assert_array_equal(_check(preparation, METRICS), [0, 1, 2])


def test_another_order_is_put_right(preparation: Preparation) -> None:
  np.testing.assert_array_equal(_check(preparation, ("net", "cpu", "mem")), [1, 2, 0])


def test_extra_metrics_are_ignored_by_flag_only(preparation: Preparation) -> None:
  names = ("disk", "net", "cpu", "mem")
  np.testing.assert_array_equal(_check(preparation, names, extra="ignore"), [2, 3, 1])
  with pytest.raises(ValueError, match="machine web-1: metrics that training did not have: disk"):
    _check(preparation, names)


def test_missing_metrics_are_refused_by_name(preparation: Preparation) -> None:
  with pytest.raises(ValueError, match="machine web-1: metrics missing that training had: mem, net"):
    _check(preparation, ("cpu",))


def test_a_renamed_metric_is_refused_with_both_names(preparation: Preparation) -> None:
  with pytest.raises(ValueError, match=r"mem \(is memory the same, renamed\?\)"):
    _check(preparation, ("cpu", "memory", "net"), extra="ignore")


def test_a_repeated_name_is_refused(preparation: Preparation) -> None:
  with pytest.raises(ValueError, match="metric 'cpu' is there more than once"):
    _check(preparation, ("cpu", "cpu", "net"))


def test_unnamed_columns_need_the_same_count(preparation: Preparation) -> None:
  np.testing.assert_array_equal(_check(preparation, ("0", "1", "2"), named=False), [0, 1, 2])
  with pytest.raises(ValueError, match="2 unnamed columns, training had 3 metrics"):
    _check(preparation, ("0", "1"), named=False)


@pytest.mark.parametrize("step_s", [30, 64, 300])
def test_another_sampling_step_is_refused_with_both(preparation: Preparation, step_s: int) -> None:
  with pytest.raises(ValueError, match=f"sampling step is {step_s} s, in training it was 60 s"):
    _check(preparation, METRICS, _series(50, step_s))


def test_a_step_within_tolerance_and_none_at_all_pass(preparation: Preparation) -> None:
  _check(preparation, METRICS, _series(50, 62))
  _check(preparation, METRICS, _series(50, 60)._replace(timestamps=None))
  _check(preparation, METRICS, empty_series(3))


def test_too_many_missing_values_are_refused(preparation: Preparation) -> None:
  series = _series(50, 60)
  series.values[:30] = np.nan
  with pytest.raises(ValueError, match=r"60.0% of the values are missing; at most 50.0% are allowed"):
    _check(preparation, METRICS, series)


def test_a_wrong_clock_names_the_machine(preparation: Preparation) -> None:
  series = _series(50, 60)
  assert series.timestamps is not None
  series.timestamps[-1] += np.timedelta64(365, "D")
  with pytest.raises(ValueError, match=r"machine web-1: row 49: .* at most 50 slots per row"):
    _check(preparation, METRICS, series)


def test_columns_must_match_their_names(preparation: Preparation) -> None:
  with pytest.raises(ValueError, match="machine web-1: 2 columns but 3 metric names"):
    _check(preparation, METRICS, _series(50, 60, 2))
