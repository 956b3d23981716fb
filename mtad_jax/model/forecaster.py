"""The forecaster: the GRU's last state through dense layers to the next row's target metrics."""

import flax.linen as nn
import jax


class Forecaster(nn.Module):
  """Dense layers with ReLU, then one linear output per target metric (paper: 3 layers of 300)."""

  layer_size: int
  num_layers: int
  num_targets: int
  begins_at_zero: bool = False  # the output layer does, where something else forecasts beside it

  @nn.compact
  def __call__(self, state: jax.Array) -> jax.Array:
    """Returns the forecast [B, F] of the row after the window, from the last GRU state [B, H]."""
    for i in range(self.num_layers):
      state = nn.relu(nn.Dense(self.layer_size, name=f"layer_{i}")(state))
    if self.begins_at_zero:
      return nn.Dense(self.num_targets, kernel_init=nn.initializers.zeros, name="output")(state)
    return nn.Dense(self.num_targets, name="output")(state)
