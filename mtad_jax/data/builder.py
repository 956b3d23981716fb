"""Machines to a TFDS dataset on disk and back, bit-equal, without TensorFlow.

One example per machine, ArrayRecord files, split `machines`. A dataset is written into a hidden folder beside
its place and renamed when complete, so a killed or failed writer leaves nothing that could be read.
"""

import contextlib
import errno
import fcntl
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from mtad_jax.data.example import FEATURES, from_example, to_example
from mtad_jax.data.fleet_folder import select_machines
from mtad_jax.data.machine import Machine
from mtad_jax.data.track import Track, untracked

DATASETS = ("smd", "smap", "msl", "folder", "simulated")
SPLIT = "machines"
VERSION = "1.0.0"


class Stored(NamedTuple):
  """What a prepared dataset says of itself: the hash of its source and its machines, in order."""

  fingerprint: str
  machines: tuple[str, ...]


class FleetBuilder(tfds.core.GeneratorBasedBuilder):
  """TFDS builder of any fleet; the subclasses below give the dataset's name."""

  VERSION = tfds.core.Version(VERSION)

  def __init__(self, *, machines: Iterable[Machine] = (), fingerprint: str = "", **kwargs: Any):
    self._machines = machines
    self._names: list[str] = []
    self._fingerprint = fingerprint
    # explicit, because the default file format needs TensorFlow
    super().__init__(file_format="array_record", **kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description="A fleet: one example per machine, with raw series, labels and causes.",
      features=tfds.features.FeaturesDict(FEATURES),
      disable_shuffling=True,
      # the list fills while examples are generated; TFDS writes the metadata after that
      metadata=tfds.core.MetadataDict(fingerprint=self._fingerprint, machines=self._names),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    del dl_manager  # `download.py` fetches; a builder only writes
    return {SPLIT: self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
    for i, machine in enumerate(self._machines):
      # TFDS reports a duplicate key as a missing TensorFlow: check here, and number the keys
      if machine.name in self._names:
        raise ValueError(f"machine {machine.name!r} is there twice; names must differ")
      self._names.append(machine.name)
      yield i, to_example(machine)
    if not self._names:
      raise ValueError("no machines; at least one is wanted")


class Smd(FleetBuilder):
  """Server Machine Dataset."""


class Smap(FleetBuilder):
  """NASA's SMAP channels."""


class Msl(FleetBuilder):
  """NASA's MSL channels."""


class Folder(FleetBuilder):
  """Any fleet folder."""


class Simulated(FleetBuilder):
  """A simulated fleet."""


_BUILDERS: dict[str, type[FleetBuilder]] = {cls.name: cls for cls in (Smd, Smap, Msl, Folder, Simulated)}


def check_place(name: str, data_dir: str) -> Path:
  """Returns data_dir as a local path; raises ValueError for an unknown dataset or a cloud address."""
  if name not in DATASETS:
    raise ValueError(f"dataset {name!r} is unknown; one of {', '.join(DATASETS)} is wanted")
  if "://" in data_dir:
    raise ValueError(f"data_dir {data_dir!r} is a cloud address; ArrayRecord files need a local folder")
  return Path(data_dir).expanduser()


def find_dataset(name: str, data_dir: str) -> Stored | None:
  """Returns what the prepared dataset says of itself, or None where there is none.

  Args:
    name: smd, smap, msl, folder or simulated.
    data_dir: the folder with the datasets.

  Raises:
    ValueError: an unknown name, a cloud address, or something in its place that is no such dataset.
  """
  place = check_place(name, data_dir) / name
  if not place.exists():
    return None
  wrong = ValueError(f"{place}: not a dataset of version {VERSION}; prepare it again with --overwrite")
  try:
    metadata = _BUILDERS[name](data_dir=str(place.parent)).info.metadata or {}
    stored = Stored(metadata["fingerprint"], tuple(metadata["machines"]))
  except (KeyError, TypeError, ValueError, OSError):
    raise wrong from None
  if not stored.machines:
    raise wrong  # no folder of this version: TFDS then gives the empty metadata of `_info`
  return stored


def is_prepared(name: str, data_dir: str, fingerprint: str) -> bool:
  """Returns whether the dataset is there and made from this source.

  Raises:
    ValueError: the dataset is there but was made from other data.
  """
  stored = find_dataset(name, data_dir)
  if stored is not None and stored.fingerprint != fingerprint:
    raise ValueError(
      f"{check_place(name, data_dir) / name}: made from other data ({len(stored.machines)} machines); "
      "--overwrite replaces it"
    )
  return stored is not None


@contextlib.contextmanager
def _only_writer(name: str, root: Path) -> Iterator[None]:
  """Holds the dataset's lock, so that leftovers of a killed writer can be told from a living one's work."""
  with (root / f".{name}.lock").open("w") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise ValueError(f"{root / name}: another process is preparing it; wait for it to end") from None
    yield


def _write(name: str, machines: Iterable[Machine], place: Path, fingerprint: str) -> None:
  """Writes the dataset under `place`, complete or not at all as far as `place` is concerned."""
  builder = _BUILDERS[name](machines=machines, fingerprint=fingerprint, data_dir=str(place))
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces the hidden folder as the result
      builder.download_and_prepare()
  except RuntimeError as error:
    if "No space left" in str(error) or "Disk quota" in str(error):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place.parent / name)) from None
    raise OSError(f"{place.parent / name}: writing failed: {error}") from None


def build_dataset(
  name: str, machines: Iterable[Machine], data_dir: str, fingerprint: str, *, overwrite: bool = False
) -> bool:
  """Returns True after writing the dataset, False where it is there already, made from the same source.

  Args:
    name: smd, smap, msl, folder or simulated.
    machines: taken one at a time, in order; not touched where there is nothing to do.
    data_dir: the folder with the datasets, local; made if it is missing.
    fingerprint: hash of the source.
    overwrite: whether to replace a dataset that is there; it stays until the new one is complete.

  Raises:
    ValueError: a dataset made from other data, a machine twice, no machine, a cloud address.
    OSError: the disk is full or not writable.
  """
  root = check_place(name, data_dir)
  root.mkdir(parents=True, exist_ok=True)
  with _only_writer(name, root):
    if not overwrite and is_prepared(name, data_dir, fingerprint):
      return False
    fresh, old = root / f".{name}.incomplete", root / f".{name}.old"
    for leftover in (fresh, old):
      shutil.rmtree(leftover, ignore_errors=True)
    try:
      _write(name, machines, fresh, fingerprint)
      if (root / name).exists():
        (root / name).rename(old)
      (fresh / name).rename(root / name)
    finally:
      for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
  return True


def read_dataset(
  name: str, data_dir: str, machines: Sequence[str] = (), track: Track = untracked
) -> list[Machine]:
  """Returns the machines of a prepared dataset, bit-equal to those it was made from.

  Args:
    name: smd, smap, msl, folder or simulated.
    data_dir: the folder with the datasets.
    machines: only these, and only these are read; empty: all.
    track: watches the reading, machine by machine.

  Raises:
    ValueError: no such dataset, or a machine it does not have.
  """
  place = check_place(name, data_dir) / name
  stored = find_dataset(name, data_dir)
  if stored is None:
    raise ValueError(f"{place}: no prepared dataset; `python scripts/prepare.py --dataset={name}` makes one")
  chosen = select_machines(stored.machines, machines, str(place))
  try:
    source = _BUILDERS[name](data_dir=str(place.parent)).as_data_source(split=SPLIT)
    return [from_example(source[stored.machines.index(machine)]) for machine in track(chosen, "reading")]
  except (RuntimeError, ValueError, IndexError, OSError) as error:
    raise ValueError(f"{place}: damaged; prepare it again with --overwrite ({error})") from None
