"""SMAP and MSL: NASA's telemetry channels (Hundman et al. 2018), npy files and labeled_anomalies.csv.

Column 0 is the telemetry value, the others are commands sent, one-hot. Every channel is a machine. Segments
are inclusive at both ends; a channel listed twice (P-2) has the union of its segments.
"""

import csv
import io
import json
from collections.abc import Sequence

import numpy as np
from absl import logging
from etils import epath

from mtad_jax.data.fleet_folder import list_files, natural_key, select_machines
from mtad_jax.data.machine import Interpretation, Machine, Series, empty_series
from mtad_jax.data.table import read_table
from mtad_jax.data.track import Track, untracked

NUM_COMMANDS = {"SMAP": 24, "MSL": 54}
LABEL_FILE = "labeled_anomalies.csv"
_COLUMNS = ("chan_id", "spacecraft", "anomaly_sequences")


def metric_names(spacecraft: str) -> tuple[str, ...]:
  """Returns `telemetry`, then `command_1` and on; raises ValueError for an unknown spacecraft."""
  if spacecraft not in NUM_COMMANDS:
    raise ValueError(f"spacecraft {spacecraft!r} is unknown; {' or '.join(NUM_COMMANDS)} is wanted")
  return ("telemetry", *(f"command_{i + 1}" for i in range(NUM_COMMANDS[spacecraft])))


def role_of(name: str) -> str:
  """Returns the channel's family, its leading letter.

  The letter says what is measured (P power, R radiation, T temperature, and so on): the nearest thing to
  hosts that do the same work. All channels of a spacecraft together share neither level nor rhythm.
  """
  return name.split("-")[0]


def _parse_segments(text: str, place: str) -> list[tuple[int, int]]:
  """Returns [(start, end exclusive)] from `[[first, last], ...]`."""
  try:
    pairs = json.loads(text)
  except json.JSONDecodeError:
    pairs = None
  whole = isinstance(pairs, list) and all(
    isinstance(pair, list) and len(pair) == 2 and all(type(row) is int for row in pair) for pair in pairs
  )
  if not whole:
    raise ValueError(f"{place}, column 'anomaly_sequences': {text!r} is not [[first, last], ...]")
  for first, last in pairs:
    if not 0 <= first <= last:
      raise ValueError(f"{place}, column 'anomaly_sequences': [{first}, {last}] is not 0 <= first <= last")
  return [(first, last + 1) for first, last in pairs]


def _read_segments(path: epath.Path) -> dict[str, tuple[str, list[tuple[int, int]]]]:
  """Returns {channel: (spacecraft, segments)} of labeled_anomalies.csv."""
  if not path.exists():
    raise ValueError(f"{path}: no such file; it holds the segments of all channels")
  reader = csv.reader(io.StringIO(path.read_text()))
  header = next(reader, [])
  for column in _COLUMNS:
    if column not in header:
      raise ValueError(f"{path}: row 1: no column {column!r}; {', '.join(_COLUMNS)} are wanted")
  places = [header.index(column) for column in _COLUMNS]
  result: dict[str, tuple[str, list[tuple[int, int]]]] = {}
  for fields in reader:
    place = f"{path}: row {reader.line_num}"
    if len(fields) != len(header):
      raise ValueError(f"{place}: {len(fields)} fields; {len(header)} are wanted")
    name, spacecraft, text = (fields[i] for i in places)
    known = result.setdefault(name, (spacecraft, []))
    if known[0] != spacecraft:
      raise ValueError(f"{place}: channel {name!r} is of {spacecraft} here and of {known[0]} above")
    known[1].extend(_parse_segments(text, place))
  return result


def _merge(segments: list[tuple[int, int]]) -> list[tuple[int, int]]:
  """Returns the union of the segments in order of time; those that touch become one."""
  merged: list[tuple[int, int]] = []
  for start, end in sorted(segments):
    if merged and start <= merged[-1][1]:
      merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
    else:
      merged.append((start, end))
  return merged


def _read_values(path: epath.Path, num_metrics: int) -> np.ndarray:
  values = read_table(path).series.values
  if values.shape[1] != num_metrics:
    raise ValueError(f"{path}: {values.shape[1]} columns; {num_metrics} are wanted")
  return values


def list_channels(path: epath.PathLike, spacecraft: str) -> list[str]:
  """Returns the names of a spacecraft's labelled channels that have both splits, in natural order."""
  root = epath.Path(path)
  labelled = _read_segments(root / LABEL_FILE)
  train, test = (list_files(root / split, (".npy",)) for split in ("train", "test"))
  names = [name for name, (craft, _) in labelled.items() if craft == spacecraft]
  return sorted((name for name in names if name in train and name in test), key=natural_key)


def read_telemanom(
  path: epath.PathLike,
  spacecraft: str,
  machines: Sequence[str] = (),
  *,
  require_train: bool = True,
  track: Track = untracked,
) -> list[Machine]:
  """Returns the labelled channels of a spacecraft, in natural order; one left out is logged by name.

  Args:
    path: the folder with train/, test/ and labeled_anomalies.csv.
    spacecraft: SMAP or MSL.
    machines: only these channels; empty: all.
    require_train: whether a channel in test/ must be in train/ too.
    track: watches the reading, channel by channel.

  Raises:
    ValueError: an unknown spacecraft or channel, a channel with only one split, or a wrong file.
  """
  root, metrics = epath.Path(path), metric_names(spacecraft)
  if not root.is_dir():
    raise ValueError(f"{root}: no such folder; train/, test/ and {LABEL_FILE} are wanted")
  labelled = _read_segments(root / LABEL_FILE)
  train, test = (list_files(root / split, (".npy",)) for split in ("train", "test"))
  for name in {**train, **test}:
    if name not in labelled:
      # T-10 of MSL has series but no row; which rows of it are normal is not known
      logging.warning("%s: channel %s is left out; %s has no row for it", root, name, LABEL_FILE)
  of_craft = sorted((name for name, (craft, _) in labelled.items() if craft == spacecraft), key=natural_key)
  present = []
  for name in of_craft:
    if name in test and (name in train or not require_train):
      present.append(name)
    elif name in train or name in test:
      there, absent = ("train", "test") if name in train else ("test", "train")
      raise ValueError(f"{root}: channel {name!r} is in {there}/ but not in {absent}/")
    else:
      logging.warning("%s: channel %s is left out; it has no files", root, name)
  result = []
  for name in track(select_machines(present, machines, f"{root} ({spacecraft})"), "reading"):
    known = Series(_read_values(train[name], len(metrics))) if name in train else empty_series(len(metrics))
    test_values = _read_values(test[name], len(metrics))
    segments = _merge(labelled[name][1])
    labels = np.zeros(len(test_values), bool)
    for start, end in segments:
      if end > len(labels):
        raise ValueError(f"{root / LABEL_FILE}: channel {name!r}: row {end - 1} of {len(labels)} (from 0)")
      labels[start:end] = True
    interpretation = tuple(Interpretation(start, end, (0,)) for start, end in segments)
    result.append(Machine(name, role_of(name), metrics, known, Series(test_values), labels, interpretation))
  return result
