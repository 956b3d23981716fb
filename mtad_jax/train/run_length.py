"""How long a run is: settings and a number of machines in, steps out."""

from mtad_jax.config import Config
from mtad_jax.config_choices import Detector


def total_steps(config: Config, num_machines: int) -> int:
  """Returns the steps of a run: num_train_steps, or what the window budget buys for this many machines.

  A linear forecast is fitted before the first step and none moves it; its one step measures its losses.

  Args:
    num_machines: all of equal metrics, also where they are trained in blocks.

  Raises:
    ValueError: so many steps and windows that a draw's number would leave int32.
  """
  if config.model.detector is Detector.LINEAR:
    return 1
  settings = config.train
  steps = settings.num_train_steps
  if settings.window_budget:
    steps = max(1, settings.window_budget // (num_machines * settings.batch_size))
  if steps * settings.batch_size >= 2**31:
    raise ValueError(f"config.train: {steps} steps of {settings.batch_size} windows exceed 2^31 draws per machine")
  return steps
