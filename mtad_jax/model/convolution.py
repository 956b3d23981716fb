"""The 1-D convolution over a window's rows, as one product with the shifted windows side by side.

y_t = b + sum_k K_k x_{t + k - (K - 1)/2}, zero outside the window. Inside a device loop XLA's own
convolution falls back to one thread on the CPU and becomes the dearest part of a step.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Convolution(nn.Module):
  """F metrics to F metrics; `kernel_size` rows, odd."""

  kernel_size: int

  @nn.compact
  def __call__(self, windows: jax.Array) -> jax.Array:
    """Returns [B, W, F] of windows [B, W, F]."""
    num_rows, num_metrics = windows.shape[1:]
    kernel = self.param(
      "kernel",
      nn.initializers.lecun_normal(in_axis=(0, 1)),
      (self.kernel_size, num_metrics, num_metrics),
    )
    bias = self.param("bias", nn.initializers.zeros, (num_metrics,))
    margin = self.kernel_size // 2
    padded = jnp.pad(windows, ((0, 0), (margin, margin), (0, 0)))
    shifted = [padded[:, k : k + num_rows] for k in range(self.kernel_size)]
    stacked = jnp.concatenate(shifted, axis=-1)  # [B, W, K F]
    return stacked @ kernel.reshape(-1, num_metrics) + bias[None, None, :]
