"""Machines to a fleet folder of csv, parquet, txt or npy files that `read_fleet_folder` takes back.

The folder is written beside its place and renamed when complete.
"""

import csv
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from mtad_jax.data.causes import FAULT_COLUMNS
from mtad_jax.data.machine import Machine, Series
from mtad_jax.data.table import EXTENSIONS, LABEL_COLUMNS, TIME_COLUMN


def _arrow_table(metrics: tuple[str, ...], series: Series, labels: np.ndarray | None) -> pa.Table:
  columns: dict[str, pa.Array] = {}
  if series.timestamps is not None:
    columns[TIME_COLUMN] = pa.array(np.datetime_as_string(series.timestamps, unit="ms").tolist(), pa.string())
  for i, name in enumerate(metrics):
    # a missing value is written as an empty field, not as the text nan
    columns[name] = pa.array(series.values[:, i], from_pandas=True)
  if labels is not None:
    columns[LABEL_COLUMNS[0]] = pa.array(labels.astype(np.int8))
  return pa.table(columns)


def _write_series(path: Path, metrics: tuple[str, ...], series: Series, labels: np.ndarray | None) -> None:
  """Writes one file; txt and npy have no place for labels, which the caller writes apart."""
  path.parent.mkdir(exist_ok=True)
  if path.suffix == ".npy":
    np.save(path, series.values, allow_pickle=False)
  elif path.suffix == ".txt":
    np.savetxt(path, series.values, fmt="%.17g", delimiter=",")
  elif path.suffix == ".csv":
    options = pa.csv.WriteOptions(quoting_style="needed")
    pa.csv.write_csv(_arrow_table(metrics, series, labels), path, options)
  else:
    pa.parquet.write_table(_arrow_table(metrics, series, labels), path)


def _write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
  with path.open("w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)


def _write_causes(machines: Sequence[Machine], root: Path) -> None:
  """Writes faults.csv for machines whose segments have a kind, interpretation_label/ for the others."""
  faults = []
  for machine in machines:
    if any(segment.kind for segment in machine.interpretation):
      for segment in machine.interpretation:
        names = ";".join(machine.metrics[i] for i in segment.metrics)
        faults.append((machine.name, segment.kind, segment.strength, segment.start, segment.end, names))
    elif machine.interpretation:
      folder = root / "interpretation_label"
      folder.mkdir(exist_ok=True)
      lines = (
        f"{s.start}-{s.end}:{','.join(str(i + 1) for i in s.metrics)}\n" for s in machine.interpretation
      )
      (folder / f"{machine.name}.txt").write_text("".join(lines))
  if faults:
    _write_rows(root / "faults.csv", FAULT_COLUMNS, faults)


def _check(machines: Sequence[Machine], extension: str, target: Path) -> None:
  if extension not in EXTENSIONS:
    raise ValueError(f"extension {extension!r} is unknown; one of {', '.join(EXTENSIONS)} is wanted")
  if target.exists():
    raise ValueError(f"{target}: is there already; a new folder is wanted")
  names = [machine.name for machine in machines]
  for machine in machines:
    if names.count(machine.name) > 1:
      raise ValueError(f"machine {machine.name!r} is there twice; names must differ")
    timed = machine.train.timestamps is not None or machine.test.timestamps is not None
    if timed and extension in (".txt", ".npy"):
      raise ValueError(f"machine {machine.name!r} has timestamps, which {extension} cannot hold; .csv can")
    for metric in machine.metrics:
      if ";" in metric and machine.interpretation:
        raise ValueError(
          f"machine {machine.name!r}: metric {metric!r} holds ';', the separator of faults.csv"
        )


def write_fleet_folder(machines: Sequence[Machine], path: str | Path, *, extension: str = ".csv") -> None:
  """Returns nothing; writes the machines as a fleet folder at `path`, complete or not at all.

  csv and parquet keep names, times and labels; txt and npy keep values, with labels in test_label/.

  Args:
    machines: the fleet.
    path: a folder that does not exist yet.
    extension: .csv, .parquet, .txt or .npy.

  Raises:
    ValueError: the folder is there, a machine twice, or something the format cannot hold.
  """
  target = Path(path)
  _check(machines, extension, target)
  target.parent.mkdir(parents=True, exist_ok=True)
  fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
  try:
    for machine in machines:
      if len(machine.train.values):
        _write_series(fresh / "train" / f"{machine.name}{extension}", machine.metrics, machine.train, None)
      if not len(machine.test.values):
        continue
      _write_series(
        fresh / "test" / f"{machine.name}{extension}", machine.metrics, machine.test, machine.labels
      )
      if machine.labels is not None and extension in (".txt", ".npy"):
        folder = fresh / "test_label"
        folder.mkdir(exist_ok=True)
        np.savetxt(folder / f"{machine.name}.txt", machine.labels, fmt="%d")
    _write_rows(
      fresh / "roles.csv", ("machine", "role"), [(machine.name, machine.role) for machine in machines]
    )
    _write_causes(machines, fresh)
    fresh.chmod(0o755)  # mkdtemp's folder is the owner's alone
    fresh.rename(target)
  finally:
    shutil.rmtree(fresh, ignore_errors=True)
