"""The work directory: which file holds what, and whole-or-nothing writing of its JSON files.

config.json (resolved settings), run.json (run id, source of the data, versions), fleet.json (groups, machines,
scalers, parts, notes), checkpoints/group-N, metrics.jsonl, calibration.json, scores, report. Paths may be on
gs:// where the libraries allow it.
"""

import datetime
import json
import platform
import subprocess
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from etils import epath

from mtad_jax.config import Config, differences, dumps, loads

CONFIG, RUN, FLEET, CALIBRATION = "config.json", "run.json", "fleet.json", "calibration.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
_PACKAGES = ("mtad_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")

# A run may be taken up again with another value of these; every other one makes it another run.
_FREE = (
  "detect.",
  "evaluate.",
  "train.num_train_steps",
  "train.window_budget",
  "train.checkpoint_every_steps",
  "train.checkpoints_to_keep",
  "train.max_dispatch_s",
  "train.progress_bar",
  "train.tensorboard",
)


def is_cloud(path: str) -> bool:
  """Returns whether `path` lies in cloud storage (has a scheme such as gs://)."""
  return "://" in path


def write_json(path: epath.PathLike, content: Any) -> None:
  """Writes JSON whole or not at all; raises ValueError on NaN or infinity, which JSON does not have."""
  write_whole(path, json.dumps(content, indent=1, allow_nan=False))


def write_whole(path: epath.PathLike, text: str) -> None:
  """Writes a text file whole or not at all: a temporary file beside it, then a rename."""
  target = epath.Path(path)
  temporary = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
  try:
    temporary.write_text(text)
    temporary.replace(target)
  finally:
    if temporary.exists():
      temporary.unlink()


def read_json(path: epath.PathLike, made_by: str, fields: tuple[str, ...] = ()) -> Any:
  """Returns a JSON file's content; raises ValueError naming the file and the command that writes it.

  Args:
    fields: what the content must have, lest a damaged file be found out halfway.
  """
  file = epath.Path(path)
  if not file.exists():
    raise ValueError(f"{file}: not found; {made_by} writes it")
  try:
    content = json.loads(file.read_text())
  except ValueError as error:  # no JSON, or no UTF-8
    raise ValueError(f"{file}: not valid JSON ({error})") from None
  missing = [name for name in fields if not isinstance(content, dict) or name not in content]
  if missing:
    raise ValueError(f"{file}: field {missing[0]!r} is missing; {made_by} writes it")
  return content


def _commit() -> str | None:
  """Returns the commit of the source tree, or None where it is not a git checkout."""
  folder = Path(__file__).resolve().parents[2]
  if not (folder / ".git").exists():
    return None
  try:
    done = subprocess.run(
      ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
    )
  except (OSError, subprocess.CalledProcessError):
    return None  # recorded as unknown, shown as such
  return done.stdout.strip()


def versions() -> dict[str, str]:
  """Returns the versions of Python and of the packages that figures depend on."""
  return {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}}


def read_config(workdir: epath.PathLike) -> Config:
  """Returns the settings that a work directory was made with."""
  path = epath.Path(workdir) / CONFIG
  if not path.exists():
    raise ValueError(f"{path}: not found; train.py writes it: is {workdir} a work directory?")
  try:
    return loads(path.read_text())
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from None


def check_same_run(config: Config, stored: Config, workdir: epath.PathLike) -> None:
  """Raises ValueError naming the settings in which `config` would make another run than the stored one."""
  found = {path: values for path, values in differences(config, stored).items() if not path.startswith(_FREE)}
  if found:
    told = "; ".join(f"{path} is {here!r}, there {there!r}" for path, (here, there) in found.items())
    raise ValueError(f"{workdir} was made by another config: {told}. Choose another --workdir")


def _lasting(path: str | None) -> str | None:
  """Returns a place on this disk as an absolute path, so that later commands find it from any folder."""
  return str(Path(path).expanduser().resolve()) if path and not is_cloud(path) else path


def open_run(
  workdir: epath.PathLike, config: Config, fleet: dict[str, Any], data_dir: str | None, source: str | None
) -> dict[str, Any]:
  """Returns run.json's content: made for a new work directory, read and checked for one to resume.

  Raises:
    ValueError: the work directory belongs to another config or other data.
  """
  folder = epath.Path(workdir)
  places = {"data_dir": _lasting(data_dir), "source": _lasting(source)}
  if (folder / RUN).exists():
    check_same_run(config, read_config(folder), workdir)
    stored = read_json(folder / FLEET, "train.py")
    if stored["fingerprint"] != fleet["fingerprint"]:
      raise ValueError(
        f"{folder / FLEET}: the data differ from those that this run began with; use another --workdir"
      )
    write_whole(folder / CONFIG, dumps(config))
    run = {**read_json(folder / RUN, "train.py"), **places}  # the same data may lie elsewhere by now
    write_json(folder / RUN, run)
    return run
  folder.mkdir(parents=True, exist_ok=True)
  run = {
    "run_id": uuid.uuid4().hex,
    "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    **places,
    "commit": _commit(),
    "versions": versions(),
    "devices": [str(device) for device in jax.devices()],
  }
  write_whole(folder / CONFIG, dumps(config))
  write_json(folder / FLEET, fleet)
  write_json(folder / RUN, run)  # last: a directory without it is taken as new
  return run
