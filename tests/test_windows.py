"""Which rows a window, a batch and an epoch hold, against loops; and that no machine is read past its end."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mtad_jax.config import Config, DataConfig, ModelConfig, TrainConfig
from mtad_jax.data.fleet import Group, part_rows, prepare_groups, training_arrays
from mtad_jax.data.machine import Machine, Series, empty_series
from mtad_jax.data.windows import batch_indices, gather_windows, shuffle_index, usable_targets

LONGEST = 28479
POSITIONS = jnp.arange(LONGEST, dtype=jnp.int32)
# one program for every length: positions beyond a length are folded back and thrown away
_SHUFFLE = jax.jit(
  lambda num_rows, key: jax.vmap(lambda p: shuffle_index(p % num_rows, num_rows, key))(POSITIONS)
)


def shuffled(num_rows: int, seed: int) -> np.ndarray:
  """Returns the images of positions 0 .. num_rows - 1."""
  return np.asarray(_SHUFFLE(jnp.asarray(num_rows, jnp.int32), jax.random.key(seed)))[:num_rows]


@pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 7, 64, 65, 1000, LONGEST])
def test_shuffle_is_a_bijection(num_rows: int) -> None:
  for seed in range(8):
    np.testing.assert_array_equal(np.sort(shuffled(num_rows, seed)), np.arange(num_rows))


@pytest.mark.parametrize("num_rows", [2, 3, 5])
def test_shuffle_reaches_every_order_of_a_few_rows_from_somewhere(num_rows: int) -> None:
  seen = {tuple(shuffled(num_rows, seed)) for seed in range(60)}
  assert len(seen) >= {2: 2, 3: 6, 5: 20}[num_rows]


@pytest.mark.parametrize("num_rows", [1000, LONGEST])
def test_neighbouring_positions_do_not_stay_neighbours(num_rows: int) -> None:
  correlations, lagged, close = [], [], []
  for seed in range(20):
    order = shuffled(num_rows, seed)
    correlations.append(stats.spearmanr(np.arange(num_rows), order).statistic)
    lagged.append(stats.spearmanr(order[:-1], order[1:]).statistic)
    close.append(np.mean(np.abs(np.diff(order)) <= 2))
  # a random order's correlations have the deviation 1 / sqrt(n), and 4 / n of its neighbours are that close
  assert np.mean(np.abs(correlations)) < 2 / num_rows**0.5
  assert np.mean(np.abs(lagged)) < 2 / num_rows**0.5
  assert np.mean(close) < 2 * 4 / num_rows


LENGTHS = np.array([1, 7, 20, 64, 65, 100], np.int32)  # 1 and 7 are shorter than a batch
BATCH, NUM_STEPS = 16, 32


@jax.jit
def _draw(key: jax.Array) -> jax.Array:
  def one(num_rows: jax.Array, machine: jax.Array) -> jax.Array:
    own = jax.random.fold_in(key, machine)
    return jax.vmap(lambda step: batch_indices(own, step, num_rows, BATCH))(jnp.arange(NUM_STEPS))

  return jax.vmap(one)(jnp.asarray(LENGTHS), jnp.arange(len(LENGTHS)))


def fleet_batches(seed: int) -> np.ndarray:
  """Returns the indices [M, step * B] that six machines of LENGTHS draw over NUM_STEPS steps."""
  return np.asarray(_draw(jax.random.key(seed))).reshape(len(LENGTHS), -1)


def test_an_epoch_holds_every_row_once_for_machines_of_different_lengths() -> None:
  drawn = fleet_batches(0)
  for indices, length in zip(drawn, LENGTHS, strict=True):
    num_epochs = len(indices) // length
    assert num_epochs >= 5
    # but for the lengths 1 and 64, epochs end inside a batch
    epochs = indices[: num_epochs * length].reshape(num_epochs, length)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(length), (num_epochs, 1)))
    rest = indices[num_epochs * length :]
    assert len(set(rest.tolist())) == len(rest)
    assert set(rest.tolist()) <= set(range(length))


def test_epochs_and_machines_have_orders_of_their_own() -> None:
  drawn = fleet_batches(1)
  for indices, length in zip(drawn, LENGTHS, strict=True):
    if length >= 20:
      num_epochs = len(indices) // length
      orders = {tuple(epoch) for epoch in indices[: num_epochs * length].reshape(num_epochs, length)}
      assert len(orders) == num_epochs
  assert np.any(drawn[4][:64] != drawn[3][:64])
  np.testing.assert_array_equal(drawn, fleet_batches(1))


def test_a_batch_is_a_function_of_its_step_alone_so_that_resuming_is_exact() -> None:
  key = jax.random.fold_in(jax.random.key(2), 3)
  alone = jax.jit(batch_indices, static_argnums=3)(key, jnp.asarray(9), jnp.asarray(64), BATCH)
  np.testing.assert_array_equal(alone, fleet_batches(2)[3].reshape(NUM_STEPS, BATCH)[9])


def test_gather_windows_against_a_loop() -> None:
  values = np.random.default_rng(3).random((40, 3)).astype(np.float32)
  targets = np.array([6, 7, 39, 40, 20])  # 40: the window after the last row
  windows = np.asarray(gather_windows(jnp.asarray(values), jnp.asarray(targets), 6))
  assert windows.shape == (5, 6, 3)
  for b, target in enumerate(targets):
    for w in range(6):
      np.testing.assert_array_equal(windows[b, w], values[target - 6 + w])


def slow_usable(
  usable: np.ndarray, filled: np.ndarray, first: int, end: int, window: int, share: float
) -> list[int]:
  """Returns the usable target rows, one window after the other."""
  found = []
  for target in range(first, end):
    if target < window:
      continue
    rows = range(target - window, target + 1)
    if all(usable[row] for row in rows) and np.mean([filled[row] for row in rows]) <= share:
      found.append(target)
  return found


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_usable_targets_against_a_loop(seed: int, share: float) -> None:
  rng = np.random.default_rng(seed)
  num_rows, window = 80, int(rng.integers(2, 9))
  usable = rng.random(num_rows) > 0.05
  filled = rng.random((num_rows, 3)) < 0.2
  filled[30:45] = False
  first, end = sorted(rng.integers(0, num_rows + 1, 2))
  found = usable_targets(usable, filled, int(first), int(end), window, share)
  assert found.dtype == np.int32
  assert found.tolist() == slow_usable(usable, filled, first, end, window, share)
  excluded = np.flatnonzero(~usable)
  for target in found:
    assert not np.any((excluded >= target - window) & (excluded <= target))


def test_all_rows_but_the_first_window_are_targets_the_first_of_them_row_w() -> None:
  found = usable_targets(np.ones(50, bool), np.zeros((50, 2), bool), 0, 50, 10, 0.0)
  np.testing.assert_array_equal(found, np.arange(10, 50))


def test_one_excluded_row_takes_itself_and_the_w_rows_after_it() -> None:
  usable = np.ones(50, bool)
  usable[20] = False
  found = usable_targets(usable, np.zeros((50, 2), bool), 10, 50, 10, 0.0)
  assert sorted(set(range(10, 50)) - set(found.tolist())) == list(range(20, 31))


WINDOW = 8
CONFIG = Config(
  data=DataConfig(clean=False, counters="none", exclude=("b:60-66",)),
  model=ModelConfig(window_size=WINDOW),
  train=TrainConfig(batch_size=16, validation_windows=6),
)
MACHINE_ROWS = {"a": 150, "b": 260, "c": 70}


@pytest.fixture(scope="module")
def group() -> Group:
  """Three machines of different lengths; rows 60 to 65 of b are excluded."""
  rng = np.random.default_rng(4)
  machines = [
    Machine(name, "role", ("x", "y", "z"), Series(rng.random((rows, 3))), empty_series(3))
    for name, rows in MACHINE_ROWS.items()
  ]
  (group,) = prepare_groups(machines, CONFIG)
  return group


def test_training_arrays_hold_each_machines_own_rows_and_zeros_after(group: Group) -> None:
  arrays = training_arrays(group, CONFIG)
  assert arrays.values.shape == (3, 260, 3)
  assert arrays.values.dtype == np.float32
  for lane, machine in enumerate(group.machines):
    length = MACHINE_ROWS[machine.name]
    np.testing.assert_array_equal(arrays.values[lane, :length], machine.train.values)
    np.testing.assert_array_equal(arrays.values[lane, length:], 0.0)
    wanted = part_rows(machine, "fit", WINDOW, CONFIG.data)
    assert arrays.num_fit[lane] == len(wanted) > 0
    np.testing.assert_array_equal(arrays.fit_rows[lane, : len(wanted)], wanted)
    first, end = machine.parts.fit
    assert first <= wanted.min() <= wanted.max() < end
  assert len(set(arrays.num_fit.tolist())) == 3
  assert not set(range(60, 66 + WINDOW)) & set(arrays.fit_rows[1].tolist())
  assert len(set(arrays.machine_ids.tolist())) == 3


def test_validation_rows_span_the_part_evenly_and_the_rest_is_padding(group: Group) -> None:
  arrays = training_arrays(group, CONFIG)
  assert arrays.validation_rows.shape == (3, 6)
  for lane, machine in enumerate(group.machines):
    part = part_rows(machine, "validation", WINDOW, CONFIG.data)
    count = arrays.num_validation[lane]
    chosen = arrays.validation_rows[lane, :count]
    assert count == min(6, len(part))
    assert set(chosen.tolist()) <= set(part.tolist())
    assert chosen[0] == part[0]
    assert chosen[-1] == part[-1]
    gaps = np.diff(chosen)
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1
    np.testing.assert_array_equal(arrays.validation_rows[lane, count:], part[0])
  assert arrays.num_validation.min() < 6  # so that padding is seen


def test_no_batch_holds_a_row_beyond_its_machines_own_length(group: Group) -> None:
  arrays = training_arrays(group, CONFIG)
  values = arrays.values.copy()
  for lane, length in enumerate(MACHINE_ROWS.values()):
    values[lane, length:] = np.nan  # a window that reaches padding shows it

  def epoch(
    values: jax.Array, fit_rows: jax.Array, num_fit: jax.Array, machine: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    key = jax.random.fold_in(jax.random.key(0), machine)

    def one(step: jax.Array) -> tuple[jax.Array, jax.Array]:
      rows = fit_rows[batch_indices(key, step, num_fit, 16)]
      return rows, gather_windows(values, rows, WINDOW)

    return jax.vmap(one)(jnp.arange(40))

  lanes = (values, arrays.fit_rows, arrays.num_fit, arrays.machine_ids)
  rows, windows = jax.jit(jax.vmap(epoch))(*map(jnp.asarray, lanes))
  assert np.all(np.isfinite(windows))
  for lane, machine in enumerate(group.machines):
    assert set(np.asarray(rows[lane]).ravel().tolist()) == set(
      part_rows(machine, "fit", WINDOW, CONFIG.data).tolist()
    )


def test_a_machine_without_a_window_left_is_refused_by_name(group: Group) -> None:
  machine = group.machines[2]
  unusable = machine.train.usable.copy()
  unusable[slice(*machine.parts.validation)] = False
  broken = machine._replace(train=machine.train._replace(usable=unusable))
  with pytest.raises(ValueError, match=r"^machine c: no usable window in the validation part \(rows .*$"):
    training_arrays(group._replace(machines=(*group.machines[:2], broken)), CONFIG)


def test_share_of_filled_values_decides_which_windows_are_left(group: Group) -> None:
  machine = group.machines[0]
  filled = machine.train.filled.copy()
  filled[40] = True  # one whole row of W + 1
  gappy = machine._replace(train=machine.train._replace(filled=filled))
  strict = dataclasses.replace(CONFIG.data, max_filled_share=0.0)
  rows = part_rows(gappy, "fit", WINDOW, strict)
  assert not set(range(40, 41 + WINDOW)) & set(rows.tolist())
  lenient = dataclasses.replace(CONFIG.data, max_filled_share=1 / (WINDOW + 1))
  np.testing.assert_array_equal(
    part_rows(gappy, "fit", WINDOW, lenient), part_rows(machine, "fit", WINDOW, strict)
  )
