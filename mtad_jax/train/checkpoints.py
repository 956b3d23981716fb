"""Checkpoints of one group's training state: the one module that imports Orbax.

A step's folder holds the state's arrays, unpadded, and a JSON item that says what they are. Only finite states
are written, by one thread in the background, and read back before an older step goes. The best state of every
machine is part of the tree, so keeping the latest few keeps it too.
"""

import json
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from mtad_jax.train.checkpoint_files import ABOUT, FORMAT, STATE, CorruptCheckpoint, short_reason
from mtad_jax.train.checkpoint_reader import CheckpointReader
from mtad_jax.train.checksums import content_checksum, describe, lane_checksums, leaf_names

_FINITE = {"params", "optimizer", "best_params"}  # what must be finite, wherever in the tree it stands
_TEMPORARY, _REMOVED, _SPACE, _DAMAGED = ".orbax-checkpoint-tmp", ".removed", ".space", ".damaged"


class _NoChatter(logging.Filter):
  """Drops what Orbax logs: warnings about its own options, and tracebacks of errors that it raises as well."""

  def filter(self, record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


logging.getLogger("absl").addFilter(_NoChatter())


def _orbax() -> ocp.Checkpointer:
  """Returns a writer that works in this process alone: no barrier with the others of a jax run."""
  me = jax.process_index()
  alone = ocp.options.MultiprocessingOptions(
    primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
  )
  handler = ocp.CompositeCheckpointHandler(
    composite_options=ocp.CompositeOptions(multiprocessing_options=alone),
    **{
      STATE: ocp.PyTreeCheckpointHandler(multiprocessing_options=alone),
      ABOUT: ocp.JsonCheckpointHandler(multiprocessing_options=alone),
    },
  )
  return ocp.Checkpointer(handler, multiprocessing_options=alone)


class Checkpoints(CheckpointReader):
  """The checkpoints under one directory, to read and to write; also a context manager, which closes."""

  def __init__(self, directory: epath.PathLike, num_to_keep: int | None = None, read_only: bool = False):
    """Opens the directory; a writer makes it, and removes what a killed writer left half-done.

    Args:
      num_to_keep: how many of the newest steps stay; None: all. read_only: nothing is made or changed.

    Raises:
      OSError: the directory cannot be made or cleared.
    """
    super().__init__(directory)
    self._num_to_keep, self._read_only = num_to_keep, read_only
    self._pending: Future[None] | None = None
    if read_only:
      return
    try:
      self.directory.mkdir(parents=True, exist_ok=True)
      self._clear_litter()
    except OSError as error:
      raise OSError(f"{self.directory}: cannot be written to: {error.strerror or error}") from error
    self._writer = _orbax()
    self._worker = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")

  def save(self, step: int, state: Any, machines: tuple[str, ...], about: dict[str, Any]) -> None:
    """Copies the state to the host and returns; the rest happens in the background.

    A save before this one is waited for, and its failure raised here. The write itself fails later: with
    ValueError where a machine's parameters or optimizer are not finite, with OSError where the disk does not
    take it; the steps before it stay.

    Args:
      step: newer than all there. state: a tree whose leaves are [M, ...] with len(machines) first, held by
      this process. about: what is written beside it, ready for JSON.

    Raises:
      ValueError: not a newer step, leaves without the machine axis, or NaN in `about`.
    """
    if self._read_only:
      raise ValueError(f"{self.directory}: opened for reading only; step {step} is not written")
    self.wait()
    there = self._folders()
    if there and step <= there[-1]:
      raise ValueError(f"{self.directory}: step {step} was not written; the latest there is {there[-1]}")
    for name, leaf in leaf_names(state).items():
      if leaf.shape[:1] != (len(machines),):
        raise ValueError(
          f"state: leaf {name} is {list(leaf.shape)}; its first axis must be {len(machines)} machines"
        )
    facts = json.loads(json.dumps(about, allow_nan=False))
    # The device may write the next step's state into the same memory, and on a CPU NumPy would look on.
    copied = jax.tree.map(lambda x: np.array(x, copy=True, order="C"), jax.device_get(state))
    self._pending = self._worker.submit(self._write, step, copied, tuple(machines), facts)

  def _write(self, step: int, state: Any, machines: tuple[str, ...], about: dict[str, Any]) -> None:
    """Checks, writes, reads back, and only then removes older steps."""
    named = leaf_names(state)
    self._check_finite(step, named, machines)
    sums = {name: lane_checksums(leaf) for name, leaf in named.items()}
    about = {
      **about, "format": FORMAT, "machines": list(machines), "tree": describe(named), "checksums": sums
    }  # fmt: skip
    about["checksum"] = content_checksum(about)
    args = ocp.args.Composite(**{STATE: ocp.args.PyTreeSave(state), ABOUT: ocp.args.JsonSave(about)})
    try:
      self._clear_litter()
      if not self._cloud:
        _check_space(Path(self.directory / f".{step}{_SPACE}"), named, about)
      place = self.directory / str(step)
      # Orbax takes absolute paths only; messages keep the one that was given
      self._writer.save(place if self._cloud else epath.Path(Path(place).absolute()), args=args)
      if not self._cloud:
        _flush(Path(self.directory / str(step)))
      self._read(step, self.about(step), list(named))
    except (OSError, ValueError) as error:
      self._give_up(step, error)
    for old in self.steps()[: -self._num_to_keep] if self._num_to_keep else []:
      try:
        self._remove(old)
      except OSError as error:
        raise OSError(
          f"{self.directory}: step {step} is written, but step {old} cannot be removed: {short_reason(error)}"
        ) from error

  def _check_finite(self, step: int, named: dict[str, np.ndarray], machines: tuple[str, ...]) -> None:
    finite = np.ones(len(machines), bool)
    checked = [leaf for name, leaf in named.items() if _FINITE.intersection(name.split("."))]
    for leaf in checked:
      if jnp.issubdtype(leaf.dtype, np.inexact):
        finite &= np.isfinite(leaf).reshape(len(machines), -1).all(axis=1)
    if not finite.all():
      names = ", ".join(np.array(machines)[~finite])
      raise ValueError(f"step {step}: the state of {names} is not finite and is not written")

  def _give_up(self, step: int, error: Exception) -> None:
    """Removes what was begun of a step and raises OSError with what is left."""
    reason = short_reason(error)
    for thread in threading.enumerate():
      # Orbax raises the first error while others of its threads still write; their own join raises theirs.
      if type(thread).__module__.startswith("orbax."):
        threading.Thread.join(thread)
    try:
      self._clear_litter()
      if (self.directory / str(step)).exists():
        self._remove(step)
    except OSError as second:
      reason += f" (and what was begun cannot be removed: {short_reason(second)})"
    steps = self.steps()
    kept = f"step {steps[-1]} stays the newest" if steps else "there is no step before it"
    raise OSError(f"{self.directory}: step {step} was not written: {reason}; {kept}") from error

  def _clear_litter(self) -> None:
    """Removes what a killed or failed writer left: half-written and half-removed folders."""
    for path in list(self.directory.iterdir()):
      if path.name.startswith(".") and path.name.endswith(_SPACE):
        path.unlink()
      elif path.name.endswith(_TEMPORARY) or (path.name.startswith(".") and path.name.endswith(_REMOVED)):
        path.rmtree()
    if self._cloud:
      for step in self._folders():
        if not self._is_written(step):
          (self.directory / str(step)).rmtree()

  def _remove(self, step: int) -> None:
    folder = self.directory / str(step)
    if not self._cloud:  # under another name first: half a folder must never look like a step
      folder = folder.rename(self.directory / f".{step}{_REMOVED}")
    folder.rmtree()

  def restore_newest(self, template: Any, report: Callable[[str], None]) -> tuple[int, Any] | None:
    """Returns the newest intact (step, state); None where no step was ever written.

    A damaged newer step is reported and, by a writer, set aside: its folder gets another name and never
    counts again.

    Args:
      template: as for `restore`. report: called with one line for every damaged step.

    Raises:
      ValueError: all steps are damaged (none is set aside), or the newest intact one does not fit.
    """
    damaged: dict[int, str] = {}
    for step in reversed(self._folders()):
      if not self._is_written(step):
        if not self._cloud:  # there it is a save cut short
          damaged[step] = f"{self.directory}: step {step} is an empty folder"
        continue
      try:
        state = self.restore(step, template)
      except CorruptCheckpoint as error:
        damaged[step] = str(error)
        continue
      for bad, told in damaged.items():
        aside = "passed over" if self._read_only else f"set aside as {self._set_aside(bad)}"
        report(f"{told}; {aside}, step {step} is used")
      return step, state
    if damaged:
      raise ValueError(
        f"{self.directory}: no step is intact: {'; '.join(damaged.values())}; remove the folder to start over"
      )
    return None

  def _set_aside(self, step: int) -> str:
    """Renames a damaged step's folder; returns its new name."""
    name, number = f"{step}{_DAMAGED}", 1
    while (self.directory / name).exists():
      number += 1
      name = f"{step}{_DAMAGED}-{number}"
    (self.directory / str(step)).rename(self.directory / name)
    return name

  def wait(self) -> None:
    """Returns when all that was begun is on disk and checked; raises what failed of it."""
    pending, self._pending = self._pending, None
    if pending is not None:
      pending.result()

  def close(self) -> None:
    """Waits, then ends the thread, also where the last save failed."""
    try:
      self.wait()
    finally:
      if not self._read_only:
        self._worker.shutdown()
        self._writer.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
  ) -> None:
    try:
      self.close()
    except (OSError, ValueError) as failed:
      if error is None:
        raise
      error.add_note(str(failed))  # what ended the block is the one to tell


def _check_space(path: Path, named: dict[str, np.ndarray], about: dict[str, Any]) -> None:
  """Raises OSError where the disk has no room for a step; `path` is a file to try with.

  Orbax would notice as well, but leaves threads that write on, and their tracebacks on stderr.
  """
  # The arrays, a little over where they do not compress; the JSON; and, measured, under 1 kB of names and tree
  # nodes per leaf and a dozen small files: twice that.
  num_bytes = sum(leaf.nbytes for leaf in named.values()) * 102 // 100
  num_bytes += 2048 * len(named) + 65536 + len(json.dumps(about))
  try:
    with path.open("wb") as file:
      if hasattr(os, "posix_fallocate"):  # macOS has none: there Orbax's own error must do
        os.posix_fallocate(file.fileno(), 0, num_bytes)
  finally:
    path.unlink(missing_ok=True)


def _flush(folder: Path) -> None:
  """Has the disk take a step's folder, so that it outlives a loss of power before an older step goes."""
  for path in (*folder.rglob("*"), folder, folder.parent):
    descriptor = os.open(path, os.O_RDONLY)
    try:
      os.fsync(descriptor)
    finally:
      os.close(descriptor)
