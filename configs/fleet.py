"""Any fleet: a folder of raw files, or a dataset made from one.

python scripts/train.py --config=configs/fleet.py:cpu --source=myfleet --workdir=runs/mine
"""

from ml_collections import ConfigDict

from mtad_jax.config_presets import network_settings


def get_config(size: str = "") -> ConfigDict:
  """Returns the settings; `size` is empty (sizes for an accelerator) or "cpu"."""
  return ConfigDict(network_settings(size))
