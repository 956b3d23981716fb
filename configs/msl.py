"""NASA's MSL telemetry: as SMAP, with its own dataset and budget.

python scripts/train.py --config=configs/msl.py:cpu --data_dir=DATADIR --workdir=RUNDIR
"""

from ml_collections import ConfigDict

from configs import smap


def get_config(size: str = "") -> ConfigDict:
  """Returns the settings; `size` is empty (sizes for an accelerator) or "cpu"."""
  config = smap.get_config(size)
  config.data.dataset = "msl"
  if size == "cpu":
    config.train.window_budget = 400_000
  return config
