"""Any fleet: a folder of raw files, or a dataset made from one.

python scripts/train.py --config=configs/fleet.py:cpu --source=myfleet --workdir=runs/mine
python scripts/train.py --config=configs/fleet.py:linear --source=myfleet --workdir=runs/linear    # no network
"""

from ml_collections import ConfigDict

from mtad_jax.config_presets import SIZES, linear_settings, network_settings


def get_config(size: str = "") -> ConfigDict:
  """Returns the settings; `size` is empty (sizes for an accelerator), "cpu", or "linear": no network at all."""
  if size == "linear":
    return ConfigDict(linear_settings())
  if size not in SIZES:
    raise ValueError(f"config: {size!r} is no size; leave it out or write :cpu or :linear")
  return ConfigDict(network_settings(size))
