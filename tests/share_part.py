"""What one process reads and places of a fleet, as one of a Slurm job's.

python tests/share_part.py FLEETDIR MACHINES_PER_BLOCK
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tiny

from mtad_jax.data.fleet import training_arrays
from mtad_jax.train import processes
from mtad_jax.train.fleet_step import place
from mtad_jax.train.mesh import held_machines, make_mesh
from mtad_jax.train.share import read_share


def facts(source: Path, per_block: int) -> dict[str, Any]:
  """Returns, ready for JSON, the machines whose rows were kept, fleet.json, and sums of what lies on the devices."""
  config = tiny.make_config(train={"machines_per_block": per_block})
  groups, fleet = read_share(config, data_dir=None, source=str(source))
  rows_of = [machine.name for group in groups for machine in group.machines if len(machine.train.values)]
  sums = {}
  for group in groups:
    count, lanes = len(group.names), group.extent.num_lanes
    mesh = make_mesh(lanes, config.train.batch_size)
    held = held_machines(count, mesh, lanes).tolist()
    arrays = place(training_arrays(group, config, held), mesh, lanes, num_machines=count)
    for shards in zip(*(x.addressable_shards for x in arrays), strict=True):
      for i, lane in enumerate(range(arrays.values.shape[0])[shards[0].index[0]]):
        name = group.names[min(lane, count - 1)]
        sums[name] = [float(np.sum(np.asarray(x.data)[i], dtype=np.float64)) for x in shards]
  return {"rows_of": rows_of, "fleet": fleet, "extents": [group.extent for group in groups], "sums": sums}


if __name__ == "__main__":
  processes.join_from_environment()
  found = facts(Path(sys.argv[1]), int(sys.argv[2]))
  processes.leave()
  print(json.dumps(found))
