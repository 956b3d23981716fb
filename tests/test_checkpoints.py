"""Checkpoints: what is read is what was written, and nothing else is taken for a checkpoint."""

import jax
import numpy as np
import pytest
import tiny

from mtad_jax.train.checkpoints import Checkpoints, to_device
from mtad_jax.train.fleet_step import make_programs
from mtad_jax.train.loop import state_template

CONFIG = tiny.make_config()
NAMES = ("a", "b")
TARGETS = (0, 1, 2)


@pytest.fixture(scope="module")
def state():
  return make_programs(CONFIG, 3, TARGETS).init(np.array([1, 2], np.uint32))


@pytest.fixture
def saved(tmp_path, state):
  checkpoints = Checkpoints(tmp_path / "group-0", num_to_keep=2)
  for step in (1, 2, 3):
    checkpoints.save(step, state._replace(step=state.step + step), NAMES, {"note": step})
  checkpoints.close()
  return tmp_path / "group-0"


def test_round_trip_is_bit_equal_and_the_latest_are_kept(saved, state):
  checkpoints = Checkpoints(saved, read_only=True)
  assert checkpoints.steps() == [2, 3]
  back = checkpoints.restore(3, state_template(CONFIG, 2, 3, TARGETS))
  assert jax.tree.structure(back) == jax.tree.structure(state)
  for a, b in zip(jax.tree.leaves(back.params), jax.tree.leaves(state.params), strict=True):
    assert isinstance(a, np.ndarray)
    np.testing.assert_array_equal(a, np.asarray(b))
  assert back.step.tolist() == [3, 3]
  about = checkpoints.about(3)
  assert about["machines"] == list(NAMES)
  assert about["note"] == 3
  checkpoints.close()


def test_a_tree_without_template_reads_as_dicts(saved, state):
  checkpoints = Checkpoints(saved, read_only=True)
  tree = checkpoints.read_tree(2)
  np.testing.assert_array_equal(tree["params"]["gru"]["recurrent"], state.params["gru"]["recurrent"])
  checkpoints.close()


def test_an_empty_folder_named_like_a_step_is_no_checkpoint(saved):
  (saved / "9").mkdir()
  checkpoints = Checkpoints(saved, read_only=True)
  assert checkpoints.steps() == [2, 3]
  with pytest.raises(ValueError, match=r"no step 9; there are \[2, 3\]"):
    checkpoints.read_tree(9)
  checkpoints.close()


def test_another_network_is_refused_by_leaf(saved):
  checkpoints = Checkpoints(saved, read_only=True)
  other = tiny.make_config(model={"hidden_size": 7})
  with pytest.raises(ValueError, match=r"leaf .* is \[\[.*\]\, 'float32'\], this config needs"):
    checkpoints.restore(3, state_template(other, 2, 3, TARGETS))
  checkpoints.close()


def test_another_type_is_refused_rather_than_cast(saved):
  checkpoints = Checkpoints(saved, read_only=True)
  template = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, np.float16) if x.dtype == np.float32 else x,
    state_template(CONFIG, 2, 3, TARGETS),
  )
  with pytest.raises(ValueError, match="float32"):
    checkpoints.restore(3, template)
  checkpoints.close()


def test_a_state_that_is_not_finite_is_refused_by_machine(tmp_path, state):
  checkpoints = Checkpoints(tmp_path / "group-0")
  params = jax.tree.map(lambda x: x.at[1].set(np.nan), state.params)
  with pytest.raises(ValueError, match="step 5: the state of b is not finite"):
    checkpoints.save(5, state._replace(params=params), NAMES, {})
  assert checkpoints.steps() == []
  checkpoints.close()


def test_a_step_that_is_not_newer_is_an_error_not_a_shrug(tmp_path, state):
  checkpoints = Checkpoints(tmp_path / "group-0")
  checkpoints.save(5, state, NAMES, {})
  checkpoints.wait()
  with pytest.raises(ValueError, match="step 4 was not written; the latest there is 5"):
    checkpoints.save(4, state, NAMES, {})
  checkpoints.close()


def test_restored_arrays_share_no_memory_with_the_device(saved):
  checkpoints = Checkpoints(saved, read_only=True)
  back = checkpoints.restore(3, state_template(CONFIG, 2, 3, TARGETS))
  checkpoints.close()
  placed = to_device(back)
  before = np.asarray(placed.params["gru"]["recurrent"]).copy()
  back.params["gru"]["recurrent"][...] = 7
  np.testing.assert_array_equal(np.asarray(placed.params["gru"]["recurrent"]), before)
