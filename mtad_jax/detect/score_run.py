"""A run's machines scored, judge by judge: what score.py and the library do alike.

In: the work directory's models and calibrations, machines with their columns in the trained order. Out: `Judged`, one
a machine.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from mtad_jax.config import Config
from mtad_jax.data.contract import check_contract
from mtad_jax.data.machine import Machine, Series
from mtad_jax.data.preparation import Preparation, PreparedSplit, apply_preparation, own_values
from mtad_jax.data.track import Track, untracked
from mtad_jax.detect.calibration import MachineCalibration
from mtad_jax.detect.judges import ColdStart, Judge, judge_cold, judge_group
from mtad_jax.detect.score_machine import ScoredRows, score_machines
from mtad_jax.train.stored_run import Run


class Tail(NamedTuple):
  """What a split goes on from: the prepared training split and its last raw row [F]."""

  split: PreparedSplit
  last_row: np.ndarray


class Judged(NamedTuple):
  """One machine scored: its rows, what they were scored with, and by which of the models that `tables` names.

  machine: with the scored rows in its `test`. split: those rows as the model read them, after those of `context`,
  where there is any. params: its network's, or its role's `Scorer`. inputs: names of the F metrics that it reads.
  """

  machine: Machine
  scored: ScoredRows
  calibration: MachineCalibration
  model: str
  split: PreparedSplit
  context: PreparedSplit | None
  params: Any
  inputs: tuple[str, ...]


def judges_of_run(
  workdir: epath.PathLike,
  run: Run,
  cold: ColdStart | None,
  known: Sequence[str],
  new: Sequence[Machine],
  calibrations: Mapping[str, MachineCalibration],
  steps: Sequence[int],
) -> Iterator[Judge]:
  """Yields what scores the machines, those without a model of their own last; holds no group's parameters itself.

  Args:
    cold: what scores `new`, the machines without a model. known: names of the others. steps: calibration.json's
      checkpoint_steps.
  """
  begun_from = run.run.get("warm_start_from", {})
  for group, step in zip(run.groups, steps, strict=True):
    if any(stored.name in known for stored in group.machines):
      yield judge_group(workdir, run.config, group, known, calibrations, step, begun_from)
  if cold is not None:
    yield from judge_cold(cold, new)


def _prepare(
  preparation: Preparation, machine: Machine, config: Config, tail: Tail | None, *, train_split: bool
) -> tuple[Machine, PreparedSplit]:
  """Returns the machine with the split to score in its `test`, and that split prepared by training statistics."""
  raw = machine.train if train_split else machine.test
  columns = check_contract(
    preparation,
    machine.name,
    machine.metrics,
    raw,
    config.data,
    named=True,
    extra="refuse",
  )
  series = Series(raw.values[:, columns], raw.timestamps)
  previous = None if tail is None else tail.last_row
  split = apply_preparation(preparation, series, config.data, previous)
  machine = machine._replace(test=series, labels=None if train_split else machine.labels)
  return machine, split


def score_judge(
  judge: Judge,
  machines: Mapping[str, Machine],
  tails: Mapping[str, Tail],
  *,
  train_split: bool = False,
  track: Track = untracked,
) -> Iterator[Judged]:
  """Yields the judge's machines scored, one after the other; the network runs for all at once.

  Args:
    tails: what machines' series go on from, by name; without one, the first W rows have no score.
    train_split: the training split is scored in place of the test split.
    track: watches the model's batches, then the machines.

  Raises:
    ValueError: a machine that breaks the input contract, in one line.
  """
  prepared = [
    _prepare(preparation, machines[name], judge.config, tails.get(name), train_split=train_split)
    for name, preparation in zip(judge.names, judge.preparations, strict=True)
  ]
  contexts = [tails[name].split if name in tails else None for name in judge.names]
  all_scored = score_machines(
    [split for _, split in prepared],
    judge.params,
    judge.targets,
    judge.preparations,
    judge.calibrations,
    judge.config,
    contexts,
    track,
  )
  for i, ((machine, split), scored) in enumerate(zip(prepared, all_scored, strict=True)):
    # what a person compares with the expected band is what was there: not clipped, and null where missing
    actual = own_values(judge.preparations[i], machine.test)[:, list(judge.targets)]
    scored = scored._replace(actual=actual)
    params = jax.tree.map(lambda leaf, lane=i: leaf[lane], judge.params)
    yield Judged(machine, scored, judge.calibrations[i], judge.models[i], split, contexts[i], params, judge.metrics)
