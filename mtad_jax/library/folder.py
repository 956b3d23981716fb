"""The folder a detector keeps its run in, its own temporary one or a given one: copied whole, packed as bytes."""

import os
import shutil
import tempfile
import uuid
import weakref
from pathlib import Path
from typing import Any

from mtad_jax.train.workdir import is_cloud
from mtad_jax.train.writer_lock import LOCK


def make_temporary(owner: Any) -> tuple[Path, weakref.finalize]:
  """Returns a new folder and what removes it: called, or when `owner` or the program ends."""
  path = Path(tempfile.mkdtemp(prefix="mtad_jax-"))
  return path, weakref.finalize(owner, shutil.rmtree, path, ignore_errors=True)


def copy_whole(folder: str | os.PathLike, target: str | os.PathLike) -> None:
  """Copies a folder, whole or not at all; `target` must not be there yet.

  Raises:
    ValueError: it is there, or in cloud storage. OSError: it cannot be written.
  """
  if is_cloud(os.fspath(target)):
    raise ValueError(f"{target}: a local path is wanted; give such a place as workdir= to fit")
  path = Path(target)
  if path.exists():
    raise ValueError(f"{path}: is there already; a path that is not there yet is wanted")
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
  try:
    shutil.copytree(folder, temporary, ignore=shutil.ignore_patterns(LOCK))
    temporary.rename(path)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def pack(folder: str | os.PathLike) -> dict[str, bytes]:
  """Returns a folder's files by their paths in it; `unpack` is its inverse."""
  root = Path(folder)
  files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != LOCK)
  return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def unpack(files: dict[str, bytes], folder: Path) -> None:
  """Writes the files of `pack` into a folder."""
  for name, content in files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
