"""Shows what a work directory's checkpoints or role mixtures hold, on any machine, without an accelerator.

python scripts/inspect_checkpoint.py --workdir=runs/mine
python scripts/inspect_checkpoint.py --workdir=runs/mine --step=200 --machine=web-1 --full
python scripts/inspect_checkpoint.py --workdir=runs/mine --compare=runs/next --compare_step=100
python scripts/inspect_checkpoint.py --workdir=runs/mine --can_score=newdata          # yes, or every reason why not
python scripts/inspect_checkpoint.py --workdir=runs/mine --machine=web-1 --export=runs/web-1
python scripts/inspect_checkpoint.py --workdir=runs/mine --verify                     # every array of every step
"""

import json
import math
import os
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # before jax is imported: nothing here is worth an accelerator

import inspect_facts
import inspect_lines
import inspect_roles
import readiness
import run_flags
from absl import flags
from program import EXIT_FAILURE, UsageError, run

from mtad_jax.config import Config
from mtad_jax.train.export import export_machine

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "the run", required=True)
flags.DEFINE_integer("step", None, "the checkpoint; default: the newest that is not damaged")
flags.DEFINE_string("machine", None, "one machine alone; default: the fleet")
flags.DEFINE_bool("full", False, "all: current parameters, optimizer, snapshot, guard; of role mixtures components")
flags.DEFINE_bool("verify", False, "read every array of every step, and name those that are damaged")
flags.DEFINE_bool("json", False, "the same facts as JSON")
flags.DEFINE_string("compare", None, "another run's work directory, to compare with")
flags.DEFINE_integer("compare_step", None, "the step to compare with, of --compare or of this run")
flags.DEFINE_string("can_score", None, "a fleet folder: can score.py score it? exit code 0: yes, 1: no")
flags.DEFINE_enum("extra", "refuse", ["refuse", "ignore"], "with --can_score: as in score.py")
flags.DEFINE_string(
  "export", None, "a new folder: --machine's model becomes a work directory of its own there"
)


def _check_flags() -> None:
  compares = FLAGS.compare is not None or FLAGS.compare_step is not None
  asked = {
    "--compare": compares,
    "--can_score": FLAGS.can_score is not None,
    "--export": FLAGS.export is not None,
  }
  chosen = [name for name, is_asked in asked.items() if is_asked]
  if len(chosen) > 1:
    raise UsageError(f"{' and '.join(chosen)}: one of them at a time")
  if chosen and (FLAGS.full or FLAGS.verify):
    raise UsageError(f"{chosen[0]}: not together with --full or --verify")
  if FLAGS.export is not None and FLAGS.machine is None:
    raise UsageError("--export: --machine=NAME is wanted, the one to export")
  if FLAGS.can_score is not None and FLAGS.step is not None:
    raise UsageError(
      "--can_score: not together with --step; score.py scores with the step of the calibration"
    )


def _check_has_checkpoints(opened: run_flags.Run, workdir: str) -> None:
  """Raises UsageError where a flag asks for checkpoints of a run that has role mixtures in their place."""
  if not inspect_roles.has_mixtures(opened.config):
    return
  for name in ("step", "verify", "compare", "compare_step", "export"):
    if FLAGS[name].value not in (None, False):
      raise UsageError(f"--{name}: {workdir} has a mixture per role and no checkpoints")


def _plain(values: Any) -> Any:
  """Returns facts for JSON, which has no NaN and no infinity: null."""
  if isinstance(values, dict):
    return {name: _plain(value) for name, value in values.items()}
  if isinstance(values, (list, tuple)):
    return [_plain(value) for value in values]
  return None if isinstance(values, float) and not math.isfinite(values) else values


def _show(facts: Any, lines: list[str]) -> None:
  print(json.dumps(_plain(facts), indent=1, allow_nan=False) if FLAGS.json else "\n".join(lines), flush=True)


def _compare(opened: run_flags.Run) -> int:
  place = FLAGS.workdir if FLAGS.compare is None else FLAGS.compare
  other = opened if FLAGS.compare is None else run_flags.open_workdir(place)
  _check_has_checkpoints(other, place)
  facts = inspect_facts.compare_facts(
    (opened, FLAGS.workdir, FLAGS.step), (other, place, FLAGS.compare_step), FLAGS.machine
  )
  _show(facts, inspect_lines.compare_lines(facts))
  return 0


def _can_score(opened: run_flags.Run) -> int:
  found = readiness.find_readiness(opened, FLAGS.workdir, FLAGS.can_score, FLAGS.machine, FLAGS.extra)
  facts = {"can_score": not found.reasons, **found._asdict()}
  _show(facts, inspect_lines.readiness_lines(facts))
  return EXIT_FAILURE if found.reasons else 0


def _export(opened: run_flags.Run) -> int:
  group = next(g for g in opened.groups if FLAGS.machine in [stored.name for stored in g.machines])
  facts = export_machine(
    FLAGS.workdir, FLAGS.export, opened.config, opened.run, group, FLAGS.machine, FLAGS.step
  )
  _show(facts, inspect_lines.export_lines(facts))
  return 0


def _inspect(opened: run_flags.Run) -> int:
  run_json, config = opened.run, opened.config
  facts: dict[str, Any] = {
    "run": {
      **{name: run_json[name] for name in ("run_id", "created", "commit")},
      "exported_from": run_json.get("exported_from"),
      "warm_start": run_json.get("warm_start"),
      "data": run_json["data_dir"] or run_json["source"],
      "dataset": config.data.dataset,
      "config": inspect_facts.config_facts(config, Config()),
    }
  }
  lines = inspect_lines.run_lines(facts["run"])
  if inspect_roles.has_mixtures(config):
    facts["mixtures"] = inspect_roles.role_facts(opened, FLAGS.workdir, FLAGS.machine, full=FLAGS.full)
    lines += inspect_roles.role_lines(facts["mixtures"])
  else:
    facts |= {"groups": [], "trouble": []}
    lines += _inspect_groups(opened, facts)
  facts["thresholds"] = inspect_facts.threshold_facts(opened, FLAGS.workdir, FLAGS.machine)
  _show(facts, lines + inspect_lines.threshold_lines(facts["thresholds"]))
  return 0


def _inspect_groups(opened: run_flags.Run, facts: dict[str, Any]) -> list[str]:
  """Returns the lines of each group's checkpoints, and adds their facts."""
  lines = []
  for group in opened.groups:
    if FLAGS.machine not in (None, *(stored.name for stored in group.machines)):
      continue
    found = inspect_facts.group_facts(
      group, FLAGS.workdir, FLAGS.machine, FLAGS.step, full=FLAGS.full, verify=FLAGS.verify
    )
    trouble = inspect_facts.trouble_facts(FLAGS.workdir, group, FLAGS.machine, found["step"])
    facts["groups"].append(found)
    facts["trouble"].append(trouble)
    lines += [*inspect_lines.group_lines(found), *inspect_lines.trouble_lines(trouble)]
  return lines


def main() -> int:
  """Prints what was asked for; returns the exit code."""
  _check_flags()
  opened = run_flags.open_workdir(FLAGS.workdir)
  names = [machine.name for group in opened.groups for machine in group.machines]
  # a machine to score may be one that the run does not have: that is then the answer, not a wrong flag
  if FLAGS.machine and FLAGS.can_score is None and FLAGS.machine not in names:
    raise ValueError(f"--machine={FLAGS.machine}: not in this run; there are {', '.join(names)}")
  _check_has_checkpoints(opened, FLAGS.workdir)
  if FLAGS.compare is not None or FLAGS.compare_step is not None:
    return _compare(opened)
  if FLAGS.can_score is not None:
    return _can_score(opened)
  return _inspect(opened) if FLAGS.export is None else _export(opened)


if __name__ == "__main__":
  run(main)
