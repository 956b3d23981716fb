"""The fleet's programs: one machine's step mapped over all of them, many steps to a dispatch.

This is the one place where training meets the machine axis. The number of steps is an argument of the compiled
program, so that dispatches of any length share it and a run's figures do not depend on how it was cut.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtad_jax.config import Config
from mtad_jax.data.fleet import FleetArrays
from mtad_jax.train.objective import Losses
from mtad_jax.train.state import TrainState, empty_sums, init_state
from mtad_jax.train.step import MachineArrays, train_step, validate


class FleetPrograms(NamedTuple):
  """The compiled functions of one group.

  init(machine_ids [M]) -> state. run(state, arrays, num, total) -> state after `num` more steps of a run of
  `total`. validate(state, arrays) -> (state, Losses of [M]). clear_sums(state) -> state with empty loss sums.
  Every state that goes in is donated.
  """

  init: Callable[[Any], TrainState]
  run: Callable[[TrainState, MachineArrays, int, int], TrainState]
  validate: Callable[[TrainState, MachineArrays], tuple[TrainState, Losses]]
  clear_sums: Callable[[TrainState], TrainState]


def place(arrays: FleetArrays) -> MachineArrays:
  """Returns the fleet's arrays on the device, as copies: a host array may be shared otherwise."""
  return MachineArrays(*(jnp.array(x, copy=True) for x in arrays))


def make_programs(config: Config, num_metrics: int, targets: tuple[int, ...]) -> FleetPrograms:
  """Returns the programs for machines with `num_metrics` inputs and these target columns."""
  one_step = partial(train_step, config=config, targets=targets)
  fleet_step = jax.vmap(one_step, in_axes=(0, 0, None))
  one_init = partial(init_state, config=config, num_metrics=num_metrics, num_targets=len(targets))
  one_validation = partial(validate, config=config, targets=targets)

  def run(state: TrainState, arrays: MachineArrays, num: jax.Array, total: jax.Array) -> TrainState:
    return jax.lax.fori_loop(0, num, lambda _, s: fleet_step(s, arrays, total), state)

  def clear_sums(state: TrainState) -> TrainState:
    num_machines = state.step.shape[0]
    sums = jax.tree.map(lambda x: jnp.zeros((num_machines,), x.dtype), empty_sums())
    return state._replace(sums=sums)

  return FleetPrograms(
    init=jax.jit(jax.vmap(one_init)),
    run=jax.jit(run, donate_argnums=0),
    validate=jax.jit(jax.vmap(one_validation), donate_argnums=0),
    clear_sums=jax.jit(clear_sums, donate_argnums=0),
  )
