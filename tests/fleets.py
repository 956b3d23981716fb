"""Tiny fleets written by hand as files, the commands run on them, and a configuration that trains in seconds."""

import contextlib
import datetime
import io
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import app, flags

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
WINDOW = 8
CONFIG = f"--config={ROOT / 'configs' / 'fleet.py'}:cpu"
TINY = (
  CONFIG,
  f"--config.model.window_size={WINDOW}",
  "--config.model.kernel_size=3",
  "--config.model.hidden_size=8",
  "--config.model.forecast_size=8",
  "--config.model.decoder_size=8",
  "--config.model.latent_size=4",
  "--config.train.window_budget=0",
  "--config.train.num_train_steps=200",
  "--config.train.batch_size=16",
  "--config.train.validate_every_steps=20",
  "--config.train.checkpoint_every_steps=50",
  "--config.train.log_every_steps=5",
  "--config.train.max_dispatch_s=0.01",  # many short dispatches, so that a signal finds the run in its middle
)
NUM_STEPS = 200

WEB = ("cpu", "latency", "requests", "disk_size", "memory")  # requests counts, disk_size never changes

NUM_TRAIN, NUM_TEST = 400, 240
LABELLED = slice(150, 160)
GAP_START, GAP_SLOTS = 100, 20  # of web-2's test: rows from GAP_START on come 20 minutes late
START = datetime.datetime(2026, 3, 1)


class Done(NamedTuple):
  """How a command ended."""

  code: int
  stdout: str
  stderr: str


def series(metrics: Sequence[str], num_rows: int, seed: int, first: int = 0) -> np.ndarray:
  """Returns [num_rows, F] values of the named metrics, rows counted from `first` of an endless series."""
  rng = np.random.default_rng(seed)
  time = np.arange(first, first + num_rows)
  columns = []
  for i, name in enumerate(metrics):
    wave = np.sin(2 * np.pi * time / 40 + i)
    if name in ("requests", "queries"):
      columns.append(
        5000.0 + 30.0 * first + np.cumsum(np.round(30 + 10 * wave + rng.uniform(0, 5, num_rows)))
      )
    elif name == "disk_size":
      columns.append(np.full(num_rows, 512.0))
    else:
      columns.append(50 + 20 * wave + rng.normal(0, 2, num_rows))
  return np.stack(columns, axis=1)


def minutes(
  num_rows: int, *, late: bool = True, gap: tuple[int, int] | None = None, first: int = 0
) -> np.ndarray:
  """Returns [num_rows] datetime64[ms], one a minute; every seventh row is 12 s late, `gap` is (row, minutes)."""
  slots = np.arange(first, first + num_rows)
  if gap:
    slots[gap[0] :] += gap[1]
  seconds = 60 * slots + 12 * (late & (np.arange(num_rows) % 7 == 3))
  return np.datetime64(START, "ms") + (1000 * seconds).astype("timedelta64[ms]")


def write_csv(
  path: Path,
  metrics: Sequence[str],
  values: np.ndarray,
  timestamps: np.ndarray | None = None,
  labels: np.ndarray | None = None,
) -> None:
  """Writes one machine's split; NaN becomes an empty field."""
  path.parent.mkdir(parents=True, exist_ok=True)
  header = [
    *(() if timestamps is None else ("timestamp",)),
    *metrics,
    *(() if labels is None else ("is_anomaly",)),
  ]
  lines = [",".join(header)]
  for row, numbers in enumerate(values):
    fields = ["" if np.isnan(x) else f"{x:.6g}" if abs(x) < 1000 else f"{x:.1f}" for x in numbers]
    if timestamps is not None:
      fields.insert(0, str(timestamps[row]))
    if labels is not None:
      fields.append(str(int(labels[row])))
    lines.append(",".join(fields))
  path.write_text("\n".join(lines) + "\n")


class Trained(NamedTuple):
  """A trained and scored work directory, the fleet it was trained on, and what train.py said."""

  fleet: Path
  workdir: Path
  stdout: str


class Split(NamedTuple):
  """What was written for one machine and split."""

  metrics: tuple[str, ...]
  values: np.ndarray
  timestamps: np.ndarray
  labels: np.ndarray


def test_split(name: str) -> Split:
  """Returns the test rows of a machine of `write_fleet`: empty fields, late rows, in web-2 a missing stretch."""
  metrics = WEB
  seed = 10 + sum(map(ord, name))
  values = series(metrics, NUM_TEST, seed, first=NUM_TRAIN)
  values[30, 0] = values[60:62, 1] = np.nan
  gap = (GAP_START, GAP_SLOTS) if name == "web-2" else None
  labels = np.zeros(NUM_TEST, bool)
  labels[LABELLED] = True
  values[LABELLED, 0] += 60
  return Split(metrics, values, minutes(NUM_TEST, gap=gap, first=NUM_TRAIN + 15), labels)


test_split.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test


def write_fleet(root: Path, names: Sequence[str] = ("db-1", "web-1", "web-2")) -> Path:
  """Writes a fleet folder of CSV files as a user would have them; returns it."""
  for name in names:
    metrics = WEB
    values = series(metrics, NUM_TRAIN, sum(map(ord, name)))
    values[50, 0] = values[200:203, 1] = np.nan
    timestamps = minutes(NUM_TRAIN, gap=(300, 12))
    write_csv(root / "train" / f"{name}.csv", metrics, values, timestamps)
    split = test_split(name)
    write_csv(root / "test" / f"{name}.csv", *split)
  roles = "".join(f"{name},{name.split('-')[0]}\n" for name in names)
  (root / "roles.csv").write_text("machine,role\n" + roles)
  return root


def run_process(script: str, *arguments: str | Path, timeout_s: float = 300, **environment: str) -> Done:
  """Runs a command as a user does; for exit codes and for what stands on stderr."""
  done = subprocess.run(
    [sys.executable, str(SCRIPTS / script), *map(str, arguments)],
    capture_output=True,
    text=True,
    timeout=timeout_s,
    env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
  )
  return Done(done.returncode, done.stdout, done.stderr)


def _forget_flags(before: set[str], script: str) -> None:
  """Takes away what a command defined, so that the next can define the same names; libraries keep theirs."""
  flags.FLAGS.unparse_flags()
  for name in set(flags.FLAGS) - before:
    owner = flags.FLAGS.find_module_defining_flag(name)
    if owner in (script, "__main__", "run_flags") or name.split(".")[0] == "config":
      delattr(flags.FLAGS, name)


def run_here(script: str, *arguments: str | Path) -> Done:
  """Runs a command in this process, which spares seconds of imports; its flags are taken away afterwards."""
  if str(SCRIPTS) not in sys.path:
    sys.path.insert(0, str(SCRIPTS))
  app.define_help_flags()
  before = set(flags.FLAGS)
  argv, sys.argv = sys.argv, [str(SCRIPTS / script), *map(str, arguments)]
  out, err = io.StringIO(), io.StringIO()
  code: Any = None
  try:
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
      # of ml_collections, on reading a config file; Python shows it to nobody but pytest
      warnings.filterwarnings("ignore", r"the load_module\(\) method", DeprecationWarning)
      runpy.run_path(str(SCRIPTS / script), run_name="__main__")
  except SystemExit as end:
    code = end.code
  finally:
    _forget_flags(before, sys.argv[0])
    sys.argv = argv
  return Done(int(code or 0), out.getvalue(), err.getvalue())


def succeeded(done: Done) -> Done:
  """Returns a command's end, after asserting that it went well and said nothing on stderr."""
  assert (done.code, done.stderr) == (0, ""), f"exit code {done.code}\n{done.stdout}\n{done.stderr}"
  return done


def refused(done: Done, code: int, *parts: str) -> str:
  """Returns the one line a command failed with, after asserting that it is one, the code, and what it names."""
  lines = done.stderr.splitlines()
  assert len(lines) == 1, done.stderr
  assert lines[0].startswith("error: ")
  assert "Traceback" not in lines[0]
  assert done.code == code, lines[0]
  for part in parts:
    assert part in lines[0], lines[0]
  return lines[0]


def train_and_score(root: Path, *arguments: str) -> Trained:
  """Returns a fleet of `write_fleet` in root/fleet and the run of it in root/run; `arguments`: of train.py."""
  fleet, workdir = write_fleet(root / "fleet"), root / "run"
  done = succeeded(run_here("train.py", *arguments, f"--source={fleet}", f"--workdir={workdir}"))
  succeeded(run_here("score.py", f"--workdir={workdir}"))
  return Trained(fleet, workdir, done.stdout)


def read_table(path: Path) -> dict[str, np.ndarray]:
  """Returns a Parquet file's columns; null numbers are NaN."""
  table = pq.read_table(path)
  columns = {}
  for name in table.column_names:
    column = table[name]
    if pa.types.is_string(column.type):
      columns[name] = np.array(column.to_pylist())
    elif pa.types.is_list(column.type):
      columns[name] = np.array([*column.to_pylist(), None], object)[:-1]  # else equal lists become an axis
    else:
      columns[name] = column.to_numpy()
  return columns


def of_machine(table: dict[str, np.ndarray], machine: str) -> dict[str, np.ndarray]:
  """Returns the rows of one machine."""
  return {name: column[table["machine"] == machine] for name, column in table.items()}


def files_of(folder: Path) -> dict[str, bytes]:
  """Returns every file under a folder with its content, to tell whether anything changed."""
  return {
    str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
  }
