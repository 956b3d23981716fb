"""One Gaussian mixture per role of machines, in place of a network per machine; any fleet.

python scripts/train.py --config=configs/role_gmm.py --source=myfleet --workdir=runs/roles
python scripts/train.py --config=configs/role_gmm.py --data_dir=data --config.data.dataset=smd --workdir=runs/roles
"""

from ml_collections import ConfigDict

from mtad_jax.config import Config, to_dict


def get_config(size: str = "") -> ConfigDict:
  """Returns the settings; `size` is empty or "cpu", which is the same here."""
  if size not in ("", "cpu"):
    raise ValueError(f"config: {size!r} is no size; leave it out or write :cpu")
  config = ConfigDict(to_dict(Config()))
  config.model.detector = "role_mixture"
  config.model.run_mode = "RECONSTRUCTING"  # of each metric given the others; nothing is forecast
  config.model.window_size = 2  # a row is judged by itself; the smallest window there is
  config.detect.score_batch = 1024
  return config
