"""How the rows of a machine without a history are prepared: as those of its role's machines, on the role's scale.

In: the preparations of a role's machines and the scaler that they share. Out: one preparation for all of them, and
their training splits under it.
"""

from collections.abc import Callable, Sequence

import numpy as np

from mtad_jax.data.contract import STEP_TOLERANCE
from mtad_jax.data.fleet import PreparedMachine
from mtad_jax.data.preparation import Preparation
from mtad_jax.data.scaling import Scaler
from mtad_jax.roles.role_models import between


def role_preparation(role: str, members: Sequence[tuple[str, Preparation]], scaler: Scaler) -> Preparation:
  """Returns the preparation of a role; before a metric's first value stands the median of what its machines have.

  Args:
    members: (name, preparation) each, of equal metrics. scaler: the role's.

  Raises:
    ValueError: two of them disagree on which metrics count or on the step, in one line.
  """
  first_name, first = members[0]
  for name, other in members[1:]:
    differs = np.flatnonzero(first.is_counter != other.is_counter)
    if len(differs):
      metric, pair = first.metrics[differs[0]], (first_name, name)
      counts, not_so = pair if first.is_counter[differs[0]] else pair[::-1]
      raise ValueError(
        f"role {role}: {metric} is a counter on {counts} and none on {not_so}; a new machine may be either"
      )
  return first._replace(
    step_s=_one_step(role, members, lambda known: known.step_s),
    source_step_s=_one_step(role, members, lambda known: known.source_step_s),
    scaler=scaler,
    leading_fill=np.median([known.leading_fill for _, known in members], axis=0),
  )


def _one_step(
  role: str, members: Sequence[tuple[str, Preparation]], step_of: Callable[[Preparation], float | None]
) -> float | None:
  """Returns the machines' step in seconds, the middle one of those they have; None where none has a clock."""
  steps = [(name, step_of(known)) for name, known in members]
  present = sorted((step_s, name) for name, step_s in steps if step_s is not None)
  if not present:
    return None
  without = [name for name, step_s in steps if step_s is None]
  if without:
    raise ValueError(f"role {role}: {present[0][1]} has a clock and {without[0]} has none")
  (least, short), (most, long) = present[0], present[-1]
  if most - least > STEP_TOLERANCE * least:
    raise ValueError(f"role {role}: the step of {short} is {least:g} s, that of {long} {most:g} s")
  return present[(len(present) - 1) // 2][0]


def on_role_scale(machine: PreparedMachine, preparation: Preparation) -> PreparedMachine:
  """Returns one of a role's machines with its training split brought to the role's scale."""
  factor, shift = between(machine.preparation.scaler, preparation.scaler)
  values = machine.train.values.astype(np.float64) * factor[None, :] + shift[None, :]
  train = machine.train._replace(values=values.astype(np.float32))
  return machine._replace(preparation=preparation, train=train)
