"""A group's checkpoints opened to read, and the newest step that can be read: what later commands begin with."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from etils import epath

from mtad_jax.train.checkpoints import Checkpoints, CorruptCheckpoint
from mtad_jax.train.workdir import group_directory

Value = TypeVar("Value")


@contextmanager
def open_group(workdir: epath.PathLike, number: int) -> Iterator[Checkpoints]:
  """Yields the checkpoints of one group, read-only; raises ValueError where there is no complete one."""
  directory = group_directory(workdir, number)
  if not directory.exists():
    raise ValueError(f"{directory}: no checkpoint; train.py writes them")
  with Checkpoints(directory, read_only=True) as checkpoints:
    if not checkpoints.steps():
      raise ValueError(f"{directory}: no complete checkpoint; train.py writes them")
    yield checkpoints


def read_newest(
  checkpoints: Checkpoints, step: int | None, read: Callable[[int], Value], report: Callable[[str], None]
) -> tuple[int, Value]:
  """Returns (the step, what `read` found there): of `step`, or of the newest step that is not damaged.

  Only what `read` reads is checked: a step that is damaged elsewhere serves.

  Args:
    step: None: the newest.
    report: takes a line on each damaged step that was passed over.

  Raises:
    ValueError: no such step. CorruptCheckpoint: it is damaged, or all are.
  """
  if step is not None:
    return step, read(step)
  damage = []
  for candidate in reversed(checkpoints.steps()):
    try:
      return candidate, read(candidate)
    except CorruptCheckpoint as error:
      damage.append(str(error))
      report(f"step {candidate} is passed over: {error}")
  raise CorruptCheckpoint(f"{checkpoints.directory}: every step is damaged; {'; '.join(damage)}")
