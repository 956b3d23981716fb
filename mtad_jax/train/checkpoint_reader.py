"""Reading the checkpoints under one directory: whole, a branch of the tree, or one machine alone.

Needs neither Orbax nor a device, changes nothing, and checks whatever it reads against its checksums.
"""

from typing import Any

import jax
import numpy as np
from etils import epath

from mtad_jax.train.checkpoint_files import read_about, read_leaves
from mtad_jax.train.checksums import describe, leaf_names, nest

_COMMIT = "commit_success.txt"  # Orbax's mark of a finished step where a folder cannot be renamed (gs://)


class CheckpointReader:
  """The steps under one directory."""

  def __init__(self, directory: epath.PathLike):
    self.directory = epath.Path(directory)
    self._cloud = "://" in str(self.directory)

  def steps(self) -> list[int]:
    """Returns the steps written to their end, rising; an empty or half-written folder does not count."""
    return [step for step in self._folders() if self._is_written(step)]

  def _folders(self) -> list[int]:
    """Returns every folder named like a step, rising."""
    if not self.directory.exists():
      return []
    numbers = [p for p in self.directory.iterdir() if p.name.isdecimal() and p.name == str(int(p.name))]
    return sorted(int(p.name) for p in numbers if p.is_dir())

  def _is_written(self, step: int) -> bool:
    folder = self.directory / str(step)
    return (folder / _COMMIT).exists() if self._cloud else any(folder.iterdir())

  def about(self, step: int) -> dict[str, Any]:
    """Returns what was written beside a step's arrays.

    Raises:
      ValueError: no such step, or one of another version. CorruptCheckpoint: it is damaged.
    """
    steps = self.steps()
    if step not in steps:
      raise ValueError(f"{self.directory}: no step {step}; there are {steps or 'none'}")
    return read_about(self.directory, step)

  def restore(self, step: int, template: Any) -> Any:
    """Returns the state of `step` as NumPy arrays in the template's structure.

    Raises:
      ValueError: no such step, or its tree has other leaves, shapes or types than the template's.
      CorruptCheckpoint: it is damaged.
    """
    about = self.about(step)
    there, wanted = about["tree"], describe(leaf_names(template))
    for name in sorted(set(there) | set(wanted)):
      if there.get(name) != wanted.get(name):
        raise ValueError(
          f"{self.directory / str(step)}: leaf {name} is {there.get(name)}, this config needs {wanted.get(name)}"
        )
    arrays = self._read(step, about, list(wanted))
    return jax.tree.unflatten(jax.tree.structure(template), [arrays[name] for name in wanted])

  def read_tree(self, step: int) -> dict[str, Any]:
    """Returns the state of `step` as nested dicts of NumPy arrays, whatever they are."""
    about = self.about(step)
    return nest(self._read(step, about, list(about["tree"])))

  def read_part(self, step: int, name: str) -> Any:
    """Returns one branch of the tree, such as "best_params", as nested dicts, or one leaf; reads only that.

    Raises:
      ValueError: no such step or branch. CorruptCheckpoint: what was read is damaged.
    """
    return self._part(step, name, None)

  def read_machine(self, step: int, lane: int, name: str | None = None) -> Any:
    """Returns one machine's state, or a branch of it: leaves without the machine axis.

    Args:
      lane: the machine's index in about["machines"]. name: the branch, such as "best_params"; None: all.

    Raises:
      ValueError: no such step, machine or branch. CorruptCheckpoint: what was read is damaged.
    """
    return self._part(step, name, lane)

  def _part(self, step: int, name: str | None, lane: int | None) -> Any:
    about = self.about(step)
    machines, names = about["machines"], list(about["tree"])
    if lane is not None and not 0 <= lane < len(machines):
      raise ValueError(f"{self.directory}: step {step}: no machine number {lane}; there are {len(machines)}")
    if name is not None:
      names = [leaf for leaf in names if leaf == name or leaf.startswith(f"{name}.")]
    if not names:
      there = ", ".join(dict.fromkeys(leaf.split(".")[0] for leaf in about["tree"]))
      raise ValueError(f"{self.directory}: step {step}: no branch {name!r}; there are {there}")
    tree: Any = nest(self._read(step, about, names, lane))
    for key in name.split(".") if name else ():
      tree = tree[key]
    return tree

  def _read(
    self, step: int, about: dict[str, Any], names: list[str], lane: int | None = None
  ) -> dict[str, np.ndarray]:
    return read_leaves(self.directory, step, about, names, lane)
