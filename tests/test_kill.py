"""Training killed with SIGKILL again and again, at random moments and while it saves, against one never killed.

bash scripts/test.sh --slow, or python -m pytest -s -m slow tests/test_kill.py; MTAD_KILLS sets how often (30).
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import fleets
import jax
import pytest
from fleets import TINY, run_process, succeeded

from mtad_jax.train.checkpoints import Checkpoints
from mtad_jax.train.workdir import group_directory

NUM_KILLS = int(os.environ.get("MTAD_KILLS", "30"))
NUM_STEPS = 2000
SETTINGS = (
  *TINY,
  f"--config.train.num_train_steps={NUM_STEPS}",
  "--config.train.checkpoint_every_steps=20",
  "--config.train.validate_every_steps=50",
)


def saving(workdir: Path) -> list[str]:
  """Returns the half-made checkpoints that stand there now."""
  folder = group_directory(workdir, 0)
  names = [path.name for path in Path(folder).iterdir()] if folder.exists() else []
  return [name for name in names if not name.isdigit()]


def last_tree(workdir: Path):
  with Checkpoints(group_directory(workdir, 0), read_only=True) as checkpoints:
    step = checkpoints.steps()[-1]
    return step, checkpoints.read_tree(step)


def killed(arguments: tuple[str, ...], workdir: Path, rng: random.Random) -> tuple[bool, bool]:
  """Starts training, kills it; returns (whether it was killed before its end, whether while saving).

  One in three is killed as soon as a half-made checkpoint is seen, one in six at any moment from the start on, the
  others up to half a second after the log has grown.
  """
  log = workdir / "metrics.jsonl"
  before = log.stat().st_size if log.exists() else 0
  with subprocess.Popen(
    [sys.executable, str(fleets.SCRIPTS / "train.py"), *arguments],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
  ) as process:
    way = rng.random()
    if way < 1 / 6:
      time.sleep(rng.uniform(0, 12))
    else:
      while process.poll() is None and not (log.exists() and log.stat().st_size not in (0, before)):
        time.sleep(0.001)
      time.sleep(rng.uniform(0, 0.5))
      if way < 1 / 2:
        while process.poll() is None and not saving(workdir):
          pass
    was_running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
  return was_running, was_running and bool(saving(workdir))


@pytest.mark.slow
def test_killed_at_random_moments_ends_as_if_never_killed(tmp_path):
  fleet = fleets.write_fleet(tmp_path / "fleet")
  whole, cut = tmp_path / "whole", tmp_path / "cut"
  source = f"--source={fleet}"
  succeeded(run_process("train.py", *SETTINGS, source, f"--workdir={whole}", timeout_s=900))
  rng = random.Random(0)
  num_kills = num_saving = 0
  while num_kills < NUM_KILLS:
    was_running, was_saving = killed((*SETTINGS, source, f"--workdir={cut}"), cut, rng)
    assert was_running, f"the run came to its end after {num_kills} kills; {NUM_KILLS} are wanted"
    num_kills += 1
    num_saving += was_saving
  done = succeeded(run_process("train.py", *SETTINGS, source, f"--workdir={cut}", timeout_s=900))
  print(f"{num_kills} kills, {num_saving} of them while a checkpoint was being written")
  assert num_saving > 0
  assert "resumed at step" in done.stdout

  (step, tree), (step_whole, tree_whole) = last_tree(cut), last_tree(whole)
  assert step == step_whole == NUM_STEPS
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(tree_whole), strict=True
  ):
    assert a.tobytes() == b.tobytes(), jax.tree_util.keystr(path)
  assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
  thresholds = [json.loads((folder / "calibration.json").read_text())["machines"] for folder in (cut, whole)]
  assert thresholds[0] == thresholds[1]
  names = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in (cut, whole)]
  names = [[name for name in found if "/ocdbt.process" not in name and "/d/" not in name] for found in names]
  assert names[0] == names[1]  # no litter
