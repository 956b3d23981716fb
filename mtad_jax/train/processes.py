"""Several processes that train one fleet: joining, agreeing, leaving. With one process all of it does nothing.

Every process must call the agreeing functions alike and in the same order. The first process alone writes files.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
  """Joins the other processes; to be called before anything else of jax.

  Args:
    coordinator: HOST:PORT of process 0; None: this process is alone.

  Raises:
    ValueError: some of the three are missing, or the coordinator cannot be reached.
  """
  given = (coordinator, num_processes, process_id)
  if all(value is None for value in given):
    return
  if coordinator is None or num_processes is None or process_id is None:
    raise ValueError("--coordinator, --num_processes and --process_id: all three are wanted, or none")
  if process_id >= num_processes:
    raise ValueError(
      f"--process_id={process_id}: of {num_processes} processes, 0 to {num_processes - 1} are there"
    )
  try:
    jax.distributed.initialize(coordinator, num_processes, process_id)
  except RuntimeError as error:
    raise ValueError(f"--coordinator={coordinator}: process {process_id} cannot join: {error}") from None


def join_from_environment() -> None:
  """Joins the other processes as TPU pods, Slurm, Kubernetes (GKE) or Open MPI tell; before anything else of jax.

  Under Slurm and Open MPI a process takes one GPU of its node, that of its local number: start one process per GPU.

  Raises:
    ValueError: no such environment, or the others cannot be reached.
  """
  try:
    jax.distributed.initialize()
  except (ValueError, RuntimeError, OSError, ImportError) as error:
    if "be defined" in str(error):  # what jax says of the first thing that no environment told it
      raise ValueError(
        "--distributed: neither a TPU pod nor Slurm (srun), Kubernetes or Open MPI (mpirun) started this process;"
        " give --coordinator, --num_processes and --process_id instead"
      ) from None
    raise ValueError(f"--distributed: cannot join the other processes: {error}") from None


def leave() -> None:
  """Leaves the others, when all are done with what they do together; this process's own devices stay usable."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices("training ended")
    jax.distributed.shutdown()


def describe() -> str:
  """Returns what the fleet is trained on, for a person."""
  num, platform = jax.device_count(), jax.devices()[0].platform
  text = f"{num} {platform} device" + ("s" if num > 1 else "")
  return text + (f" of {jax.process_count()} processes" if jax.process_count() > 1 else "")


def is_alone() -> bool:
  """Returns whether this process trains the whole fleet."""
  return jax.process_count() == 1


def is_writer() -> bool:
  """Returns whether this process writes files: the first one does."""
  return jax.process_index() == 0


def agree(value: int) -> int:
  """Returns the first process's value in every process."""
  return value if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def gather(make: Callable[[], Any]) -> list[Any]:
  """Returns what `make` gave in each process, in their order; JSON-able.

  Raises:
    ValueError: in every process, where `make` raised ValueError or OSError in one of them.
  """
  try:
    told = {"value": make()}
  except (ValueError, OSError) as error:
    told = {"error": str(error)}
  text = np.frombuffer(json.dumps(told).encode(), np.uint8)
  lengths = multihost_utils.process_allgather(np.int32(len(text))).ravel()
  padded = np.zeros(lengths.max(), np.uint8)
  padded[: len(text)] = text
  texts = multihost_utils.process_allgather(padded).reshape(len(lengths), -1)
  found = [json.loads(text[:length].tobytes()) for text, length in zip(texts, lengths, strict=True)]
  for one in found:
    if "error" in one:
      raise ValueError(one["error"])
  return [one["value"] for one in found]


@contextmanager
def first_then_all(what: str) -> Iterator[None]:
  """Wraps what the first process does alone: where it fails there, the others fail too, rather than wait for it.

  Raises:
    ValueError: in the other processes, where the first one failed.
  """
  try:
    yield
  except BaseException:
    if is_writer():
      agree(0)
    raise
  if not agree(1):
    raise ValueError(f"process 0 could not {what}; its own message says why")


def any_process(flag: bool) -> bool:
  """Returns whether the flag holds in any process."""
  if jax.process_count() == 1:
    return flag
  return bool(np.any(multihost_utils.process_allgather(np.array([flag]))))
