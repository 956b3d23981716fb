"""How far the attention that metrics get in an event is from what they get on normal rows.

In: the metrics' shares of a network's feature-oriented attention in an event's strongest row, and their mean and
deviation on calibration rows. A change says which metrics the network came to lean on, or to leave, and is no share
of the blame: that is what contributors are.
"""

import numpy as np

from mtad_jax.detect.feature_attention import UsualAttention

MOST_CHANGED = 5  # metrics named; more no one reads
# Of the even share 1 / F. The deviations of trained networks were 0.037 of it and more (5 machines of SMD) and 0.0055
# and more (27 channels of MSL): what is below a thousandth stands still, and its changes would be next to nothing, or
# rounding (1e-7), in units of next to nothing.
SMALLEST_DEVIATION = 1e-3

Changes = tuple[tuple[str, float], ...]


def attention_changes(shares: np.ndarray, usual: UsualAttention, metrics: tuple[str, ...]) -> list[Changes]:
  """Returns for each event the metrics whose share changed most, and by how many deviations, largest size first.

  change_j = (share_j - mean_j) / max(deviation_j, SMALLEST_DEVIATION / F); ties keep the metrics' order.

  Args:
    shares: [E, F]. metrics: names of the F metrics that the network reads.

  Raises:
    ValueError: shapes that do not match.
  """
  num = len(metrics)
  if shares.ndim != 2 or {shares.shape[1:], usual.mean.shape, usual.deviation.shape} != {(num,)}:
    raise ValueError(
      f"attention has shape {shares.shape}, its mean {usual.mean.shape}, its deviation {usual.deviation.shape};"
      f" [events, F], [F] and [F] are wanted, F = {num}"
    )
  floored = np.maximum(usual.deviation, SMALLEST_DEVIATION / num)
  changes = (shares.astype(np.float64) - usual.mean[None, :]) / floored[None, :]
  order = np.argsort(-np.abs(changes), axis=1, kind="stable")[:, :MOST_CHANGED]
  return [
    tuple((metrics[j], float(own[j])) for j in first) for own, first in zip(changes, order, strict=True)
  ]
