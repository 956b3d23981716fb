"""Programs of this folder run one after the other by another program, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path


def run_program(program: str, *arguments: str) -> None:
  """Runs one of the programs beside this; raises ValueError with its last words where it fails."""
  path = Path(__file__).with_name(program)
  command = [sys.executable, str(path), *arguments]
  done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
  if done.returncode:
    words = done.stderr.strip().splitlines()
    raise ValueError(f"{program} {' '.join(arguments)}: exit code {done.returncode}: {words[-1] if words else ''}")


def mean_and_span(values: list[float], digits: int = 3) -> str:
  """Returns the mean, and behind ± half the span where there are several values."""
  text = f"{sum(values) / len(values):.{digits}f}"
  return text if len(values) == 1 else f"{text} ±{(max(values) - min(values)) / 2:.{digits}f}"
