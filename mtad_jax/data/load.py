"""A run's machines by its settings: from a prepared dataset, or straight from raw files.

The one place that knows which reader belongs to which dataset.
"""

from collections.abc import Sequence

from mtad_jax.config import DataConfig
from mtad_jax.data.builder import find_dataset, read_dataset
from mtad_jax.data.fleet_folder import list_folder, read_fleet_folder, select_machines
from mtad_jax.data.machine import Machine
from mtad_jax.data.smd import read_smd
from mtad_jax.data.telemanom import list_channels, read_telemanom
from mtad_jax.data.track import Track, untracked


def read_source(
  dataset: str,
  source: str,
  machines: Sequence[str] = (),
  *,
  require_train: bool = True,
  track: Track = untracked,
) -> list[Machine]:
  """Returns the machines of a folder of raw files.

  Args:
    dataset: smd, smap, msl, folder or simulated (a simulated fleet in files is a fleet folder).
    source: the folder in its publisher's layout.
    machines: only these; empty: all.
    require_train: whether a machine in test/ must be in train/ too; new data to score have no train/.
    track: watches the reading, machine by machine.

  Raises:
    ValueError: an unknown dataset, or whatever the reader finds wrong.
  """
  if dataset == "smd":
    return read_smd(source, machines, require_train=require_train, track=track)
  if dataset in ("smap", "msl"):
    return read_telemanom(source, dataset.upper(), machines, require_train=require_train, track=track)
  if dataset in ("folder", "simulated"):
    return read_fleet_folder(source, machines=machines, require_train=require_train, track=track)
  raise ValueError(f"dataset {dataset!r} is unknown; one of smd, smap, msl, folder, simulated is wanted")


def list_machines(data: DataConfig, *, data_dir: str | None, source: str | None) -> list[str]:
  """Returns the names of the machines that `load_machines` gives, in its order, without reading their series."""
  place = data_dir or source or ""
  if data_dir:
    stored = find_dataset(data.dataset, data_dir)
    known = list(stored.machines) if stored else []
  elif data.dataset in ("smap", "msl"):
    known = list_channels(place, data.dataset.upper())
  else:
    known = list_folder(place)
  return select_machines(known, data.machines, place)


def load_machines(
  data: DataConfig, *, data_dir: str | None, source: str | None, track: Track = untracked
) -> list[Machine]:
  """Returns the machines that a run is about: `data.machines` of `data.dataset`, or all of it.

  Args:
    data: the settings.
    data_dir: the folder with prepared datasets; exactly one of this and `source` is given.
    source: a folder of raw files.
    track: watches the reading, machine by machine.

  Raises:
    ValueError: both or neither given, an unknown machine, nothing there, or what reading finds.
  """
  if bool(data_dir) == bool(source):
    given = f"data_dir {data_dir!r} and source {source!r}" if data_dir else "neither data_dir nor source"
    raise ValueError(f"{given} given; exactly one of --data_dir and --source is wanted")
  if data_dir:
    machines = read_dataset(data.dataset, data_dir, data.machines, track)
  else:
    machines = read_source(data.dataset, source or "", data.machines, track=track)
  if not machines:
    raise ValueError(
      f"{data_dir or source}: dataset {data.dataset!r} has no machines; at least one is wanted"
    )
  return machines
