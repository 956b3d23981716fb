"""A fleet trained and scored in blocks of machines gives what it gives at once, from one compiled program."""

import json
from pathlib import Path

import fleets
import jax
import numpy as np
import pytest
import tiny
from fleets import TINY, read_table, refused, run_here, succeeded

from mtad_jax.config import Config
from mtad_jax.data.fleet import Group, prepare_groups
from mtad_jax.detect.calibration import calibrate_blocks, calibrate_group
from mtad_jax.train import loop
from mtad_jax.train.checkpoints import Checkpoints
from mtad_jax.train.fleet_step import make_programs
from mtad_jax.train.loop import train_group
from mtad_jax.train.mesh import make_mesh
from mtad_jax.train.metrics_log import read_metrics
from mtad_jax.train.run_length import total_steps
from mtad_jax.train.workdir import group_directory

LENGTHS = (200, 260, 230, 210, 250)


def make_groups(config: Config) -> list[Group]:
  """Five machines of three metrics, and after the second of them one of two metrics."""
  machines = [tiny.make_machine(f"machine-{i}", length, seed=i) for i, length in enumerate(LENGTHS)]
  machines.insert(2, tiny.make_machine("other-0", 220, seed=9, num_metrics=2))
  return prepare_groups(machines, config)


def blocked(size: int, **train: object) -> Config:
  return tiny.make_config(train={"machines_per_block": size, **train})


def train(workdir: Path, config: Config) -> list[dict]:
  """Returns the last tree of every group of three metrics."""
  workdir.mkdir()
  trees = []
  for index, group in enumerate(make_groups(config)):
    if len(group.metrics) == 3:
      assert train_group(group, index, config, workdir, {"run_id": "x"}).finished
      with Checkpoints(group_directory(workdir, index), read_only=True) as checkpoints:
        trees.append(checkpoints.read_tree(checkpoints.steps()[-1]))
  return trees


def test_groups_are_cut_in_the_order_of_the_machines_into_blocks_of_nearly_equal_size():
  groups = make_groups(blocked(4))
  assert [group.names for group in groups] == [
    ("machine-0", "machine-1", "machine-2"),
    ("machine-3", "machine-4"),
    ("other-0",),
  ]
  assert groups[0].extent == groups[1].extent == make_groups(blocked(0))[0].extent._replace(num_lanes=3)
  titles = ["group 0 (block 1 of 2)", "group 1 (block 2 of 2)", "group 2"]
  assert [group.title(i) for i, group in enumerate(groups)] == titles
  assert [len(group.names) for group in make_groups(blocked(1))] == [1] * 6
  assert [len(group.names) for group in make_groups(blocked(5))] == [5, 1]


def test_a_run_in_blocks_takes_the_steps_of_one_without():
  whole, cut = blocked(0, window_budget=1000), blocked(2, window_budget=1000)
  wanted = total_steps(whole, make_groups(whole)[0].extent.num_machines)
  assert wanted == 50
  assert [total_steps(cut, group.extent.num_machines) for group in make_groups(cut)[:3]] == [wanted] * 3


def test_training_in_blocks_equals_training_at_once_and_compiles_once(tmp_path: Path, monkeypatch):
  (whole,) = train(tmp_path / "whole", blocked(0))
  used = []

  def noted(*args: object):
    used.append(make_programs(*args))
    return used[-1]

  monkeypatch.setattr(loop, "make_programs", noted)
  config = blocked(2)
  trees = train(tmp_path / "cut", config)
  joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *trees)
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(joined), jax.tree.leaves(whole), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-5, err_msg=jax.tree_util.keystr(path))
  assert [len(leaf) for tree in trees for leaf in jax.tree.leaves(tree)[:1]] == [2, 2, 1]
  assert len(used) == 3
  assert used[0] is used[1] is used[2]
  for program in used[0]:
    assert program._cache_size() == 1
  rows, cut = read_metrics(tmp_path / "whole"), read_metrics(tmp_path / "cut")
  last = [row for row in cut if row.get("step") == 20]
  np.testing.assert_allclose([x for row in last for x in row["loss"]], rows[-1]["loss"], atol=1e-4)


def test_roles_are_pooled_over_blocks():
  config = blocked(0)  # under 40 rows of calibration each
  (whole, _), cut = make_groups(config), make_groups(blocked(2))[:3]
  programs = make_programs(config, 3, whole.targets, make_mesh())
  params = jax.device_get(programs.init(np.arange(5, dtype=np.uint32)).params)
  wanted = calibrate_group(whole, params, config)
  parts = [jax.tree.map(lambda x, a=a: x[a : a + 2], params) for a in (0, 2, 4)]
  found = calibrate_blocks(zip(cut, parts, strict=True), config)
  assert list(found) == list(wanted)
  for name, entry in wanted.items():
    assert entry.pooled == found[name].pooled
    assert entry.pooled.endswith("thresholds over 5 machines of role web")
    np.testing.assert_allclose(found[name].threshold, entry.threshold, rtol=1e-3)
    np.testing.assert_allclose(found[name].usual, entry.usual, rtol=1e-4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
  """One fleet trained and scored by the commands, at once and in blocks of two."""
  root = tmp_path_factory.mktemp("blocks")
  fleet = fleets.write_fleet(root / "fleet")
  found = {"fleet": fleet}
  for name, size in (("whole", 0), ("cut", 2)):
    found[name] = root / name
    settings = (*TINY, "--config.train.num_train_steps=40", f"--config.train.machines_per_block={size}")
    succeeded(run_here("train.py", *settings, f"--source={fleet}", f"--workdir={found[name]}"))
    succeeded(run_here("score.py", f"--workdir={found[name]}"))
  return found


def test_the_commands_give_the_same_scores_in_blocks(runs: dict[str, Path]):
  whole, cut = (read_table(runs[name] / "scores.parquet") for name in ("whole", "cut"))
  np.testing.assert_array_equal(whole["machine"], cut["machine"])
  np.testing.assert_array_equal(whole["valid"], cut["valid"])
  for name in ("score", "threshold"):
    np.testing.assert_allclose(cut[name], whole[name], rtol=1e-3, err_msg=name)
  assert json.loads((runs["cut"] / "calibration.json").read_text())["checkpoint_steps"] == [40, 40]
  for command in (("calibrate.py",), ("evaluate.py",), ("report.py",), ("inspect_checkpoint.py",)):
    succeeded(run_here(*command, f"--workdir={runs['cut']}"))
  told = succeeded(run_here("inspect_checkpoint.py", f"--workdir={runs['cut']}", "--machine=web-2")).stdout
  assert "web-2" in told


def test_a_run_goes_on_in_its_own_blocks_only(runs: dict[str, Path]):
  settings = (*TINY, "--config.train.num_train_steps=40", f"--source={runs['fleet']}")
  told = refused(run_here("train.py", *settings, f"--workdir={runs['cut']}"), 1, "machines_per_block is 0, there 2")
  assert "another --workdir" in told
  again = (*settings, "--config.train.machines_per_block=2", f"--workdir={runs['cut']}")
  assert "group 1 (block 2 of 2): resumed at step 40 of 40" in succeeded(run_here("train.py", *again)).stdout


def test_a_warm_start_finds_machines_in_every_block(runs: dict[str, Path], tmp_path: Path):
  settings = (*TINY, "--config.train.num_train_steps=10", f"--source={runs['fleet']}")
  done = run_here("train.py", *settings, f"--workdir={tmp_path / 'run'}", f"--warm_start={runs['cut']}")
  assert "warm start: 3 of 3 machines from their own model" in succeeded(done).stdout
