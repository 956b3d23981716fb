"""Row outputs and shares of the attention of tiny groups on whatever devices there are.

python tests/score_part.py FILE
"""

import sys

import jax
import numpy as np
import tiny

from mtad_jax.data.fleet import training_arrays
from mtad_jax.detect.feature_attention import attention_shares
from mtad_jax.detect.row_outputs import compute_row_outputs
from mtad_jax.train.fleet_step import make_programs
from mtad_jax.train.mesh import make_mesh

CONFIG = tiny.make_config()
GROUPS = ((200,), (200, 260, 230), (200, 260, 230, 210, 250, 220, 240, 205, 215, 225, 235))


def row_outputs() -> dict[str, np.ndarray]:
  """Returns every output of every machine of every group by name."""
  found = {}
  for lengths in GROUPS:
    group = tiny.make_group(CONFIG, lengths)
    programs = make_programs(CONFIG, 3, group.targets, make_mesh(devices=jax.local_devices()[:1]))
    params = jax.device_get(programs.init(training_arrays(group, CONFIG).machine_ids).params)
    series = [machine.train.values for machine in group.machines]
    rows = [np.arange(CONFIG.model.window_size, len(x), 3 + i) for i, x in enumerate(series)]
    shares = attention_shares(params, series, rows, CONFIG, 3)
    found |= {f"{len(lengths)} {name} attention": x for name, x in zip(group.names, shares, strict=True)}
    for name, outputs in zip(group.names, compute_row_outputs(params, series, CONFIG, 3), strict=True):
      found |= {f"{len(lengths)} {name} {field}": x for field, x in outputs._asdict().items() if x is not None}
  return found


if __name__ == "__main__":
  np.savez(sys.argv[1], num_devices=len(jax.local_devices()), **row_outputs())
