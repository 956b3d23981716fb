"""The fleet's programs: one machine's step mapped over all of them, many steps to a dispatch.

This is the one place where training meets the machine axis. The number of steps is an argument of the compiled
program, so that dispatches of any length share it and a run's figures do not depend on how it was cut. The blocks of
a group have equal shapes and share one compiled program as well.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mtad_jax.config import Config
from mtad_jax.data.fleet import FleetArrays
from mtad_jax.model.precision import matmul_precision
from mtad_jax.train.mesh import BATCH, MACHINES, make_mesh, to_mesh
from mtad_jax.train.objective import Losses
from mtad_jax.train.state import TrainState, empty_sums, init_state, with_params
from mtad_jax.train.step import MachineArrays, train_step, validate


class FleetPrograms(NamedTuple):
  """The compiled functions of groups of equal metrics, for states and arrays that lie on the mesh.

  init(machine_ids [M]) -> state. with_params(state, params) -> state that begins with them, laid out on the devices
  as every other program leaves it: one laid out otherwise would compile `run` a second time. run(state, arrays, num,
  total) -> state after `num` more steps of a run of `total`. validate(state, arrays) -> (state, Losses of [M]).
  clear_report(state) -> state with empty loss sums and no trouble. Every state that goes in is donated, but by
  with_params, whose two arguments may share arrays.
  """

  init: Callable[[Any], TrainState]
  with_params: Callable[[TrainState, Any], TrainState]
  run: Callable[[TrainState, MachineArrays, int, int], TrainState]
  validate: Callable[[TrainState, MachineArrays], tuple[TrainState, Losses]]
  clear_report: Callable[[TrainState], TrainState]


def place(
  arrays: FleetArrays, mesh: Mesh | None = None, num_lanes: int = 0, *, num_machines: int | None = None
) -> MachineArrays:
  """Returns the fleet's arrays on the mesh (default: all devices), padded to it, as copies; see `to_mesh`."""
  return MachineArrays(*to_mesh(tuple(arrays), mesh or make_mesh(), num_lanes, num_machines=num_machines))


def make_programs(
  config: Config, num_metrics: int, targets: tuple[int, ...], mesh: Mesh | None = None
) -> FleetPrograms:
  """Returns the programs for machines with `num_metrics` inputs and these target columns.

  Asked again for the same ones, it gives the same, compiled already where the shapes are the same too.
  """
  return _make_programs(config, num_metrics, targets, mesh or make_mesh())


@lru_cache(maxsize=1)
def _make_programs(
  config: Config, num_metrics: int, targets: tuple[int, ...], mesh: Mesh
) -> FleetPrograms:
  axis = BATCH if mesh.shape[BATCH] > 1 else None
  one_step = partial(train_step, config=config, targets=targets, batch_axis=axis)
  fleet_step = jax.vmap(one_step, in_axes=(0, 0, None))
  one_init = partial(init_state, config=config, num_metrics=num_metrics, num_targets=len(targets))
  one_validation = partial(validate, config=config, targets=targets)

  def run(state: TrainState, arrays: MachineArrays, num: jax.Array, total: jax.Array) -> TrainState:
    with matmul_precision(config.model):
      return jax.lax.fori_loop(0, num, lambda _, s: fleet_step(s, arrays, total), state)

  def validate_all(state: TrainState, arrays: MachineArrays) -> tuple[TrainState, Losses]:
    with matmul_precision(config.model):
      return jax.vmap(one_validation)(state, arrays)

  def clear_report(state: TrainState) -> TrainState:
    num_machines = state.step.shape[0]
    sums = jax.tree.map(lambda x: jnp.zeros((num_machines,), x.dtype), empty_sums())
    return state._replace(sums=sums, trouble=state.trouble._replace(num=jnp.zeros_like(state.trouble.num)))

  # Each device runs its own machines: without shard_map the loops over all lanes would wait for one another.
  spread = partial(jax.shard_map, mesh=mesh, out_specs=MACHINES, check_vma=False)
  # Along the batch axis XLA divides the step's work and joins it again; all else is done alike by those devices.
  run_spread = spread(run, in_specs=(MACHINES, MACHINES, P(), P()), axis_names=set(MACHINES) if axis else set())
  on_mesh = NamedSharding(mesh, MACHINES)
  return FleetPrograms(
    init=jax.jit(spread(jax.vmap(one_init), in_specs=MACHINES)),
    with_params=jax.jit(spread(with_params, in_specs=(MACHINES, MACHINES))),
    run=jax.jit(run_spread, donate_argnums=0, out_shardings=on_mesh if axis else None),
    validate=jax.jit(spread(validate_all, in_specs=(MACHINES, MACHINES)), donate_argnums=0),
    clear_report=jax.jit(spread(clear_report, in_specs=MACHINES), donate_argnums=0),
  )


def state_template(
  config: Config, num_machines: int, num_metrics: int, targets: tuple[int, ...]
) -> TrainState:
  """Returns the shapes and types of a group's state, for restoring."""
  one = partial(init_state, config=config, num_metrics=num_metrics, num_targets=len(targets))
  return jax.eval_shape(jax.vmap(one), jax.ShapeDtypeStruct((num_machines,), jnp.uint32))
