"""Which metrics a network looks at in a row: each metric's share of the feature-oriented attention.

In: networks, scaled series, rows. Out: shares [R, F] of each machine. In a window's attention [F, F], row i says what
node i takes of every node j; a metric's share is the mean of its column, so that shares sum to 1. This is a pass of
its own over few rows: the compiler leaves out all of the network that no share depends on, the attention's product
and the GRU first of all, and the program that scores stays as it is.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from mtad_jax.config import Config
from mtad_jax.config_choices import Attention, Detector
from mtad_jax.data.windows import gather_windows
from mtad_jax.detect.row_outputs import stack_series
from mtad_jax.model.network import apply
from mtad_jax.model.precision import matmul_precision
from mtad_jax.train.mesh import BATCH, MACHINES, make_mesh, to_mesh


class UsualAttention(NamedTuple):
  """Mean and deviation [F] of the metrics' shares on calibration rows, float64."""

  mean: np.ndarray
  deviation: np.ndarray


def has_attention(config: Config) -> bool:
  """Returns whether models of these settings attend to metrics: a role's mixture does not."""
  return config.model.detector is Detector.MTAD_GAT and config.model.attention is not Attention.NONE


def usual_attention(shares: np.ndarray) -> UsualAttention:
  """Returns the moments over the rows of `shares` [R, F], at least one."""
  exact = shares.astype(np.float64)
  return UsualAttention(exact.mean(axis=0), exact.std(axis=0))


def _one_machine(
  params: Any, values: jax.Array, next_rows: jax.Array, *, config: Config, num_targets: int
) -> jax.Array:
  windows = gather_windows(values, next_rows, config.model.window_size)
  with matmul_precision(config.model):
    outputs = apply(params, windows, settings=config.model, num_targets=num_targets, last_row_only=True)
  if outputs.feature_attention is None:
    raise ValueError(f"config.model.attention is {config.model.attention.value}: there is no attention to share out")
  return jnp.mean(outputs.feature_attention, axis=1)  # [B, F, F] -> [B, F]


@lru_cache(maxsize=2)  # a fleet's blocks share one, and so do the machines of a scoring, one at a time
def make_shares(
  config: Config, num_targets: int, mesh: Mesh
) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
  """Returns the compiled pass (stacked params, values [M, T, F], next_rows [M, B]) -> shares [M, B, F]."""
  spread = jax.shard_map(
    jax.vmap(partial(_one_machine, config=config, num_targets=num_targets)),
    mesh=mesh,
    in_specs=(MACHINES, MACHINES, P(*MACHINES, BATCH)),
    out_specs=P(*MACHINES, BATCH),
    check_vma=False,
  )
  return jax.jit(spread)


def attention_shares(
  params: Any, series: Sequence[np.ndarray], rows: Sequence[np.ndarray], config: Config, num_targets: int
) -> list[np.ndarray]:
  """Returns the metrics' shares [R_i, F] float32 in the windows that end at some rows of each machine.

  Args:
    params: stacked networks, [M, ...].
    series: M arrays [T_i, F] float32, scaled. rows: M arrays [R_i] of their rows, none before W - 1.
    config: the model's settings and score_batch are read. num_targets: F'.
  """
  window, batch = config.model.window_size, config.detect.score_batch
  most = max(len(own) for own in rows)
  next_rows = np.full((len(series), -(-most // batch) * batch), window, np.int32)
  for i, own in enumerate(rows):
    next_rows[i, : len(own)] = np.asarray(own) + 1
  mesh = make_mesh(len(series), batch, devices=jax.local_devices())
  program = make_shares(config, num_targets, mesh)
  params, values = to_mesh((params, stack_series(series, window)), mesh)
  found = np.zeros((len(series), next_rows.shape[1], series[0].shape[1]), np.float32)
  for first in range(0, next_rows.shape[1], batch):
    part = slice(first, first + batch)
    found[:, part] = np.asarray(program(params, values, to_mesh(next_rows[:, part], mesh)))[: len(series)]
  return [found[i, : len(own)] for i, own in enumerate(rows)]
