"""Shows what a work directory's checkpoints hold, on any machine, without an accelerator.

python scripts/inspect_checkpoint.py --workdir=RUNDIR
python scripts/inspect_checkpoint.py --workdir=RUNDIR --step=200 --machine=machine-1-1
"""

import os
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before jax is imported: nothing here is worth an accelerator

import jax
import numpy as np
import run_flags
from absl import flags
from etils import epath
from program import run

from mtad_jax.config import Config, differences
from mtad_jax.detect.calibrate_run import read_calibration
from mtad_jax.train.checkpoints import Checkpoints
from mtad_jax.train.fleet_file import StoredGroup
from mtad_jax.train.loop import group_directory
from mtad_jax.train.workdir import CALIBRATION

_WORKDIR = flags.DEFINE_string("workdir", None, "the run", required=True)
_STEP = flags.DEFINE_integer("step", None, "the checkpoint; default: the newest")
_MACHINE = flags.DEFINE_string("machine", None, "one machine alone; default: the fleet")
_FULL = flags.DEFINE_bool("full", False, "also the optimizer's leaves and the current parameters")


def _size(num_bytes: float) -> str:
  for unit in ("B", "KiB", "MiB"):
    if num_bytes < 1024:
      return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
    num_bytes /= 1024
  return f"{num_bytes:.1f} GiB"


def _tree_lines(tree: Any, lane: int | None) -> list[str]:
  """Returns a line per leaf (shape, type, norm, non-finite values) and the totals."""
  lines, num_values, num_bytes, num_bad = [], 0, 0, 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    values = np.asarray(leaf if lane is None else leaf[lane])
    bad = int(np.sum(~np.isfinite(values))) if np.issubdtype(values.dtype, np.floating) else 0
    norm = float(np.sqrt(np.sum(np.square(values.astype(np.float64)))))
    lines.append(
      f"  {jax.tree_util.keystr(path, simple=True, separator='/'):<48} {values.shape!s:<18} {values.dtype!s:<8}"
      f" norm {norm:<10.4g} {'finite' if not bad else f'{bad} NOT FINITE'}"
    )
    num_values, num_bytes, num_bad = num_values + values.size, num_bytes + values.nbytes, num_bad + bad
  finite = "all finite" if not num_bad else f"{num_bad} NOT FINITE"
  return [*lines, f"  {len(lines)} leaves, {num_values:,} values, {_size(num_bytes)}, {finite}"]


def _group_lines(group: StoredGroup, workdir: str) -> list[str]:
  """Returns what one group's checkpoints hold; raises ValueError on a step or machine that is not there."""
  names = [machine.name for machine in group.machines]
  lane = names.index(_MACHINE.value) if _MACHINE.value else None
  directory = group_directory(workdir, group.number)
  if not directory.exists():
    return [f"group {group.number}: no checkpoint yet"]
  checkpoints = Checkpoints(directory, read_only=True)
  try:
    steps = checkpoints.steps()
    lines = [f"group {group.number}: {len(names)} machines, steps {', '.join(map(str, steps)) or 'none'}"]
    if not steps:
      return lines
    for step in steps:
      skipped = sum(checkpoints.about(step)["verdicts"]["num_skipped"])
      lines.append(f"  step {step}: {skipped} steps skipped over all machines")
    step = steps[-1] if _STEP.value is None else _STEP.value
    about = checkpoints.about(step)
    tree = checkpoints.read_tree(step)
  finally:
    checkpoints.close()
  versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
  lines += [f"step {step}, written by {versions}", "best state of each machine:"]
  for i, name in enumerate(names):
    if lane in (None, i):
      loss, told = about["best_loss"][i], "not validated yet"
      if loss is not None:
        told = f"validation loss {loss:.6g} at step {about['best_step'][i]}"
      lines.append(f"  {name}: {told}; {about['verdicts']['num_skipped'][i]} steps skipped")
  shown = tree if _FULL.value else {"best_params": tree["best_params"]}
  lines += ["arrays:", *_tree_lines(shown, lane)]
  if not _FULL.value:
    rest = {name: branch for name, branch in tree.items() if name != "best_params"}
    lines += ["all else (current parameters, optimizer, counters; --full shows them):", _tree_lines(rest, lane)[-1]]
  return lines


def _metric_lines(group: StoredGroup) -> list[str]:
  targets = set(group.targets)
  named = [name if i in targets else f"({name})" for i, name in enumerate(group.metrics)]
  return [f"{len(named)} metrics (in brackets: input only): {', '.join(named)}"]


def _config_lines(config: Config) -> list[str]:
  found = differences(config, Config())
  return ["config, where it differs from the defaults:"] + [
    f"  {path} = {here!r} (default {default!r})" for path, (here, default) in found.items()
  ]


def _threshold_lines(workdir: str) -> list[str]:
  if not (epath.Path(workdir) / CALIBRATION).exists():
    return ["thresholds: none yet; train.py ends with them"]
  calibrations, about = read_calibration(workdir)
  lines = [f"thresholds (rule {about['rule']}, checkpoint steps {about['checkpoint_steps']}):"]
  for name, entry in calibrations.items():
    if _MACHINE.value in (None, name):
      lines.append(f"  {name}: {entry.threshold:.6g} (initial {entry.initial:.6g}); {entry.pot.status}")
  return lines


def main() -> int:
  """Prints everything; returns the exit code."""
  opened = run_flags.open_workdir(_WORKDIR.value)
  names = [machine.name for group in opened.groups for machine in group.machines]
  if _MACHINE.value and _MACHINE.value not in names:
    raise ValueError(f"--machine={_MACHINE.value}: not in this run; there are {', '.join(names)}")
  lines = [f"run {opened.run['run_id']} of {opened.run['created']}, commit {opened.run['commit'] or 'unknown'}"]
  lines += [f"data: {opened.run['data_dir'] or opened.run['source']} ({opened.config.data.dataset})"]
  lines += _config_lines(opened.config)
  for group in opened.groups:
    if _MACHINE.value in (None, *(machine.name for machine in group.machines)):
      lines += [*_group_lines(group, _WORKDIR.value), *_metric_lines(group)]
  lines += _threshold_lines(_WORKDIR.value)
  print("\n".join(lines))
  return 0


if __name__ == "__main__":
  run(main)
