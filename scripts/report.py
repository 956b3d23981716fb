"""Writes the report of a work directory: one HTML file that opens offline.

python scripts/report.py --workdir=runs/mine
python scripts/report.py --workdir=runs/mine --scores=scored --output=scored/report.html

It begins with who is in alarm and the fleet as a heat map, then the worst events; a click on either leads to the
machine: its score, its metrics by time, and of each event the causes and the values against what was expected.
"""

import datetime
import os
from pathlib import Path

from absl import flags
from program import UsageError, run

from mtad_jax.report.inputs import read_work
from mtad_jax.report.page import render

_WORKDIR = flags.DEFINE_string("workdir", None, "the work directory of a training run", required=True)
_SCORES = flags.DEFINE_string("scores", "", "folder with scores.parquet and events.parquet; default: workdir")
_OUTPUT = flags.DEFINE_string("output", "", "the file to write; default: report.html in the work directory")


def main() -> None:
  """Reads the work directory, renders the page, and puts it in place in one step."""
  if "://" in _OUTPUT.value:
    raise UsageError(f"--output={_OUTPUT.value}: the report needs a local path")
  work = read_work(_WORKDIR.value, _SCORES.value)
  output = Path(_OUTPUT.value) if _OUTPUT.value else work.path / "report.html"
  if not output.parent.is_dir():
    raise UsageError(f"--output={output}: there is no folder {output.parent}")
  made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
  page = render(work, made=made)
  # a reader who reloads while this runs sees the old page or the new one, never half of one
  partial = output.with_name(f".{output.name}.{os.getpid()}")
  try:
    partial.write_text(page, encoding="utf-8")
    partial.replace(output)
  finally:
    partial.unlink(missing_ok=True)
  for part, reason in work.missing.items():
    print(f"without {part}: {reason}")
  print(f"{output.resolve()} ({output.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
  run(main)
