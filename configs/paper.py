"""The paper's sizes and training: hidden 300, latent 300, Adam 1e-3, batch 256, 100 epochs of SMD.

python scripts/train.py --config=configs/paper.py --data_dir=data --workdir=runs/paper
An epoch is taken as 28,000 rows. The gradient clip of 1.0 per machine is ours; the paper names none. Not run in full:
no accelerator was at hand.
"""

from ml_collections import ConfigDict

from mtad_jax.config import Config, to_dict
from mtad_jax.config_presets import CPU


def get_config(size: str = "") -> ConfigDict:
  """Returns the settings; `size` is empty or "cpu", which keeps the method and shrinks the network."""
  config = ConfigDict(to_dict(Config()))
  config.data.dataset = "smd"
  config.data.sampling_step_s = 60.0
  config.data.counters = "none"
  config.model.linear_rows = 0  # the paper's network stands alone
  config.train.num_train_steps = 100 * 28_000 // 256
  if size == "cpu":
    config.model.update(CPU["model"])
    config.train.update(CPU["train"])
    config.train.num_train_steps = 1_000
  elif size:
    raise ValueError(f"config: {size!r} is no size; leave it out or write :cpu")
  return config
