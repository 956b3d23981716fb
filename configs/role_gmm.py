"""One Gaussian mixture per role of machines, in place of a network per machine; any fleet.

python scripts/train.py --config=configs/role_gmm.py --source=myfleet --workdir=runs/roles
python scripts/train.py --config=configs/role_gmm.py --data_dir=data --config.data.dataset=smd --workdir=runs/roles
"""

from ml_collections import ConfigDict

from mtad_jax.config_presets import mixture_settings


def get_config(size: str = "") -> ConfigDict:
  """Returns the settings; `size` is empty or "cpu", which is the same here."""
  return ConfigDict(mixture_settings(size))
