"""Where the machines' arrays live: the machine axis spread over all devices of all processes.

Machines are independent, so each device runs its share without a word to the others. 28 machines on 8 devices
are padded to 32 by copies of the first, in memory only: the host sees the real ones.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

MACHINES = P("machine")


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Returns a mesh of the devices, by default all of every process, with the one axis `machine`."""
  return Mesh(np.array(devices or jax.devices()), ("machine",))


def to_mesh(tree: Any, mesh: Mesh, num_lanes: int = 0) -> Any:
  """Returns [M, ...] host arrays as device arrays [M', ...], M' the next multiple of the number of devices.

  The device arrays share no memory with `tree`; every process must hold the whole of it.

  Args:
    num_lanes: M' is at least this, so that blocks of different sizes have equal shapes.
  """
  sharding = NamedSharding(mesh, MACHINES)

  def put(array: Any) -> jax.Array:
    host = np.asarray(array)
    lanes = np.arange(-(-max(len(host), num_lanes) // mesh.size) * mesh.size)
    padded = host[np.where(lanes < len(host), lanes, 0)]  # indexing copies
    return jax.make_array_from_callback(padded.shape, sharding, lambda index: padded[index])

  return jax.tree.map(put, tree)


def to_host(tree: Any, num_machines: int, *, copied: bool = True) -> Any:
  """Returns device arrays [M', ...] as NumPy arrays [num_machines, ...] in every process.

  All processes must call it alike: it gathers what other processes hold.

  Args:
    copied: whether they must outlive the device arrays, which on a CPU they may be views of.
  """
  if jax.process_count() > 1:
    tree = multihost_utils.process_allgather(tree, tiled=True)
  return jax.tree.map(lambda x: np.array(np.asarray(x)[:num_machines], copy=copied or None), tree)
