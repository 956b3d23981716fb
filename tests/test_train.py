"""Training: lanes are independent, a skipped step is as if never taken, stopping and resuming changes nothing."""

import json
import shutil
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mtad_jax.data.fleet import training_arrays
from mtad_jax.train import loop
from mtad_jax.train.checkpoints import Checkpoints
from mtad_jax.train.fleet_step import make_programs, place
from mtad_jax.train.loop import train_group
from mtad_jax.train.metrics_log import read_metrics
from mtad_jax.train.run_length import total_steps
from mtad_jax.train.workdir import group_directory

CONFIG = tiny.make_config()
GROUP = tiny.make_group(CONFIG)
ARRAYS = training_arrays(GROUP, CONFIG)


@pytest.fixture(scope="module")
def programs():
  return make_programs(CONFIG, len(GROUP.metrics), GROUP.targets)


def assert_equal(a, b):
  """Every leaf bit-equal."""
  for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=jax.tree_util.keystr(path))


def lanes(tree, chosen):
  return jax.tree.map(lambda x: np.asarray(x)[np.array(chosen)], tree)


def test_one_seed_twice_is_bit_equal_and_the_cut_into_dispatches_changes_nothing(programs):
  arrays = place(ARRAYS)
  whole = programs.run(programs.init(ARRAYS.machine_ids), arrays, 7, 20)
  again = programs.run(programs.init(ARRAYS.machine_ids), arrays, 7, 20)
  cut = programs.init(ARRAYS.machine_ids)
  for num in (1, 4, 2):
    cut = programs.run(cut, arrays, num, 20)
  assert_equal(whole, again)
  assert_equal(whole, cut)


def test_another_seed_draws_other_parameters_and_batches(programs):
  other = make_programs(tiny.make_config(train={"random_seed": 1}), len(GROUP.metrics), GROUP.targets)
  a = programs.init(ARRAYS.machine_ids).params["gru"]["recurrent"]
  b = other.init(ARRAYS.machine_ids).params["gru"]["recurrent"]
  assert not np.allclose(a, b)


def test_a_lane_of_the_fleet_equals_the_machine_alone(programs):
  """To rounding: batched products may be summed in another order."""
  fleet = programs.run(programs.init(ARRAYS.machine_ids), place(ARRAYS), 10, 20)
  for lane in range(3):
    alone_group = GROUP._replace(machines=GROUP.machines[lane : lane + 1])
    arrays = training_arrays(alone_group, CONFIG)
    alone = programs.run(programs.init(arrays.machine_ids), place(arrays), 10, 20)
    for a, b in zip(
      jax.tree.leaves(lanes(fleet.params, [lane])), jax.tree.leaves(alone.params), strict=True
    ):
      np.testing.assert_allclose(a, b, atol=2e-5)


def test_nan_in_one_lane_skips_its_steps_and_leaves_the_others_bit_equal(programs):
  clean = programs.run(programs.init(ARRAYS.machine_ids), place(ARRAYS), 10, 20)
  values = ARRAYS.values.copy()
  values[1, :120] = np.nan
  state = programs.run(programs.init(ARRAYS.machine_ids), place(ARRAYS._replace(values=values)), 10, 20)
  skipped = np.asarray(state.guard.num_skipped)
  assert skipped[1] > 0
  assert skipped[0] == skipped[2] == 0
  assert_equal(lanes(clean, [0, 2]), lanes(state, [0, 2]))
  assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves((state.params, state.optimizer)))
  assert np.isfinite(np.asarray(state.sums.losses.total)).all()


def test_a_machine_whose_every_step_is_bad_keeps_its_first_parameters(programs):
  values = ARRAYS.values.copy()
  values[0] = np.inf
  first = jax.device_get(programs.init(ARRAYS.machine_ids))
  state = programs.run(programs.init(ARRAYS.machine_ids), place(ARRAYS._replace(values=values)), 5, 20)
  assert_equal(lanes(first.params, [0]), lanes(state.params, [0]))
  assert_equal(lanes(first.optimizer, [0]), lanes(state.optimizer, [0]))
  assert int(state.guard.num_skipped[0]) == 5
  assert int(state.guard.attempt[0]) == 1  # rolled back to where it stands


def test_training_lowers_the_validation_loss_and_keeps_the_best_state(programs):
  arrays = place(ARRAYS)
  state, before = programs.validate(programs.init(ARRAYS.machine_ids), arrays)
  before = np.asarray(before.total)
  state = programs.run(state, arrays, 150, 150)
  state, after = programs.validate(state, arrays)
  assert (np.asarray(after.total) < before).all()
  np.testing.assert_array_equal(np.asarray(state.best_loss), np.asarray(after.total))
  assert_equal(state.best_params, state.params)
  assert (np.asarray(state.best_step) == 150).all()


def unvalidated(state):
  """The state as a step leaves it: its parameters have not been validated."""
  return state._replace(is_validated=jnp.zeros_like(state.is_validated))


def test_a_worse_or_nan_validation_never_becomes_the_best(programs):
  arrays = place(ARRAYS)
  state, _ = programs.validate(programs.init(ARRAYS.machine_ids), arrays)
  best = jax.device_get(state.best_params)
  worse = jax.tree.map(lambda x: x + 3.0, state.params)
  state, _ = programs.validate(unvalidated(state)._replace(params=worse), arrays)
  assert_equal(best, state.best_params)
  broken = jax.tree.map(lambda x: x * jnp.nan, state.params)
  state, losses = programs.validate(unvalidated(state)._replace(params=broken), arrays)
  assert np.isnan(np.asarray(losses.total)).all()
  assert_equal(best, state.best_params)
  assert (np.asarray(state.num_worse) == 2).all()


def test_one_machine_stops_early_while_the_others_go_on():
  config = tiny.make_config(train={"patience": 2})
  programs = make_programs(config, len(GROUP.metrics), GROUP.targets)
  arrays = place(ARRAYS)
  state, _ = programs.validate(programs.init(ARRAYS.machine_ids), arrays)
  state = state._replace(best_loss=state.best_loss.at[1].set(-1e9))  # nothing will be better than this
  for _ in range(2):
    state = programs.run(state, arrays, 10, 40)
    state, _ = programs.validate(state, arrays)
  assert np.asarray(state.stopped).tolist() == [False, True, False]
  kept = lanes(jax.device_get(state), [1])
  state = programs.run(state, arrays, 5, 40)
  state, _ = programs.validate(state, arrays)
  assert_equal(kept._replace(tick=kept.tick + 5), lanes(state, [1]))
  assert np.asarray(state.tick).tolist() == [25] * 3
  assert np.asarray(state.step).tolist() == [25, 20, 25]


def checkpointed(workdir):
  checkpoints = Checkpoints(group_directory(workdir, 0), read_only=True)
  try:
    return checkpoints.read_tree(checkpoints.steps()[-1])
  finally:
    checkpoints.close()


def train(workdir, config=CONFIG):
  workdir.mkdir(exist_ok=True)
  return train_group(GROUP, 0, config, workdir, {"run_id": "x", "versions": {}})


def test_stopping_and_resuming_equals_never_having_stopped(tmp_path, monkeypatch):
  """Stopped by SIGTERM at an odd step, between checkpoints; parameters and metrics.jsonl come out equal."""
  outcome = train(tmp_path / "whole")
  assert outcome.finished
  assert outcome.step == 20

  real = loop.Pace.num_steps
  calls = {"count": 0}

  def slowly(pace):
    calls["count"] += 1
    if calls["count"] == 9:
      signal.raise_signal(signal.SIGTERM)
    return min(real(pace), 2)

  monkeypatch.setattr(loop.Pace, "num_steps", slowly)
  stopped = train(tmp_path / "cut")
  assert not stopped.finished
  assert 10 < stopped.step < 20
  resumed = train(tmp_path / "cut")
  assert resumed.finished
  assert_equal(checkpointed(tmp_path / "whole"), checkpointed(tmp_path / "cut"))
  assert read_metrics(tmp_path / "whole") == read_metrics(tmp_path / "cut")
  assert resumed == outcome


def test_a_finished_run_called_again_trains_no_further(tmp_path):
  first = train(tmp_path / "run")
  rows = read_metrics(tmp_path / "run")
  assert train(tmp_path / "run") == first
  assert read_metrics(tmp_path / "run") == rows


def test_a_checkpoint_that_is_behind_the_metrics_leaves_no_row_twice(tmp_path):
  """As after a kill between a log row and the next checkpoint."""
  train(tmp_path / "run")
  whole = read_metrics(tmp_path / "run")
  directory = group_directory(tmp_path / "run", 0)
  checkpoints = Checkpoints(directory, read_only=True)
  assert checkpoints.steps() == [10, 20]
  checkpoints.close()
  shutil.rmtree(directory / "20")
  with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
    file.write('{"group": 0, "step": 2')  # the line a killed writer leaves
  train(tmp_path / "run")
  assert read_metrics(tmp_path / "run") == whole


def test_metrics_rows_hold_per_machine_vectors(tmp_path):
  train(tmp_path / "run")
  header, *rows = read_metrics(tmp_path / "run")
  assert header == {"header": True, "group": 0, "machines": list(GROUP.names)}
  assert [row["step"] for row in rows] == [5, 10, 15, 20]
  for row in rows:
    for name in ("loss", "forecast_loss", "reconstruction_loss", "kl", "validation_loss", "num_skipped"):
      assert len(row[name]) == 3
    total = np.array(row["forecast_loss"]) + row["reconstruction_loss"] + np.array(row["kl"])
    np.testing.assert_allclose(row["loss"], total, rtol=1e-5)
  json.dumps(rows, allow_nan=False)


def test_a_window_budget_sets_the_steps_and_int32_positions_cannot_overflow():
  assert total_steps(tiny.make_config(train={"window_budget": 1200}), 3) == 100
  with pytest.raises(ValueError, match=r"exceed 2\^31"):
    total_steps(tiny.make_config(train={"num_train_steps": 2**30}), 3)


def test_the_loop_runs_outside_the_main_thread(tmp_path):
  """Signal handlers can be set in the main thread only; a library call from another one must still train."""
  outcomes = []
  thread = threading.Thread(target=lambda: outcomes.append(train(tmp_path / "run")))
  thread.start()
  began = time.monotonic()
  thread.join(timeout=120)
  assert outcomes, f"no outcome after {time.monotonic() - began:.0f} s"
  assert outcomes[0].finished


@pytest.mark.parametrize("mode", ["FORECASTING", "RECONSTRUCTING"])
def test_every_run_mode_and_gatv2_trains(mode):
  config = tiny.make_config(model={"run_mode": mode, "attention": "gatv2"})
  programs = make_programs(config, len(GROUP.metrics), (0, 2))
  state = programs.run(programs.init(ARRAYS.machine_ids), place(ARRAYS), 3, 3)
  losses = state.sums.losses
  absent = losses.reconstruction if mode == "FORECASTING" else losses.forecast
  assert (np.asarray(absent) == 0).all()
  assert (np.asarray(losses.total) != 0).all()
  assert (np.asarray(state.guard.num_skipped) == 0).all()


def test_tensorboard_files_hold_every_machines_losses(tmp_path):
  from tensorboardX.proto.event_pb2 import Event

  config = tiny.make_config(train={"tensorboard": True})
  train(tmp_path / "run", config)
  (file,) = (tmp_path / "run" / "tensorboard" / "group-0").iterdir()
  tags = set()
  data = file.read_bytes()
  while data:  # TFRecord: length (8), checksum (4), payload, checksum (4)
    length = int.from_bytes(data[:8], "little")
    tags |= {value.tag for value in Event.FromString(data[12 : 12 + length]).summary.value}
    data = data[16 + length :]
  assert {f"{name}/machine-2" for name in ("loss", "validation_loss")} <= tags
