"""NASA's MSL telemetry: as SMAP, with its own dataset and budget.

python scripts/train.py --config=configs/msl.py:cpu --data_dir=data --workdir=runs/msl
:cpu, seed 0: 231 steps, 5 minutes on two cores shared with other jobs; mean average precision .408 over 27 channels,
k-means on windows on the same rows .350. :linear: under a minute; .399.
"""

from ml_collections import ConfigDict

from configs import smap


def get_config(size: str = "") -> ConfigDict:
  """Returns the settings; `size` is empty (sizes for an accelerator), "cpu" or "linear", as configs/fleet.py's."""
  config = smap.get_config(size)
  config.data.dataset = "msl"
  if size == "cpu":
    config.train.window_budget = 400_000
  return config
