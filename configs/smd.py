"""The Server Machine Dataset, all metrics.

python scripts/train.py --config=configs/smd.py:cpu --data_dir=data --workdir=runs/smd
:cpu on 20 machines, seed 0: 1,875 steps, 27 minutes on two cores shared with other jobs; mean average precision
.523, best F1 .561 (an oracle); a linear autoregression on the same rows .503, .542. :linear: under a minute; .522.
"""

from ml_collections import ConfigDict

from configs import fleet


def get_config(size: str = "") -> ConfigDict:
  """Returns the settings; `size` is empty (sizes for an accelerator), "cpu" or "linear", as configs/fleet.py's."""
  config = fleet.get_config(size)
  config.data.dataset = "smd"
  config.data.sampling_step_s = 60.0  # one row a minute
  config.data.counters = "none"  # the publisher scaled every metric to 0..1
  config.detect.threshold = "dspot"  # the level of some machines moves after training; docs/thresholds.md
  config.detect.pot_q = 2e-3
  if size == "cpu":
    config.train.window_budget = 2_400_000  # about 5 times each of the 20 machines' fit windows
  return config
