"""Programs of this folder run one after the other by another program, each in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epath

from mtad_jax.train.workdir import write_json


def run_program(program: str, *arguments: str) -> None:
  """Runs one of the programs beside this; raises ValueError with its last words where it fails."""
  path = Path(__file__).with_name(program)
  command = [sys.executable, str(path), *arguments]
  done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
  if done.returncode:
    words = done.stderr.strip().splitlines()
    raise ValueError(f"{program} {' '.join(arguments)}: exit code {done.returncode}: {words[-1] if words else ''}")


def check_made_with(folder: Path, settings: Mapping[str, Any]) -> None:
  """Notes beside `folder` what it is made with; what is there already must have been made with the same.

  Raises:
    ValueError: it was made with something else, which is named, or nothing says with what.
  """
  note = folder.with_name(f"{folder.name}.made_with.json")
  wanted = json.loads(json.dumps(settings))
  if note.exists():
    known = json.loads(note.read_text())
    for name in [name for name in {**known, **wanted} if known.get(name) != wanted.get(name)][:1]:
      told = f"{name} {known.get(name)!r}, now {wanted.get(name)!r}"
      raise ValueError(f"{folder}: made with {told}; remove it, or name another --workdir")
  elif folder.exists():
    raise ValueError(f"{folder}: {note.name} is missing, which says what it was made with; name another --workdir")
  else:
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_json(epath.Path(note), wanted)


def mean_and_span(values: list[float], digits: int = 3) -> str:
  """Returns the mean, and behind ± half the span where there are several values."""
  text = f"{sum(values) / len(values):.{digits}f}"
  return text if len(values) == 1 else f"{text} ±{(max(values) - min(values)) / 2:.{digits}f}"
