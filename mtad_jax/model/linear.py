"""The linear skip: a ridge regression on a window's last rows, beside the network, which learns what it leaves.

A linear autoregression foretells most server metrics better than a network trained for minutes does; with its
forecast added to the network's, training begins at its errors. Its weights are fitted in closed form before the
first step (`train/linear_fit.py`) and stay: they are parameters so that checkpoints hold them, behind a stopped
gradient so that no step moves them. The detector `linear` is this and no network.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtad_jax.config import ModelConfig
from mtad_jax.config_choices import Detector, RunMode


def num_linear_rows(settings: ModelConfig) -> int:
  """Returns L, the rows of a window that the linear forecast reads; 0: there is none.

  Where it is all there is, the whole window; else linear_rows, or the whole window where that is shorter.
  """
  if settings.detector is Detector.LINEAR:
    return settings.window_size
  return 0 if settings.run_mode is RunMode.RECONSTRUCTING else min(settings.linear_rows, settings.window_size)


class LinearSkip(nn.Module):
  """x -> b + sum_k A_k x_{W - L + k} over a window's last L rows; zero until it is fitted."""

  num_rows: int
  num_targets: int

  @nn.compact
  def __call__(self, windows: jax.Array) -> jax.Array:
    """Returns the linear forecast [B, F'] of the row after windows [B, W, F]."""
    last = windows[:, -self.num_rows :].reshape(windows.shape[0], -1)  # [B, L F], the oldest row first
    kernel = self.param("kernel", nn.initializers.zeros, (last.shape[1], self.num_targets))
    bias = self.param("bias", nn.initializers.zeros, (self.num_targets,))
    # Its weights lean on differences of nearly equal rows, which bfloat16 or TF32 products would round away.
    forecast = jnp.dot(last, kernel, precision=jax.lax.Precision.HIGHEST) + bias[None, :]
    return jax.lax.stop_gradient(forecast)
