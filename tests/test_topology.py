"""One run on changing hardware: 8 devices, then 1, then 2 processes, then 8 again; to rounding the same run."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import score_part
import train_part

from mtad_jax.train.checkpoints import Checkpoints
from mtad_jax.train.loop import train_group
from mtad_jax.train.mesh import _batch_axis
from mtad_jax.train.metrics_log import read_metrics
from mtad_jax.train.workdir import group_directory

TESTS = Path(__file__).resolve().parent


def free_port() -> int:
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    return listener.getsockname()[1]


def train_until(
  workdir: Path,
  step: int,
  num_devices: int,
  num_processes: int = 1,
  num_machines: int = len(train_part.LENGTHS),
) -> list[str]:
  """Returns what each process said at its end: the step reached, whether finished, the devices."""
  command = [sys.executable, str(TESTS / "train_part.py"), str(workdir), str(step), str(num_machines)]
  coordinator = f"127.0.0.1:{free_port()}"
  started = []
  for i in range(num_processes):
    joined = [] if num_processes == 1 else [coordinator, str(num_processes), str(i)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(num_devices)}
    started.append(
      subprocess.Popen(
        [*command, *joined], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
      )
    )
  ends = [process.communicate(timeout=240) for process in started]
  for process, (out, err) in zip(started, ends, strict=True):
    assert process.returncode == 0, f"{out}\n{err}"
  return [out.splitlines()[-1] for out, _ in ends]


def last_tree(workdir: Path):
  with Checkpoints(group_directory(workdir, 0), read_only=True) as checkpoints:
    step = checkpoints.steps()[-1]
    return step, checkpoints.about(step), checkpoints.read_tree(step)


@pytest.mark.slow
def test_a_run_moves_between_devices_and_processes(tmp_path):
  moved, whole = tmp_path / "moved", tmp_path / "whole"
  moved.mkdir(), whole.mkdir()
  assert train_until(moved, 5, num_devices=8) == ["5 False 8 cpu devices"]
  _, about, tree = last_tree(moved)
  num_machines = len(train_part.LENGTHS)
  assert len(about["machines"]) == num_machines  # 6 lanes ran, each on 4 devices, 5 are kept
  assert {len(leaf) for leaf in jax.tree.leaves(tree)} == {num_machines}

  assert train_until(moved, 10, num_devices=1) == ["10 False 1 cpu device"]
  told = "15 False 6 cpu devices of 2 processes"
  assert train_until(moved, 15, num_devices=3, num_processes=2) == [told, told]
  assert train_until(moved, 99, num_devices=8) == ["20 True 8 cpu devices"]

  train_group(train_part.make_group(), 0, train_part.CONFIG, whole, {"run_id": "x"})
  assert_same_runs(moved, whole)


def assert_same_runs(moved: Path, whole: Path) -> None:
  """Equal verdicts, and figures equal to rounding: sums over a batch may be taken in another order."""
  (step, about, tree), (step_whole, about_whole, tree_whole) = last_tree(moved), last_tree(whole)
  assert step == step_whole == 20
  for name in ("machines", "verdicts", "machine_step", "best_step", "tree"):
    assert about[name] == about_whole[name], name
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(tree_whole), strict=True
  ):
    # half a step of Adam, which divides by the gradient's size: of a tiny gradient rounding is not a tiny part
    np.testing.assert_allclose(a, b, atol=5e-4, err_msg=jax.tree_util.keystr(path))
  rows, rows_whole = read_metrics(moved), read_metrics(whole)
  assert [row.get("step") for row in rows] == [row.get("step") for row in rows_whole]
  for row, wanted in zip(rows[1:], rows_whole[1:], strict=True):
    for name in ("loss", "validation_loss"):
      figures = (np.array(x[name], float) for x in (row, wanted))  # null, of a machine without a good step, is NaN
      np.testing.assert_allclose(*figures, atol=1e-4)
  told = [[record for row in log[1:] for record in row.get("trouble", [])] for log in (rows, rows_whole)]
  assert len(told[0]) == len(told[1]) > 0
  for record, wanted in zip(*told, strict=True):
    for name in ("machine", "step", "verdict", "rows", "worst_row"):
      assert record[name] == wanted[name], name


def test_scoring_uses_all_devices_and_gives_what_one_gives(tmp_path):
  """To rounding: a device with fewer machines may sum their products in another order."""
  command = [sys.executable, str(TESTS / "score_part.py"), str(tmp_path / "outputs.npz")]
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
  subprocess.run(command, check=True, env=environment, timeout=240)
  wanted = score_part.row_outputs()
  with np.load(tmp_path / "outputs.npz") as found:
    assert found["num_devices"] == 8
    assert set(found) == {"num_devices", *wanted}
    for name, values in wanted.items():
      np.testing.assert_allclose(found[name], values, atol=1e-5, err_msg=name)


def test_the_batch_axis_leaves_a_device_the_least_work():
  """(machines, devices, batch size) -> devices that share a machine's batch."""
  wanted = {
    (28, 8, 256): 1,  # more machines than devices
    (8, 8, 256): 1,
    (1, 8, 256): 8,
    (4, 8, 256): 2,
    (3, 8, 256): 8,  # three eighths of a machine each: nothing is padded
    (3, 8, 4): 2,  # half a machine each, one lane padded
    (5, 6, 4): 1,
    (1, 6, 4): 2,
    (1, 7, 256): 1,  # 7 does not divide the batch
  }
  assert {case: _batch_axis(*case) for case in wanted} == wanted


@pytest.mark.slow
def test_devices_that_share_a_batch_train_what_one_device_trains(tmp_path):
  """3 machines on 8 devices: 4 lanes by 2 halves of a batch of 4, one lane of them padded."""
  shared, alone = tmp_path / "shared", tmp_path / "alone"
  shared.mkdir(), alone.mkdir()
  assert train_until(shared, 99, num_devices=8, num_machines=3) == ["20 True 8 cpu devices"]
  train_group(train_part.make_group(3), 0, train_part.CONFIG, alone, {"run_id": "x"})
  assert_same_runs(shared, alone)
