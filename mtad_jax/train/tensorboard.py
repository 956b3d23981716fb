"""The losses of metrics.jsonl as TensorBoard event files; an extra."""

from typing import Any

from etils import epath

from mtad_jax.train.metrics_file import LOSSES


class Tensorboard:
  """Writes each machine's losses."""

  def __init__(self, folder: epath.Path):
    """Raises ValueError where the extra is not installed."""
    try:
      from tensorboardX import SummaryWriter
    except ImportError:
      raise ValueError(
        "config.train.tensorboard: needs the extra 'tensorboard' (pip install mtad_jax[tensorboard])"
      ) from None
    self._writer = SummaryWriter(str(folder))

  def write(self, row: dict[str, Any], machines: tuple[str, ...]) -> None:
    """Writes one log row; losses that are not finite are left out."""
    for name in LOSSES:
      for machine, value in zip(machines, row.get(name, []), strict=False):
        if value is not None:
          self._writer.add_scalar(f"{name}/{machine}", value, row["step"])
    self._writer.flush()
