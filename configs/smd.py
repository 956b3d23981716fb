"""The Server Machine Dataset, all metrics.

python scripts/train.py --config=configs/smd.py:cpu --data_dir=DATADIR --workdir=RUNDIR
"""

from ml_collections import ConfigDict

from configs import fleet


def get_config(size: str = "") -> ConfigDict:
  """Returns the settings; `size` is empty (sizes for an accelerator) or "cpu"."""
  config = fleet.get_config(size)
  config.data.dataset = "smd"
  config.data.sampling_step_s = 60.0  # one row a minute
  config.data.counters = "none"  # the publisher scaled every metric to 0..1
  return config
