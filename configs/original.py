"""The original TensorFlow 1 program's: hidden 300, latent 18, batch 128, clip 0.1, rates 1e-5 down to 1e-6.

python scripts/train.py --config=configs/original.py --data_dir=data --workdir=runs/original
It trained forecasting for 30,000 steps and reconstruction or both for 300,000.
Not run in full: no accelerator was at hand.
"""

from ml_collections import ConfigDict

from configs import paper


def get_config(size: str = "") -> ConfigDict:
  """Returns the settings; `size` is empty or "cpu", which keeps the method and shrinks the network."""
  config = paper.get_config(size)
  if not size:
    config.model.latent_size = 18
    config.train.batch_size = 128
    config.train.num_train_steps = 300_000
  config.train.clip_gradients = 0.1
  config.train.learning_rate = 1e-5
  config.train.final_learning_rate = 1e-6
  config.detect.rule = "gamma"
  return config
