"""NASA's SMAP telemetry: column 0 is forecast and scored, the commands are input only.

python scripts/train.py --config=configs/smap.py:cpu --data_dir=data --workdir=runs/smap
:cpu, seed 0: 289 steps, 9 minutes on two cores shared with other jobs; mean average precision .412 over 54 channels,
k-means on windows on the same rows .297. :linear: under a minute; .431.
"""

from ml_collections import ConfigDict

from configs import fleet


def get_config(size: str = "") -> ConfigDict:
  """Returns the settings; `size` is empty (sizes for an accelerator), "cpu" or "linear", as configs/fleet.py's."""
  config = fleet.get_config(size)
  config.data.dataset = "smap"
  config.data.target_metrics = ("0",)
  config.data.counters = "none"
  config.data.accept_constant = True  # D-12 and D-13 of SMAP never move in training
  if size == "cpu":
    config.train.validate_every_steps = 20  # a channel's epoch is about 30 steps
    config.train.log_every_steps = 10
    config.train.checkpoint_every_steps = 100
    config.train.window_budget = 1_000_000
  return config
