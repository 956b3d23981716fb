"""The linear skip: fitted as an oracle fits it, where training begins, and never moved by a step."""

import dataclasses
import math

import jax
import numpy as np
import pytest
import tiny
from scipy import linalg

from mtad_jax.data.fleet import prepare_groups, training_rows
from mtad_jax.model.network import apply
from mtad_jax.train import loop
from mtad_jax.train.linear_fit import PENALTIES, fit_linear, fit_linear_skips

CONFIG = tiny.make_config(model={"linear_rows": 4}, train={"num_train_steps": 6})
GROUP = tiny.make_group(CONFIG, (220, 260))
W = CONFIG.model.window_size


def oracle(values: np.ndarray, fit: np.ndarray, targets: list[int], num_rows: int, penalty: float) -> np.ndarray:
  """Returns [L F + 1, F'] by least squares on rows added for the penalty; the intercept is free of it."""
  inputs = np.stack([values[row - num_rows : row].ravel() for row in fit])
  size = inputs.shape[1]
  rows = np.concatenate([inputs, math.sqrt(penalty) * np.eye(size)])
  ones = np.concatenate([np.ones(len(fit)), np.zeros(size)])[:, None]
  wanted = np.concatenate([values[fit][:, targets], np.zeros((size, len(targets)))])
  return linalg.lstsq(np.concatenate([rows, ones], axis=1), wanted)[0]


def test_the_fit_is_ridge_regression_with_the_penalty_that_validates_best():
  rng = np.random.default_rng(0)
  values = (np.cumsum(rng.normal(size=(400, 3)), axis=0) * 0.05 + 7).astype(np.float32)
  fit, validation, targets = np.arange(20, 300), np.arange(320, 390), [2, 0]
  kernel, bias = fit_linear(values, fit, validation, targets, 4)
  errors = {}
  for penalty in PENALTIES:
    found = oracle(values.astype(np.float64), fit, targets, 4, penalty)
    inputs = np.stack([values[row - 4 : row].ravel() for row in validation]).astype(np.float64)
    errors[penalty] = np.sum((values[validation][:, targets] - inputs @ found[:-1] - found[-1]) ** 2)
  best = oracle(values.astype(np.float64), fit, targets, 4, min(errors, key=errors.get))
  np.testing.assert_allclose(kernel, best[:-1], atol=1e-5)
  np.testing.assert_allclose(bias, best[-1], atol=1e-4)


def test_a_linear_series_is_foretold_exactly():
  values = np.zeros((200, 2), np.float32)
  values[:2] = [[0.3, 0.7], [0.5, 0.2]]
  for t in range(2, 200):
    values[t] = [1.6 * values[t - 1, 0] - 0.99 * values[t - 2, 0], 0.5 * values[t - 1, 0] + 0.1]
  kernel, bias = fit_linear(values, np.arange(10, 150), np.arange(160, 200), [0, 1], 4)
  inputs = np.stack([values[row - 4 : row].ravel() for row in range(160, 200)])
  np.testing.assert_allclose(inputs @ kernel + bias, values[160:200], atol=0.01)


def test_rows_that_are_not_finite_lose_themselves_and_no_others():
  rng = np.random.default_rng(0)
  values = (np.cumsum(rng.normal(size=(400, 3)), axis=0) * 0.05).astype(np.float32)
  fit, validation = np.arange(20, 300), np.arange(320, 390)
  broken = values.copy()
  broken[100, 1], broken[350, 0] = np.nan, np.inf
  found = fit_linear(broken, fit, validation, [0], 4)
  kept = np.concatenate([np.arange(20, 100), np.arange(105, 300)])
  wanted = fit_linear(values, kept, np.setdiff1d(validation, np.arange(350, 355)), [0], 4)
  for a, b in zip(found, wanted, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
  for array in fit_linear(np.full((400, 3), np.nan, np.float32), fit, validation, [0], 4):
    np.testing.assert_array_equal(array, 0)


def test_validation_rows_beyond_the_fit_part_alone_choose_and_nothing_later_is_read():
  machine = GROUP.machines[0]
  changed = machine.train.values.copy()
  changed[machine.parts.calibration[0] :] += 3.0
  other = machine._replace(train=machine.train._replace(values=changed))
  mine = fit_linear_skips(GROUP, CONFIG, [0, 1])
  again = fit_linear_skips(GROUP._replace(machines=(other, GROUP.machines[1])), CONFIG, [0, 1])
  for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(again), strict=True):
    np.testing.assert_array_equal(a, b)
  alone = fit_linear_skips(GROUP, CONFIG, [1])
  np.testing.assert_array_equal(mine["linear"]["kernel"][1], alone["linear"]["kernel"][0])


def trained(path, steps: int, config=CONFIG, first_params=None):
  """Returns the parameters [M, ...] after so many steps, and the group's fitted blocks."""
  config = dataclasses.replace(config, train=dataclasses.replace(config.train, num_train_steps=steps))
  runner = loop._Runner(GROUP, 0, config, path, {"run_id": "x"})
  try:
    state = runner.begin(first_params)
    if steps > 1:
      state = runner._programs.run(state, runner._arrays, steps, steps)
    return jax.device_get(state.params)
  finally:
    runner.close()


def test_training_begins_at_the_skip_s_forecast_and_no_step_moves_it(tmp_path):
  fitted = fit_linear_skips(GROUP, CONFIG, [0, 1])["linear"]
  first, later = trained(tmp_path / "a", 1), trained(tmp_path / "b", 6)
  for name, values in fitted.items():
    np.testing.assert_array_equal(first["linear"][name], values)
    np.testing.assert_array_equal(later["linear"][name], values)
  assert np.any(later["forecaster"]["output"]["kernel"] != 0)
  for lane, machine in enumerate(GROUP.machines):
    one = jax.tree.map(lambda x, lane=lane: x[lane], first)
    row = int(training_rows(machine, CONFIG)["validation"][0])
    window = machine.train.values[row - W : row]
    found = apply(one, window[None], settings=CONFIG.model, num_targets=3).forecast[0]
    kernel, bias = fitted["kernel"][lane].astype(np.float64), fitted["bias"][lane]
    np.testing.assert_allclose(found, window[-4:].ravel() @ kernel + bias, atol=1e-5)


def test_a_warm_start_takes_the_network_and_fits_the_skip_anew(tmp_path):
  other = jax.tree.map(lambda x: np.full_like(x, 0.25), trained(tmp_path / "a", 1))
  found = trained(tmp_path / "b", 1, first_params=lambda: other)
  np.testing.assert_array_equal(found["gru"]["input"]["kernel"], other["gru"]["input"]["kernel"])
  fitted = fit_linear_skips(GROUP, CONFIG, [0, 1])["linear"]
  np.testing.assert_array_equal(found["linear"]["kernel"], fitted["kernel"])


@pytest.mark.parametrize("changes", [{"linear_rows": 0}, {"run_mode": "RECONSTRUCTING"}])
def test_without_a_skip_there_is_no_such_block(tmp_path, changes):
  config = tiny.make_config(model=changes)
  assert fit_linear_skips(GROUP, config, [0, 1]) == {}
  assert "linear" not in trained(tmp_path / "a", 1, config)


def test_a_window_shorter_than_the_skip_is_read_whole(tmp_path):
  config = tiny.make_config(model={"linear_rows": 500})
  fitted = fit_linear_skips(prepare_groups([tiny.make_machine("machine-0", 220, seed=0)], config)[0], config, [0])
  assert fitted["linear"]["kernel"].shape == (1, config.model.window_size * 3, 3)
