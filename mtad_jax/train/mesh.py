"""Where the machines' arrays live: the machine axis spread over all devices of all processes.

Machines are independent, so each device runs its share without a word to the others. 28 machines on 8 devices
are padded to 32 by copies of the last, in memory only: the host sees the real ones. Where there are more devices
than machines, several devices hold the same machines, and a training step's windows are spread over them.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

MACHINES, BATCH = P("machine"), "batch"


def make_mesh(
  num_machines: int | None = None, batch_size: int = 1, *, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Returns a mesh of the devices with the axes `machine` and `batch`.

  Args:
    num_machines: to be trained; None: as many as devices or more, which leaves a batch axis of 1.
    batch_size: windows of one step, which the size of the batch axis divides.
    devices: default: all of every process.
  """
  devices = devices or jax.devices()
  size = 1 if num_machines is None else _batch_axis(num_machines, len(devices), batch_size)
  return Mesh(np.array(devices).reshape(-1, size), ("machine", BATCH))


def _batch_axis(num_machines: int, num_devices: int, batch_size: int) -> int:
  """Returns the size of the batch axis: that of the least work per device, of equal ones the smallest."""
  if num_machines >= num_devices:
    return 1  # the devices need not wait for one another
  sizes = [size for size in range(1, num_devices + 1) if num_devices % size == batch_size % size == 0]
  # a device has ceil(M / (D / b)) machines and one b-th of their windows
  return min(sizes, key=lambda size: (-(-num_machines * size // num_devices) / size, size))


def _machine_of_lane(num_machines: int, mesh: Mesh, num_lanes: int) -> np.ndarray:
  """Returns the machine [M'] that each lane on the mesh holds."""
  axis = mesh.shape["machine"]
  lanes = np.arange(-(-max(num_machines, num_lanes) // axis) * axis)
  return np.minimum(lanes, num_machines - 1)


def held_machines(num_machines: int, mesh: Mesh, num_lanes: int = 0) -> np.ndarray:
  """Returns the indices, rising, of the machines of which a lane lies on a device of this process."""
  machines = _machine_of_lane(num_machines, mesh, num_lanes)
  places = NamedSharding(mesh, MACHINES).addressable_devices_indices_map(machines.shape)
  return np.unique(np.concatenate([machines[index] for index in places.values() if index is not None]))


def to_mesh(tree: Any, mesh: Mesh, num_lanes: int = 0, *, num_machines: int | None = None) -> Any:
  """Returns [M, ...] host arrays as device arrays [M', ...], M' the next multiple of the mesh's machine axis.

  The device arrays share no memory with `tree`.

  Args:
    num_lanes: M' is at least this, so that blocks of different sizes have equal shapes.
    num_machines: M, where `tree` has the `held_machines` alone; None: it has all, in every process.
  """
  sharding = NamedSharding(mesh, MACHINES)

  def put(array: Any) -> jax.Array:
    host = np.asarray(array)
    count = len(host) if num_machines is None else num_machines
    machines = _machine_of_lane(count, mesh, num_lanes)
    held = np.arange(count) if num_machines is None else held_machines(count, mesh, num_lanes)

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
      lanes = machines if index is None else machines[index[0]]
      return host[np.searchsorted(held, lanes)]  # indexing by an array copies

    return jax.make_array_from_callback((len(machines), *host.shape[1:]), sharding, part)

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
