"""Programs of this folder run one after the other by another program, each in a process of its own."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from etils import epath
from terminal import meter

from mtad_jax.train.workdir import write_json

_STEP = re.compile(r"step (\d+)/(\d+): ")  # what train.py prints where no bar of its own is shown


def _ignored(line: str) -> None:
  """Does nothing with what a program says."""


def run_program(program: str, *arguments: str, heard: Callable[[str], None] = _ignored) -> None:
  """Runs one of the programs beside this; raises ValueError with its last words where it fails.

  Args:
    heard: is given each line that it prints, as it prints it.
  """
  path = Path(__file__).with_name(program)
  command = [sys.executable, str(path), *arguments]
  with tempfile.TemporaryFile("w+") as errors:  # a pipe that nobody reads would stop the program when it is full
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=dict(os.environ)) as process:
      try:
        for line in process.stdout or ():
          heard(line.rstrip("\n"))
      except BaseException:
        process.terminate()  # and waited for, as the block ends
        raise
    errors.seek(0)
    words = errors.read().strip().splitlines()
  if process.returncode:
    raise ValueError(f"{program} {' '.join(arguments)}: exit code {process.returncode}: {words[-1] if words else ''}")


def run_training(*arguments: str) -> None:
  """Runs train.py as `run_program` does, with a progress bar of its steps where somebody looks on."""
  with meter("training") as tell:

    def heard(line: str) -> None:
      found = _STEP.match(line)
      if found:
        tell(int(found[1]), int(found[2]))

    run_program("train.py", *arguments, heard=heard)


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
