"""The work directory: which file holds what, and whole-or-nothing writing of its JSON files.

config.json (resolved settings), run.json (run id, source of the data, versions), fleet.json (groups, machines,
scalers, parts, notes), checkpoints/group-N, metrics.jsonl, calibration.json, prior.toml,
role_mixtures.npz, scores, report. Paths may be on
gs:// where the libraries allow it.
"""

import json
import re
import uuid
from typing import Any

from etils import epath

from mtad_jax.config import Config, loads

CONFIG, RUN, FLEET, CALIBRATION = "config.json", "run.json", "fleet.json", "calibration.json"
CHECKPOINTS = "checkpoints"
PRIOR = "prior.toml"
# What write_whole, the tables of scores and the metrics file call their files until they are whole.
_LITTER = re.compile(
  r"\.[^.]+\.(json|csv|toml|npz)\.[0-9a-f]{8}|\.[a-z_]+\.[0-9a-f]{8}\.parquet|\.metrics\.jsonl\.new"
)


def is_cloud(path: str) -> bool:
  """Returns whether `path` lies in cloud storage (has a scheme such as gs://)."""
  return "://" in path


def group_directory(workdir: epath.PathLike, index: int) -> epath.Path:
  """Returns where a group's checkpoints lie."""
  return epath.Path(workdir) / CHECKPOINTS / f"group-{index}"


def write_json(path: epath.PathLike, content: Any) -> None:
  """Writes JSON whole or not at all; raises ValueError on NaN or infinity, which JSON does not have."""
  write_whole(path, json.dumps(content, indent=1, allow_nan=False))


def write_whole(path: epath.PathLike, text: str) -> None:
  """Writes a text file whole or not at all: a temporary file beside it, then a rename.

  Raises:
    OSError: no space, no permission or the like; what was there before stays as it was.
  """
  target = epath.Path(path)
  temporary = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
  try:
    temporary.write_text(text)
    temporary.replace(target)
  except OSError as error:  # a full disk's own error names no file
    raise OSError(f"{target}: cannot be written: {error.strerror or error}") from error
  finally:
    if temporary.exists():
      temporary.unlink()


def sweep(folder: epath.PathLike) -> list[str]:
  """Returns the names of the hidden temporary files that killed writers left in `folder`, removed.

  To be called by the one writer, after it has the lock: another writer's files look the same. Nothing else is
  touched, and no folder below.
  """
  found = sorted(
    path for path in epath.Path(folder).iterdir() if _LITTER.fullmatch(path.name) and path.is_file()
  )
  for path in found:
    path.unlink()
  return [path.name for path in found]


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


def read_config(workdir: epath.PathLike) -> Config:
  """Returns the settings that a work directory was made with."""
  path = epath.Path(workdir) / CONFIG
  if not path.exists():
    raise ValueError(f"{path}: not found; train.py writes it: is {workdir} a work directory?")
  try:
    return loads(path.read_text())
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from None
