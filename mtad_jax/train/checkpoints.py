"""Checkpoints of one group's training state: the one module that imports Orbax.

A step's folder holds the state's arrays, unpadded, and a JSON item that says what they are. Only finite states
are written. The best state of every machine is part of the tree, so keeping the latest few keeps it too.
"""

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from mtad_jax.train.guard import all_finite

STATE, ABOUT = "state", "about"


class _NoChatter(logging.Filter):
  """Drops Orbax's warnings about its own options; its errors pass."""

  def filter(self, record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or "orbax" not in record.pathname


logging.getLogger("absl").addFilter(_NoChatter())
_finite_machines = jax.jit(jax.vmap(all_finite))


def _describe(tree: Any) -> dict[str, list[Any]]:
  """Returns {leaf path: [shape, dtype]}, ready for JSON."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): [list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves}


class Checkpoints:
  """The checkpoints under one directory; steps are written in the background."""

  def __init__(self, directory: epath.PathLike, num_to_keep: int | None = None, read_only: bool = False):
    self.directory = epath.Path(directory)
    options = ocp.CheckpointManagerOptions(
      max_to_keep=num_to_keep,
      create=not read_only,
      read_only=read_only,
      enable_async_checkpointing=not read_only,
    )
    self._manager = ocp.CheckpointManager(
      self.directory,
      options=options,
      item_names=(STATE, ABOUT),
      item_handlers={STATE: ocp.PyTreeCheckpointHandler(), ABOUT: ocp.JsonCheckpointHandler()},
    )

  def steps(self) -> list[int]:
    """Returns the complete steps, rising; an empty or half-made folder does not count."""
    found = sorted(self._manager.all_steps())
    return [step for step in found if (self.directory / str(step) / STATE).exists()]

  def save(self, step: int, state: Any, machines: tuple[str, ...], about: dict[str, Any]) -> None:
    """Begins to write the state; `about` goes beside it.

    Raises:
      ValueError: a machine's best or current parameters are not finite, or the step is not newer.
    """
    finite = np.asarray(_finite_machines((state.params, state.optimizer, state.best_params)))
    if not finite.all():
      names = ", ".join(np.array(machines)[~finite])
      raise ValueError(f"step {step}: the state of {names} is not finite and is not written")
    about = {**about, "machines": list(machines), "tree": _describe(state)}
    args = ocp.args.Composite(
      **{STATE: ocp.args.PyTreeSave(jax.tree.map(np.asarray, state)), ABOUT: ocp.args.JsonSave(about)}
    )
    if not self._manager.save(step, args=args):
      raise ValueError(
        f"{self.directory}: step {step} was not written; the latest there is {self._manager.latest_step()}"
      )

  def about(self, step: int) -> dict[str, Any]:
    """Returns what was written beside a step's arrays."""
    self._check_step(step)
    restored = self._manager.restore(step, args=ocp.args.Composite(**{ABOUT: ocp.args.JsonRestore()}))
    return restored[ABOUT]

  def restore(self, step: int, template: Any) -> Any:
    """Returns the state of `step` as NumPy arrays in the template's structure.

    Raises:
      ValueError: no such step, or its tree has other leaves, shapes or types than the template's: Orbax
        would cast or reshape without a word.
    """
    there, wanted = self.about(step)["tree"], _describe(template)
    for path in sorted(set(there) | set(wanted)):
      if there.get(path) != wanted.get(path):
        raise ValueError(
          f"{self.directory / str(step)}: leaf {path} is {there.get(path)}, this config needs {wanted.get(path)}"
        )
    return self._read(step, template)

  def read_tree(self, step: int) -> Any:
    """Returns the state of `step` as nested dicts of NumPy arrays, whatever they are."""
    self._check_step(step)
    return self._read(step, None)

  def _read(self, step: int, template: Any) -> Any:
    if template is None:
      args = ocp.args.PyTreeRestore(
        restore_args=self._as_numpy(self._manager.item_metadata(step)[STATE].tree)
      )
    else:
      args = ocp.args.PyTreeRestore(item=template, restore_args=self._as_numpy(template))
    return self._manager.restore(step, args=ocp.args.Composite(**{STATE: args}))[STATE]

  @staticmethod
  def _as_numpy(tree: Any) -> Any:
    return jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)

  def _check_step(self, step: int) -> None:
    steps = self.steps()
    if step not in steps:
      raise ValueError(f"{self.directory}: no step {step}; there are {steps or 'none'}")

  def wait(self) -> None:
    """Returns when all that was begun is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, then frees the manager's threads."""
    self.wait()
    self._manager.close()


def to_device(state: Any) -> Any:
  """Returns the state as device arrays that share no memory with the host's."""
  return jax.tree.map(lambda x: jnp.array(x, copy=True), state)
