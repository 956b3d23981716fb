"""Any fleet: a folder of raw files, or a dataset made from one.

python scripts/train.py --config=configs/fleet.py:cpu --source=myfleet --workdir=runs/mine
"""

from ml_collections import ConfigDict

from mtad_jax.config import Config, to_dict

CPU = {  # a network that two cores train in minutes
  "model": {
    "window_size": 50,
    "hidden_size": 64,
    "forecast_size": 64,
    "decoder_size": 64,
    "latent_size": 16,
  },
  "train": {
    "batch_size": 64,
    "learning_rate": 2e-3,
    "final_learning_rate": 1e-4,
    "schedule": "cosine",
    "validate_every_steps": 100,
    "checkpoint_every_steps": 200,
    "log_every_steps": 20,
  },
}


def get_config(size: str = "") -> ConfigDict:
  """Returns the settings; `size` is empty (sizes for an accelerator) or "cpu"."""
  config = ConfigDict(to_dict(Config()))
  config.model.update({"hidden_size": 150, "forecast_size": 150, "decoder_size": 150, "latent_size": 18})
  if size == "cpu":
    config.model.update(CPU["model"])
    config.train.update(CPU["train"])
    config.train.window_budget = 500_000
  elif size:
    raise ValueError(f"config: {size!r} is no size; leave it out or write :cpu")
  return config
