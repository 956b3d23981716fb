"""A work directory as what comes after training finds it, and the right to write into one."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from etils import epath

from mtad_jax.config import Config
from mtad_jax.train.fleet_file import StoredGroup, read_fleet
from mtad_jax.train.workdir import RUN, read_config, read_json, sweep
from mtad_jax.train.writer_lock import writer_lock


class Run(NamedTuple):
  """A work directory as later commands find it. run: run.json's content."""

  config: Config
  run: dict
  groups: list[StoredGroup]


def open_workdir(workdir: epath.PathLike) -> Run:
  """Returns what a work directory holds; raises ValueError where train.py has not made it."""
  folder = epath.Path(workdir)
  if not (folder / RUN).exists():
    raise ValueError(f"{folder}: not a work directory ({RUN} is missing); train.py makes one")
  run = read_json(folder / RUN, "train.py", ("run_id", "created", "data_dir", "source", "commit"))
  return Run(read_config(folder), run, read_fleet(folder))


@contextlib.contextmanager
def sole_writer(folder: epath.PathLike, program: str) -> Iterator[None]:
  """Yields while no other program writes into `folder`, which is made, and cleared of what a killed one left.

  Raises:
    ValueError: another program is writing there. OSError: it cannot be written to.
  """
  epath.Path(folder).mkdir(parents=True, exist_ok=True)
  with writer_lock(folder, program):
    for name in sweep(folder):
      print(f"{folder}: removed {name}, left by a program that was killed", flush=True)
    yield
