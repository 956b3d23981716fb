"""The guard: its verdicts, what a rollback restores, and that no machine's trouble reaches another."""

import jax
import numpy as np
import pytest
import tiny
from test_train import assert_equal, lanes

from mtad_jax.config import TrainConfig
from mtad_jax.data.fleet import training_arrays
from mtad_jax.train.fleet_step import make_programs, place
from mtad_jax.train.guard import (
  PARTS,
  Findings,
  LossHistory,
  Verdict,
  init_guard,
  judge,
  remember,
  spike_limit,
)

TRAIN = {"snapshot_every_steps": 4, "max_skipped_in_a_row": 3, "max_rollbacks": 2, "spike_history": 8}
CONFIG = tiny.make_config(train=TRAIN)
GROUP = tiny.make_group(CONFIG)
ARRAYS = training_arrays(GROUP, CONFIG)
TOTAL = 60
SICK = 1  # the lane that is poisoned


@pytest.fixture(scope="module")
def programs():
  return make_programs(CONFIG, len(GROUP.metrics), GROUP.targets)


@pytest.fixture(scope="module")
def clean():
  return place(ARRAYS)


@pytest.fixture(scope="module")
def poison():
  values = ARRAYS.values.copy()
  values[SICK] = np.nan
  return place(ARRAYS._replace(values=values))


def history_of(losses: list[float], size: int) -> LossHistory:
  history = LossHistory(np.zeros(size, np.float32), np.int32(0))
  for loss in losses:
    history = jax.jit(remember)(history, np.float32(loss), np.bool_(True))
  return history


@pytest.mark.parametrize("num", [8, 11, 30])
def test_the_spike_limit_is_the_median_and_its_deviation_of_the_last_losses(num):
  losses = np.random.default_rng(num).normal(3, 1, num).astype(np.float32)
  last = np.sort(losses[-15:])
  median = last[(len(last) - 1) // 2]
  deviation = np.sort(np.abs(last - median))[(len(last) - 1) // 2]
  usual, limit = spike_limit(history_of(losses.tolist(), 15), 10.0)
  assert usual == median
  np.testing.assert_allclose(limit, median + 10 * 1.4826 * deviation, rtol=1e-6)


def test_the_first_limits_stand_well_above_an_untrained_networks_losses():
  usual, limit = spike_limit(history_of([], 8), 5.0)
  assert np.isnan(usual)
  assert limit == np.inf
  assert spike_limit(history_of([3.0], 8), 5.0) == (3.0, 18.0)
  assert spike_limit(history_of([3.0, 2.0, 2.5], 8), 5.0) == (2.5, 15.0)
  assert spike_limit(history_of([-0.5], 8), 5.0) == (-0.5, 4.5)
  assert spike_limit(history_of([3.0, 3.0, 3.0, 3.0], 8), 5.0)[1] < 4


def test_the_limit_moves_with_level_and_scale_of_the_losses():
  """limit(a x + b) = a limit(x) + b, for a > 0, while the deviation is no smaller than its floor."""
  losses = np.random.default_rng(0).gamma(2, 1, 12)
  _, limit = spike_limit(history_of(losses.tolist(), 12), 7.0)
  _, moved = spike_limit(history_of((3 * losses - 40).tolist(), 12), 7.0)
  np.testing.assert_allclose(moved, 3 * limit - 40, rtol=1e-5)


def test_the_losses_of_bad_steps_stay_out():
  losses = [1.0, 1.1, 0.9, 1.05, 0.95, 1.0, 1.1, 0.9]
  history = history_of(losses, 9)
  for loss in (np.nan, np.inf, -np.inf, 1e30):
    assert_equal(history, remember(history, np.float32(loss), np.bool_(False)))


def test_losses_that_hardly_vary_may_move_by_a_fiftieth_times_the_factor():
  """Of a constant metric, whose likelihood sits at its floor: rounding must never look like a spike."""
  usual, limit = spike_limit(history_of([-3.0] * 8, 8), 10.0)
  assert usual == -3
  np.testing.assert_allclose(limit, -3 + 10 * 0.02 * 3, rtol=1e-6)


def verdicts_of(findings: list[bool], settings: TrainConfig):
  """Returns (the verdicts, the guard's states) of a row of good (True) and bad steps."""
  guard, verdicts, states = init_guard(settings), [], []
  step = jax.jit(lambda g, parts: judge(g, Findings(parts, parts, np.float32(0)), np.float32(1), settings))
  for good in findings:
    guard, verdict = step(guard, np.int32(0 if good else 1))
    verdicts.append(Verdict(int(verdict)))
    states.append(guard)
  return verdicts, states


def test_bad_steps_in_a_row_roll_back_and_too_many_rollbacks_retire():
  ok, skip, back, retire = Verdict.OK, Verdict.SKIPPED, Verdict.ROLLED_BACK, Verdict.RETIRED
  settings = TrainConfig(max_skipped_in_a_row=3, max_rollbacks=2)
  bad = [True, False, False, True, *[False] * 9]
  verdicts, states = verdicts_of(bad, settings)
  assert verdicts == [ok, skip, skip, ok, skip, skip, back, skip, skip, back, skip, skip, retire]
  assert [int(state.attempt) for state in states][-7:] == [1, 1, 1, 2, 2, 2, 2]
  assert [bool(state.retired) for state in states] == [False] * 12 + [True]
  assert int(states[-1].num_skipped) == 11
  assert float(states[-1].learning_rate_scale) == 0.25


def test_a_cut_rate_comes_back_and_takes_twice_as_long_each_time():
  settings = TrainConfig(max_skipped_in_a_row=1, rate_recovery_steps=4)
  for num_bad, num_good in ((1, 4), (2, 16)):  # two cuts at 8 good steps each
    _, states = verdicts_of([False] * num_bad + [True] * (num_good + 3), settings)
    scale = [float(state.learning_rate_scale) for state in states[num_bad - 1 :]]
    assert scale[0] == 0.5**num_bad
    np.testing.assert_allclose(scale[num_good], 1.0, rtol=1e-5)
    assert scale[num_good - 1] < 0.97
    assert scale[-1] == 1.0
    assert np.all(np.diff(scale) >= 0)


def test_a_single_rollback_is_never_refused_by_a_limit_of_one():
  verdicts, _ = verdicts_of([False, False], TrainConfig(max_skipped_in_a_row=1, max_rollbacks=1))
  assert verdicts == [Verdict.ROLLED_BACK, Verdict.RETIRED]


def run(programs, state, *parts):
  """Returns the state after (number of steps, arrays) one after the other."""
  for num, arrays in parts:
    state = programs.run(state, arrays, num, TOTAL)
  return state


@pytest.mark.parametrize(
  ("num_bad", "skipped", "rolled_back", "retired"), [(2, 2, 0, False), (3, 3, 1, False), (9, 9, 2, True)]
)
def test_the_other_machines_are_bit_equal_to_a_run_without_the_poison(
  programs, clean, poison, num_bad, skipped, rolled_back, retired
):
  first = ARRAYS.machine_ids
  whole = run(programs, programs.init(first), (10 + num_bad + 12, clean))
  state = run(programs, programs.init(first), (10, clean), (num_bad, poison), (12, clean))
  assert int(state.guard.num_skipped[SICK]) == skipped
  assert int(state.guard.attempt[SICK]) == rolled_back
  assert bool(state.guard.retired[SICK]) == retired
  assert_equal(lanes(whole, [0, 2]), lanes(state, [0, 2]))
  assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves((state.params, state.optimizer)))


def test_rolling_back_equals_never_having_taken_the_bad_steps(programs, clean, poison):
  """The state of the snapshot's step, given the later draws (attempt) and rate, trained on as long."""
  back = jax.device_get(run(programs, programs.init(ARRAYS.machine_ids), (10, clean), (3, poison)))
  snapshot_step = int(back.step[SICK])
  assert 0 < snapshot_step < 10
  never = jax.device_get(run(programs, programs.init(ARRAYS.machine_ids), (snapshot_step, clean)))
  for name in ("params", "optimizer", "step"):
    assert_equal(lanes(getattr(never, name), [SICK]), lanes(getattr(back, name), [SICK]))
  assert_equal(lanes(never.guard.history, [SICK]), lanes(back.guard.history, [SICK]))

  guard = never.guard._replace(attempt=back.guard.attempt, learning_rate_scale=back.guard.learning_rate_scale)
  never = run(programs, place_state(never._replace(guard=guard)), (12, clean))
  back = run(programs, place_state(back), (12, clean))
  for name in ("params", "optimizer", "step"):
    assert_equal(lanes(getattr(never, name), [SICK]), lanes(getattr(back, name), [SICK]))
  np.testing.assert_array_equal(back.guard.learning_rate_scale, never.guard.learning_rate_scale)
  assert 0.5 < float(back.guard.learning_rate_scale[SICK]) < 1


def place_state(state):
  return jax.tree.map(lambda x: jax.numpy.array(x, copy=True), state)


def test_a_rolled_back_machine_draws_other_batches(programs, clean, poison):
  back = run(programs, programs.init(ARRAYS.machine_ids), (10, clean), (3, poison))
  step = int(back.step[SICK])
  guard = back.guard._replace(attempt=back.guard.attempt * 0)
  again = run(programs, place_state(back._replace(guard=guard)), (1, clean))
  after = run(programs, back, (1, clean))
  assert int(after.step[SICK]) == int(again.step[SICK]) == step + 1
  kernels = [np.asarray(state.params["gru"]["recurrent"][SICK]) for state in (again, after)]
  assert not np.allclose(*kernels, atol=1e-7)


def test_a_retired_machine_keeps_its_last_good_state_and_its_steps_end(programs, clean, poison):
  state = jax.device_get(run(programs, programs.init(ARRAYS.machine_ids), (10, clean), (9, poison)))
  assert bool(state.guard.retired[SICK])
  assert_equal(lanes(state.snapshot.params, [SICK]), lanes(state.params, [SICK]))
  later = run(programs, place_state(state), (7, clean))
  tick = np.asarray([26], np.int32)
  assert_equal(lanes(state, [SICK])._replace(tick=tick), lanes(later, [SICK]))
  validated, _ = programs.validate(later, clean)
  assert np.isfinite(
    validated.best_loss[SICK]
  )  # it is judged once more, and scored by the better of its states


def test_every_bad_step_is_on_record_with_what_was_wrong(programs, clean, poison):
  state = run(programs, programs.init(ARRAYS.machine_ids), (2, clean), (3, poison))
  log = jax.device_get(state.trouble)
  assert log.num.tolist() == [0, 3, 0]
  assert log.steps.tick[SICK, :3].tolist() == [2, 3, 4]
  assert log.steps.verdict[SICK, :3].tolist() == [Verdict.SKIPPED, Verdict.SKIPPED, Verdict.ROLLED_BACK]
  everything = sum(1 << i for i, name in enumerate(PARTS) if name != "spike")
  assert log.steps.parts[SICK, :3].tolist() == [everything] * 3
  learnt = sum(1 << i for i, name in enumerate(sorted(state.params)) if name != "linear")  # the skip has no gradient
  assert log.steps.blocks[SICK, 0] == learnt
  assert set(log.steps.worst_row[SICK, :3].tolist()) <= set(ARRAYS.fit_rows[SICK].tolist())


def test_a_rate_that_is_a_thousand_times_too_high_is_cut_until_the_machine_learns():
  """It diverges in its first steps, before there is a history to speak of; finite all the while."""
  config = tiny.make_config(train={"learning_rate": 1.0, "final_learning_rate": 1.0, "clip_gradients": 0.0})
  programs = make_programs(config, len(GROUP.metrics), GROUP.targets)
  arrays, total = place(ARRAYS), 1000
  state = programs.run(programs.init(ARRAYS.machine_ids), arrays, 1, total)
  first = np.asarray(state.sums.losses.total)
  state = programs.clear_report(programs.run(state, arrays, 540, total))
  state = programs.run(state, arrays, 60, total)
  assert not np.asarray(state.guard.retired).any()
  assert np.asarray(state.guard.attempt).sum() > 0
  assert (np.asarray(state.sums.losses.total / state.sums.num_steps) < first).all()


def test_a_finite_spike_is_skipped_by_its_machine_alone(programs, clean):
  values = ARRAYS.values.copy()
  values[SICK] *= 1e6
  state = run(
    programs, programs.init(ARRAYS.machine_ids), (10, clean), (2, place(ARRAYS._replace(values=values)))
  )
  log = jax.device_get(state.trouble)
  assert log.num.tolist() == [0, 2, 0]
  assert log.steps.parts[SICK, 0] & 1 << PARTS.index("spike")
  assert log.steps.loss[SICK, 0] > log.steps.usual_loss[SICK, 0]
  assert np.isfinite(log.steps.loss[SICK, 0])


def test_without_the_guard_the_first_bad_step_stays():
  config = tiny.make_config(train={"guard": False})
  programs = make_programs(config, len(GROUP.metrics), GROUP.targets)
  values = ARRAYS.values.copy()
  values[SICK] = np.nan
  state = run(programs, programs.init(ARRAYS.machine_ids), (2, place(ARRAYS._replace(values=values))))
  assert np.isnan(np.asarray(state.params["gru"]["recurrent"][SICK])).all()
  assert np.isfinite(np.asarray(state.params["gru"]["recurrent"][0])).all()


def test_the_guard_does_not_change_good_steps(programs, clean):
  config = tiny.make_config(train={**TRAIN, "guard": False})
  bare = make_programs(config, len(GROUP.metrics), GROUP.targets)
  with_guard = run(programs, programs.init(ARRAYS.machine_ids), (12, clean))
  without = run(bare, bare.init(ARRAYS.machine_ids), (12, clean))
  for a, b in zip(jax.tree.leaves(with_guard.params), jax.tree.leaves(without.params), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)  # two programs: sums may be ordered otherwise
