"""Trains the next model from the one in use, and puts it in its place only if it passes its checks.

python scripts/retrain.py --current=runs/live --next=runs/2026-11-28 --source=myfleet
python scripts/retrain.py --current=runs/live --put_back

runs/live is a link to a work directory (ln -s 2026-11-21 runs/live); every other command takes it as --workdir.
The next run has the same settings, and networks begin with the old ones' weights (train.py --warm_start); taken up
again where it was stopped. It must finish, retire no machine anew, not be worse in validation loss, still find the
faults put into its check part, and raise no more alarms there than promised; else the link stays as it is, and the
exit code is 1. The run that was replaced stays; runs/live.previous is a link to it, which --put_back changes places
with.
"""

import json
import os
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags
from program import UsageError, run
from sub_runs import run_training
from terminal import Row, table_lines

from mtad_jax.config_choices import Detector
from mtad_jax.detect.calibrate_run import read_calibration
from mtad_jax.evaluate.succession import RunFacts, Tolerance, reasons_against
from mtad_jax.train.fleet_file import read_fleet
from mtad_jax.train.inspection import machine_records
from mtad_jax.train.reading import open_group
from mtad_jax.train.workdir import CALIBRATION, CONFIG, RUN, read_config, read_json

FLAGS = flags.FLAGS
flags.DEFINE_string("current", None, "link to the work directory in use", required=True)
flags.DEFINE_string("next", None, "work directory of the next run")
flags.DEFINE_string("data_dir", None, "prepared data to train on; default: where the run in use read them")
flags.DEFINE_string("source", None, "in place of --data_dir: a folder of raw files")
flags.DEFINE_float("max_loss_rise", Tolerance().loss_rise, "by which a machine's validation loss may be higher")
flags.DEFINE_float("max_found_drop", Tolerance().found_drop, "share of injected faults that may be found less")
flags.DEFINE_bool("put_back", False, "make the run before current again; trains nothing")

_CONFIG_FILE = '''import json
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  return ConfigDict(json.loads(Path({path!r}).read_text()))
'''


def _target(link: Path) -> Path:
  """Returns the work directory that a link points to."""
  if link.is_dir() and not link.is_symlink():
    raise ValueError(
      f"{link}: a folder, and a link to one is wanted, that can be changed in one step: mv {link} {link}.first;"
      f" ln -s {link.name}.first {link}"
    )
  if not link.is_symlink() or not link.is_dir():
    raise ValueError(f"{link}: no link to a work directory; ln -s WORKDIR {link} makes one")
  return link.resolve()


def _point(link: Path, target: Path) -> None:
  """Lets the link point to `target`, in one step: whoever reads it finds the old or the new one."""
  made = link.with_name(f".{link.name}.{uuid.uuid4().hex[:8]}")
  try:
    made.symlink_to(target, target_is_directory=True)
    os.replace(made, link)
  finally:
    made.unlink(missing_ok=True)


def _previous(link: Path) -> Path:
  return link.with_name(f"{link.name}.previous")


def _put_back(link: Path) -> None:
  now, before = _target(link), _target(_previous(link))
  _point(link, before)
  _point(_previous(link), now)
  print(f"{link}: {before} is current again, in place of {now}")


def _train(old: Path, new: Path) -> None:
  """Trains and calibrates the next run; raises ValueError where it did not finish."""
  about = read_json(old / RUN, "train.py", ("data_dir", "source"))
  given = {"data_dir": FLAGS.data_dir, "source": FLAGS.source}
  if not any(given.values()):
    given = {name: about[name] for name in given}
  data = [f"--{name}={value}" for name, value in given.items() if value]
  # a damaged config is told here, by its name; all but networks are fitted in seconds and begin with nothing
  is_network = read_config(old).model.detector is Detector.MTAD_GAT
  warm = [f"--warm_start={old}"] if is_network else []
  with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "config.py"
    file.write_text(_CONFIG_FILE.format(path=str(old / CONFIG)))
    run_training(f"--config={file}", *data, f"--workdir={new}", *warm)


def _facts(workdir: Path) -> RunFacts:
  losses: dict[str, float | None] = {}
  retired: dict[str, bool] = {}
  has_checkpoints = read_config(workdir).model.detector is not Detector.ROLE_MIXTURE
  for group in read_fleet(workdir) if has_checkpoints else []:
    with open_group(workdir, group.number) as checkpoints:
      for record in machine_records(checkpoints.about(checkpoints.steps()[-1])):
        losses[record["name"]] = record["best_loss"]
        retired[record["name"]] = bool(record["retired"])
  read_calibration(workdir)  # refuses a damaged one
  entries = json.loads((workdir / CALIBRATION).read_text())["machines"]
  return RunFacts(losses, retired, entries)


def _found(entry: Mapping[str, Any]) -> str:
  """Returns how many of the faults put into a machine's check part raise an alarm."""
  alive = entry.get("alive", {})
  counts = [sum(alive.get(field, {}).values()) for field in ("detected", "injected")]
  return f"{counts[0]} of {counts[1]}" if counts[1] else "-"


def _loss(value: float | None) -> str:
  return "-" if value is None else f"{value:.4f}"


def _summary_lines(before: RunFacts, after: RunFacts, rest: str) -> list[str]:
  """Returns the two runs side by side, the machines first whose loss rose most."""
  told = []
  for name in dict.fromkeys([*after.calibrations, *before.calibrations]):
    old, new = before.losses.get(name), after.losses.get(name)
    rise = new - old if old is not None and new is not None else 0.0
    entries = [facts.calibrations.get(name, {}) for facts in (before, after)]
    check = entries[1].get("check", {})
    promised = check.get("promised_alarms")
    is_bad = bool(after.retired.get(name)) or not entries[1]
    cells = (
      name,
      _loss(old),
      _loss(new),
      *map(_found, entries),
      str(check.get("num_alarms", "-")),
      "-" if promised is None else f"{promised:.2g}",
      "GONE" if not entries[1] else "RETIRED" if is_bad else "new" if not entries[0] else "",
    )
    told.append(((not is_bad, -rise), Row(cells, is_bad)))
  told.sort(key=lambda pair: pair[0])
  head = ("machine", "loss before", "now", "faults found before", "now", "check alarms", "promised", "remarks")
  return table_lines(head, [row for _, row in told], rest)


def main() -> None:
  """Trains, checks and makes current, or changes the two links' places."""
  link = Path(FLAGS.current.rstrip("/"))
  if bool(FLAGS.next) == FLAGS.put_back:
    raise UsageError("one of --next and --put_back is wanted")
  if FLAGS.data_dir and FLAGS.source:
    raise UsageError("--data_dir and --source: one of them, not both")
  if FLAGS.put_back:
    _put_back(link)
    return
  old, new = _target(link), Path(FLAGS.next).resolve()
  if new == old:
    raise UsageError(f"--next={FLAGS.next}: this is the run in use")
  before = _facts(old)
  stays = f"{old} stays current, {new} is not"
  try:
    _train(old, new)
  except ValueError as error:
    raise ValueError(f"{stays}: training did not finish: {error}") from None
  after = _facts(new)
  print("\n".join(_summary_lines(before, after, str(new / CALIBRATION))))
  tolerance = Tolerance(FLAGS.max_loss_rise, FLAGS.max_found_drop)
  reasons = reasons_against(before, after, tolerance)
  if reasons:
    raise ValueError(f"{stays}: {'; '.join(reasons)}")
  _point(_previous(link), old)  # first: a kill in between leaves the old one current
  _point(link, new)
  print(f"{link}: {new} is current; {_previous(link)} is {old}, which --put_back makes current again")


if __name__ == "__main__":
  run(main)
