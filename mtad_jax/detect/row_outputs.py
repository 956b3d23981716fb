"""The network's forecast and reconstruction of every row of every machine, all machines at once, over all devices.

Row t is forecast from the window t - W .. t - 1 and reconstructed from the window that ends at t; one forward
pass of the window before row p gives the forecast of p and the reconstruction of p - 1, so each window
is run once. Batches have one fixed shape: a row's figures do not depend on what else is scored.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from mtad_jax.config import Config
from mtad_jax.config_choices import RunMode
from mtad_jax.data.track import Track, untracked
from mtad_jax.data.windows import gather_windows
from mtad_jax.model.network import apply
from mtad_jax.model.precision import matmul_precision
from mtad_jax.roles.attribution import Explained, Scorer, explain_series
from mtad_jax.train.mesh import BATCH, MACHINES, make_mesh, to_mesh

SMALLEST_VARIANCE = 1e-12  # scaled units squared; stands in where the decoder's floor is switched off


class RowOutputs(NamedTuple):
  """One machine's outputs in scaled units, [T, F'] float32, NaN in rows below W; None where the mode has none.

  forecast: of the row. reconstruction, variance: mean and variance of the row under the decoder, or of each metric
  given the others under a role's mixture; of which alone surprise [T] and attribution [T, F'] are: see
  `roles/attribution.py`.
  """

  forecast: np.ndarray | None
  reconstruction: np.ndarray | None
  variance: np.ndarray | None
  surprise: np.ndarray | None = None
  attribution: np.ndarray | None = None


def expect_constants(outputs: RowOutputs, is_constant: np.ndarray, variance_floor: float) -> RowOutputs:
  """Returns the outputs with metrics that never moved in training expected at their constant, scaled 0.

  The network has learnt nothing of them but 0, and what it says beside that when the other metrics go astray would
  accuse the wrong metric: an error of a hundredth is ten times their error floor.

  Args:
    is_constant: [F'] bool, of the scored metrics.
    variance_floor: of the decoder, scaled units squared.
  """

  def replaced(values: np.ndarray | None, constant: float) -> np.ndarray | None:
    if values is None:
      return None
    return np.where(is_constant[None, :] & ~np.isnan(values), np.float32(constant), values)

  floor = max(variance_floor, SMALLEST_VARIANCE)
  return outputs._replace(
    forecast=replaced(outputs.forecast, 0.0),
    reconstruction=replaced(outputs.reconstruction, 0.0),
    variance=replaced(outputs.variance, floor),
  )


class _Batch(NamedTuple):
  """forecast of the rows after the windows, the reconstruction of the windows' last rows; [M, B, F'] each."""

  forecast: jax.Array | None
  mean: jax.Array | None
  variance: jax.Array | None


def _one_machine(params: Any, values: jax.Array, next_rows: jax.Array, *, config: Config, num: int) -> _Batch:
  windows = gather_windows(values, next_rows, config.model.window_size)
  with matmul_precision(config.model):
    outputs = apply(params, windows, settings=config.model, num_targets=num, last_row_only=True)
  found = outputs.reconstruction
  return _Batch(outputs.forecast, found.mean if found else None, found.variance if found else None)


@lru_cache(maxsize=1)  # the blocks of a fleet share one compiled program
def make_forward(
  config: Config, num_targets: int, mesh: Mesh
) -> Callable[[Any, jax.Array, np.ndarray], _Batch]:
  """Returns the compiled pass (stacked params, values [M, T, F], next_rows [B]) -> one batch of every machine."""
  one_machine = partial(_one_machine, config=config, num=num_targets)
  spread = jax.shard_map(
    jax.vmap(one_machine, in_axes=(0, 0, None)),
    mesh=mesh,
    in_specs=(MACHINES, MACHINES, P(BATCH)),
    out_specs=P(*MACHINES, BATCH),
    check_vma=False,
  )
  return jax.jit(spread)


def stack_series(series: Sequence[np.ndarray], window: int) -> np.ndarray:
  """Returns [M, T, F] float32, filled up with zeros to more than a window and than the longest of the series."""
  # one length class per power of two, so that a new fleet seldom means a new program
  longest = 1 << max(window, *(len(x) for x in series)).bit_length()
  values = np.zeros((len(series), longest, series[0].shape[1]), np.float32)
  for i, x in enumerate(series):
    values[i, : len(x)] = x
  return values


def compute_row_outputs(
  params: Any, series: Sequence[np.ndarray], config: Config, num_targets: int, track: Track = untracked
) -> list[RowOutputs]:
  """Returns each machine's outputs, computed on all devices of this process; a role's mixture uses one of them.

  Args:
    params: stacked parameters, [M, ...] leaves; or stacked `Scorer`s.
    series: M arrays [T_i, F] float32, scaled; T_i may differ, and be below W.
    config: run mode, window and score_batch are read.
    num_targets: F'.
    track: watches the batches.
  """
  window, batch = config.model.window_size, config.detect.score_batch
  if isinstance(params, Scorer):
    return [_mixture_outputs(found) for found in explain_series(params, series, batch, track=track)]
  lengths = [len(x) for x in series]
  values = stack_series(series, window)
  longest = values.shape[1]
  mesh = make_mesh(len(series), batch, devices=jax.local_devices())
  forward = make_forward(config, num_targets, mesh)
  params, on_device = to_mesh((params, values), mesh)
  del values
  found: list[list[np.ndarray]] = [[], [], []]
  waiting: _Batch | None = None
  for first in track(range(window, max(lengths) + 1, batch), "running the model"):
    next_rows = np.minimum(np.arange(first, first + batch), longest).astype(np.int32)
    running = forward(params, on_device, next_rows)
    if waiting is not None:
      _collect(waiting, found)  # the device computes the next batch meanwhile
    waiting = running
  if waiting is not None:
    _collect(waiting, found)
  stacked = [np.concatenate(parts, axis=1) if parts else None for parts in found]  # [M, rows - W + 1, F']
  return [_align(stacked, i, length, window, num_targets, config) for i, length in enumerate(lengths)]


def _mixture_outputs(found: Explained) -> RowOutputs:
  expected = found.expected.astype(np.float32)
  variance = np.maximum(found.variance, SMALLEST_VARIANCE).astype(np.float32)
  return RowOutputs(None, expected, variance, found.surprise, found.attribution)


def _collect(batch: _Batch, found: list[list[np.ndarray]]) -> None:
  for parts, array in zip(found, batch, strict=True):
    if array is not None:
      parts.append(np.asarray(array))


def _align(
  stacked: list[np.ndarray | None], lane: int, length: int, window: int, num_targets: int, config: Config
) -> RowOutputs:
  """Returns one machine's lane with entry k moved to row W + k (forecast) or W + k - 1 (reconstruction)."""
  mode = config.model.run_mode
  count = max(length - window, 0)

  def rows(array: np.ndarray | None, shift: int) -> np.ndarray:
    full = np.full((length, num_targets), np.nan, np.float32)
    if array is not None and count:
      full[window:] = array[lane, shift : shift + count]
    return full

  forecast = None if mode is RunMode.RECONSTRUCTING else rows(stacked[0], 0)
  if mode is RunMode.FORECASTING:
    return RowOutputs(forecast, None, None)
  return RowOutputs(forecast, rows(stacked[1], 1), rows(stacked[2], 1))
