"""One machine as a TFDS example and back: the schema of a prepared dataset.

Matrices are stored flat, because TFDS without TensorFlow cannot read an array with two unknown sizes; the
number of metrics gives the shape back. Times are milliseconds since 1970, empty where there are none.
"""

import json
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mtad_jax.data.machine import Interpretation, Machine, Series

_MAX_BYTES = 2**31 - 2**20  # a record is one protocol buffer, which ends at 2 GiB


def _array(dtype: Any) -> tfds.features.Tensor:
  return tfds.features.Tensor(shape=(None,), dtype=dtype, encoding="bytes")


FEATURES = {
  "name": tfds.features.Text(),
  "role": tfds.features.Text(),
  "metrics": tfds.features.Text(doc="JSON list of names, in the order of the columns"),
  "train": _array(np.float64),
  "train_timestamps": _array(np.int64),
  "test": _array(np.float64),
  "test_timestamps": _array(np.int64),
  "has_labels": tfds.features.Scalar(dtype=np.bool_),
  "labels": _array(np.bool_),
  "interpretation": tfds.features.Text(doc="JSON list of [start, end, [metric, ...], kind, strength]"),
}


def _flat_times(series: Series) -> np.ndarray:
  if series.timestamps is None:
    return np.zeros(0, np.int64)
  return series.timestamps.astype("datetime64[ms]").astype(np.int64)


def to_example(machine: Machine) -> dict[str, Any]:
  """Returns the machine in the form of FEATURES.

  Raises:
    ValueError: series that do not fit the names, or too large for one record.
  """
  for split, series in (("train", machine.train), ("test", machine.test)):
    if series.values.ndim != 2 or series.values.shape[1] != len(machine.metrics):
      raise ValueError(
        f"machine {machine.name!r}: {split} values have shape {series.values.shape}; "
        f"[rows, {len(machine.metrics)}] is wanted"
      )
  size = machine.train.values.nbytes + machine.test.values.nbytes
  if size > _MAX_BYTES:
    raise ValueError(
      f"machine {machine.name!r}: {size} bytes; a prepared machine holds {_MAX_BYTES} at most: "
      "train from the folder by --source, or on fewer rows"
    )
  has_labels = machine.labels is not None
  return {
    "name": machine.name,
    "role": machine.role,
    "metrics": json.dumps(list(machine.metrics)),
    "train": np.ascontiguousarray(machine.train.values, np.float64).ravel(),
    "train_timestamps": _flat_times(machine.train),
    "test": np.ascontiguousarray(machine.test.values, np.float64).ravel(),
    "test_timestamps": _flat_times(machine.test),
    "has_labels": has_labels,
    "labels": np.asarray(machine.labels, bool) if has_labels else np.zeros(0, bool),
    "interpretation": json.dumps([list(segment) for segment in machine.interpretation]),
  }


def _series(values: np.ndarray, times: np.ndarray, num_metrics: int) -> Series:
  # copies: TFDS gives read-only views, and a machine from a file is writable
  timestamps = np.array(times, np.int64).astype("datetime64[ms]") if len(times) else None
  return Series(np.array(values, np.float64).reshape(-1, num_metrics), timestamps)


def from_example(example: dict[str, Any]) -> Machine:
  """Returns the machine of an example as TFDS's data source gives it."""
  metrics = tuple(json.loads(example["metrics"]))
  segments = json.loads(example["interpretation"])
  return Machine(
    name=example["name"].decode(),
    role=example["role"].decode(),
    metrics=metrics,
    train=_series(example["train"], example["train_timestamps"], len(metrics)),
    test=_series(example["test"], example["test_timestamps"], len(metrics)),
    labels=np.array(example["labels"], bool) if example["has_labels"] else None,
    interpretation=tuple(
      Interpretation(start, end, tuple(causes), kind, strength)
      for start, end, causes, kind, strength in segments
    ),
  )
