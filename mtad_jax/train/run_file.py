"""run.json: which run a work directory holds, from what data, by which versions; made once, checked on resuming."""

import datetime
import platform
import subprocess
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from etils import epath

from mtad_jax.config import Config, differences, dumps
from mtad_jax.train.fleet_file import check_same_data
from mtad_jax.train.workdir import (
  CONFIG,
  FLEET,
  RUN,
  is_cloud,
  read_config,
  read_json,
  write_json,
  write_whole,
)

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


def written_by() -> dict[str, Any]:
  """Returns the versions of Python and of the packages that figures depend on, the devices and processes."""
  return {
    "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}},
    "devices": [str(device) for device in jax.devices()],
    "num_processes": jax.process_count(),
  }


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
  workdir: epath.PathLike,
  config: Config,
  fleet: dict[str, Any],
  data_dir: str | None,
  source: str | None,
  warm_start: str | None = None,
) -> dict[str, Any]:
  """Returns run.json's content: made for a new work directory, read and checked for one to resume.

  Args:
    fleet: from `describe_fleet`. data_dir, source: where the data were read.
    warm_start: the work directory that first parameters come from; for one to resume, None is what it began with.

  Raises:
    ValueError: the work directory belongs to another config, other data or another warm start.
  """
  folder = epath.Path(workdir)
  places = {"data_dir": _lasting(data_dir), "source": _lasting(source)}
  warm_start = _lasting(warm_start)
  if (folder / RUN).exists():
    check_same_run(config, read_config(folder), workdir)
    check_same_data(read_json(folder / FLEET, "train.py"), fleet, folder / FLEET)
    run = read_json(folder / RUN, "train.py", ("run_id", "warm_start"))
    if warm_start not in (None, run["warm_start"]):
      raise ValueError(
        f"{folder / RUN}: this run began with --warm_start={run['warm_start']}, not {warm_start};"
        " use another --workdir"
      )
    write_whole(folder / CONFIG, dumps(config))
    run |= places  # the same data may lie elsewhere by now
    write_json(folder / RUN, run)
    return run
  folder.mkdir(parents=True, exist_ok=True)
  run = {
    "run_id": uuid.uuid4().hex,
    "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    **places,
    "warm_start": warm_start,
    "commit": _commit(),
    **written_by(),
  }
  write_whole(folder / CONFIG, dumps(config))
  write_json(folder / FLEET, fleet)
  write_json(folder / RUN, run)  # last: a directory without it is taken as new
  return run


def note_sources(workdir: epath.PathLike, sources: dict[str, str | None]) -> None:
  """Writes into run.json which machine of the other run each machine began from; None: drawn."""
  file = epath.Path(workdir) / RUN
  run = read_json(file, "train.py")
  # a resumed run asks for the sources of those groups alone that had no checkpoint yet
  write_json(file, {**run, "warm_start_from": {**run.get("warm_start_from", {}), **sources}})
