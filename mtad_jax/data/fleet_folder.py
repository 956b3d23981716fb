"""A fleet folder to machines: train/, test/, test_label/, interpretation_label/, roles.csv, faults.csv.

One file NAME.ext per machine and split. Whatever is wrong in a file ends the reading with one line that names
it. `table.py` reads one file of it.
"""

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from absl import logging
from etils import epath

from mtad_jax.data.causes import parse_interpretation, read_csv_rows, read_fault_rows, to_interpretation
from mtad_jax.data.machine import Interpretation, Machine, empty_series
from mtad_jax.data.table import EXTENSIONS, Table, read_labels, read_table
from mtad_jax.data.track import Track, untracked

DEFAULT_ROLE = "all"  # where nothing tells roles apart, the fleet does one kind of work
SPLITS = ("train", "test", "test_label", "interpretation_label")


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
  """Returns the sort key that puts machine-1-2 before machine-1-10."""
  parts = re.split(r"(\d+)", name)
  return tuple((1, int(part)) if i % 2 else (0, part) for i, part in enumerate(parts))


def list_files(folder: epath.Path, extensions: Sequence[str] = EXTENSIONS) -> dict[str, epath.Path]:
  """Returns {machine: file} of one split, in natural order; empty where there is no such folder.

  Raises:
    ValueError: a file of an unknown type, or two files for one machine.
  """
  files: dict[str, epath.Path] = {}
  if not folder.is_dir():
    return files
  for path in sorted(folder.iterdir(), key=lambda path: path.name):
    if path.name.startswith("."):
      continue
    if path.suffix not in extensions or path.is_dir():
      raise ValueError(f"{path}: not a machine's file; NAME with one of {', '.join(extensions)} is wanted")
    if path.stem in files:
      raise ValueError(f"{path}: machine {path.stem!r} already has {files[path.stem].name}")
    files[path.stem] = path
  return dict(sorted(files.items(), key=lambda item: natural_key(item[0])))


def select_machines(known: Iterable[str], wanted: Sequence[str], where: str) -> list[str]:
  """Returns the wanted names in the order of the known ones; all of them where none is wanted.

  Raises:
    ValueError: a wanted name that is not known.
  """
  known = list(known)
  for name in wanted:
    if name not in known:
      raise ValueError(f"{where}: no machine {name!r}; known: {', '.join(known) or 'none'}")
  return [name for name in known if not wanted or name in wanted]


def _read_roles(path: epath.Path, known: Sequence[str]) -> dict[str, str] | None:
  """Returns {machine: role} of roles.csv, or None where there is no such file."""
  if not path.exists():
    return None
  roles: dict[str, str] = {}
  for row, fields in enumerate(read_csv_rows(path, ("machine", "role")), start=2):
    name, role = fields["machine"], fields["role"]
    if name not in known:
      raise ValueError(f"{path}: row {row}: no machine {name!r}; known: {', '.join(known)}")
    if name in roles or not role:
      fault = (
        f"machine {name!r} stands there twice" if name in roles else f"machine {name!r} has an empty role"
      )
      raise ValueError(f"{path}: row {row}: {fault}")
    roles[name] = role
  missing = [name for name in known if name not in roles]
  if missing:
    raise ValueError(f"{path}: no role for machine {missing[0]!r}; every machine needs one")
  return roles


def _named(table: Table, metrics: tuple[str, ...] | None, path: epath.Path) -> tuple[str, ...]:
  """Returns the names of a table's columns: its own, the given ones, or metric_0 and on."""
  count = table.series.values.shape[1]
  if table.metrics is not None:
    if metrics is not None and table.metrics != metrics:
      raise ValueError(f"{path}: metrics {', '.join(table.metrics)}; {', '.join(metrics)} are wanted")
    return table.metrics
  if metrics is None:
    return tuple(f"metric_{i}" for i in range(count))
  if count != len(metrics):
    raise ValueError(f"{path}: {count} columns; {len(metrics)} metrics are wanted")
  return metrics


def _check_same_metrics(train: tuple[str, ...], test: tuple[str, ...], path: epath.Path) -> None:
  """Raises ValueError where the test file's metrics are not the training file's, in its order."""
  if train == test:
    return
  if len(train) != len(test):
    raise ValueError(f"{path}: {len(test)} metrics; the training file has {len(train)}")
  first = next(i for i in range(len(train)) if train[i] != test[i])
  raise ValueError(
    f"{path}: metric {first + 1} is {test[first]!r}; the training file has {train[first]!r} in its place"
  )


def _merge_labels(
  own: np.ndarray | None, path: epath.Path | None, test: epath.Path, num_rows: int
) -> np.ndarray | None:
  """Returns the labels of the test file's last column or of test_label/; where both are, they must agree."""
  if path is None:
    return own
  labels = read_labels(path)
  if len(labels) != num_rows:
    raise ValueError(f"{path}: {len(labels)} labels; {test} has {num_rows} rows")
  if own is not None and not np.array_equal(own, labels):
    row = int(np.flatnonzero(own != labels)[0])
    raise ValueError(f"{path}: label {row + 1} differs from the label column of {test}")
  return labels


class _Folder:
  """The files of a fleet folder by split and machine, and what roles.csv and faults.csv say."""

  def __init__(self, root: epath.Path):
    self.train, self.test, self.labels = (list_files(root / split) for split in SPLITS[:3])
    self.causes = list_files(root / SPLITS[3], (".txt",))
    self.names = sorted({*self.train, *self.test}, key=natural_key)
    self.roles = _read_roles(root / "roles.csv", self.names)
    self.fault_file = root / "faults.csv"
    self.faults = read_fault_rows(self.fault_file) if self.fault_file.exists() else {}
    for name, rows in self.faults.items():
      if name not in self.test:
        raise ValueError(f"{self.fault_file}: row {rows[0][0]}: no machine {name!r} in {root / 'test'}")
    for path in [path for files in (self.labels, self.causes) for path in files.values()]:
      if path.stem not in self.test:
        logging.warning("%s: left out; there is no machine %r in test/", path, path.stem)

  def interpretation(self, name: str, metrics: tuple[str, ...], num_rows: int) -> tuple[Interpretation, ...]:
    """Returns the machine's known causes; faults.csv says more than interpretation_label/."""
    if name in self.faults:
      return tuple(
        to_interpretation(fields, f"{self.fault_file}: row {row}", num_rows=num_rows, metrics=metrics)
        for row, fields in self.faults[name]
      )
    if name not in self.causes:
      return ()
    path = self.causes[name]
    return parse_interpretation(path.read_text(), str(path), num_rows=num_rows, num_metrics=len(metrics))

  def machine(self, name: str, metrics: tuple[str, ...] | None, role: str) -> Machine:
    """Returns one machine; a split without a file is empty."""
    if name in self.train:
      table = read_table(self.train[name])
      if table.labels is not None and table.labels.any():
        logging.warning("%s: labels are left out; training takes none", self.train[name])
      names, train = _named(table, metrics, self.train[name]), table.series
    if name not in self.test:
      return Machine(name, role, names, train, empty_series(len(names)))
    path = self.test[name]
    table = read_table(path)
    test_names, test = _named(table, metrics, path), table.series
    if name in self.train:
      _check_same_metrics(names, test_names, path)
    else:
      names, train = test_names, empty_series(len(test_names))
    num_rows = len(test.values)
    labels = _merge_labels(table.labels, self.labels.get(name), path, num_rows)
    return Machine(name, role, names, train, test, labels, self.interpretation(name, names, num_rows))


def list_folder(path: epath.PathLike) -> list[str]:
  """Returns the names of a fleet folder's machines in natural order; none where there is no such folder."""
  root = epath.Path(path)
  files = [list_files(root / split) for split in SPLITS[:2]]
  return sorted({name for split in files for name in split}, key=natural_key)


def read_fleet_folder(
  path: epath.PathLike,
  *,
  metrics: tuple[str, ...] | None = None,
  machines: Sequence[str] = (),
  require_train: bool = True,
  role_of: Callable[[str], str] | None = None,
  track: Track = untracked,
) -> list[Machine]:
  """Returns the machines of a fleet folder, in natural order of their names.

  Args:
    path: the folder, local or in the cloud.
    metrics: names for files that have none (txt, npy), or metric_0 and on; a named file must have these.
    machines: only these; empty: all.
    require_train: whether a machine in test/ must be in train/ too; new data to score have no train/.
    role_of: gives a machine's role by its name where there is no roles.csv; without it, one role for all.
    track: watches the reading, machine by machine.

  Raises:
    ValueError: anything wrong in the folder or a file, in one line.
  """
  root = epath.Path(path)
  if not root.is_dir():
    raise ValueError(f"{root}: no such folder; a fleet folder with train/ and test/ is wanted")
  folder = _Folder(root)
  if not folder.names:
    raise ValueError(f"{root}: no machines; train/NAME and test/NAME with {', '.join(EXTENSIONS)} are wanted")
  if require_train:
    missing = [name for name in folder.names if name not in folder.train]
    if missing:
      raise ValueError(f"{folder.test[missing[0]]}: machine {missing[0]!r} is in test/ but not in train/")
  result = []
  for name in track(select_machines(folder.names, machines, str(root)), "reading"):
    fallback = role_of(name) if role_of else DEFAULT_ROLE
    result.append(folder.machine(name, metrics, folder.roles[name] if folder.roles else fallback))
  return result
