"""A new machine's columns in the order of the machine that was trained, or of its role where it has no model."""

from collections.abc import Sequence
from typing import Literal

from mtad_jax.data.contract import check_contract
from mtad_jax.data.machine import Machine, empty_series
from mtad_jax.detect.judges import ColdStart, cold_preparation
from mtad_jax.train.stored_run import Run


def are_names(metrics: Sequence[str]) -> bool:
  """Returns whether the source named its columns; a reader makes up metric_0 and on where it did not."""
  return tuple(metrics) != tuple(f"metric_{i}" for i in range(len(metrics)))


def in_trained_order(
  run: Run, machine: Machine, source: str, extra: Literal["refuse", "ignore"], cold: ColdStart | None = None
) -> Machine:
  """Returns one new machine with its test columns in the trained order.

  Args:
    cold: what scores a machine that has no model of its own; None: it is refused.

  Raises:
    ValueError: it has no model, or breaks the input contract, in one line.
  """
  known = {machine.name: machine for group in run.groups for machine in group.machines}
  if machine.name in known:
    preparation, config = known[machine.name].preparation, run.config
  elif cold is not None:
    try:
      preparation, config = cold_preparation(cold, machine), cold.config
    except ValueError as error:
      raise ValueError(f"{source}: {error}") from None
  else:
    raise ValueError(
      f"{source}: machine {machine.name!r} has no model; trained: {', '.join(known)}; a run of role mixtures can"
      " score it: --cold_start"
    )
  columns = check_contract(
    preparation,
    machine.name,
    machine.metrics,
    machine.test,
    config.data,
    named=are_names(machine.metrics),
    extra=extra,
  ).tolist()
  causes = tuple(
    cause._replace(metrics=tuple(columns.index(i) for i in cause.metrics if i in columns))
    for cause in machine.interpretation
  )
  return machine._replace(
    metrics=preparation.metrics,
    train=empty_series(len(columns)),
    test=machine.test._replace(values=machine.test.values[:, columns]),
    interpretation=causes,
  )
