"""The variational autoencoder on the GRU's states; it reconstructs the window itself.

q(z_t | h_t) = N(mean, exp(log_variance)); p(x_t | z_t) = N(mean, variance), one mean and one variance per
time and metric, variance = floor + softplus(.) so that no metric's likelihood is without bound. The
paper does not say whether the code is one per window or one per row; the original program's latent size, half
of the 38 metrics, is a row's, and so is ours.

Arrays have their axes reversed inside, the batch last: the layers, and the products that are their gradients, then
work on whole arrays, where a CPU would first have to copy what stands the other way. Two layers on the same values
are one product.
"""

import itertools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from mtad_jax.model.dense import DenseParameters


class Reconstruction(NamedTuple):
  """mean, variance: [B, ..., F] of the input; code_mean, code_log_variance: [B, ..., Z] of q(z | h)."""

  mean: jax.Array
  variance: jax.Array
  code_mean: jax.Array
  code_log_variance: jax.Array


def _apply(values: jax.Array, *layers: DenseParameters) -> tuple[jax.Array, ...]:
  """Returns each layer's outputs [size, ...] of values [D, ...]."""
  kernels, biases = zip(*(layer(values.shape[0]) for layer in layers), strict=True)
  flat = values.reshape(values.shape[0], -1)
  found = jnp.concatenate(kernels, axis=1).T @ flat + jnp.concatenate(biases)[:, None]
  ends = list(itertools.accumulate(layer.size for layer in layers))[:-1]
  return tuple(jnp.split(found.reshape(-1, *values.shape[1:]), ends))


class VAE(nn.Module):
  """Encoder and decoder, applied to every state alike."""

  latent_size: int
  decoder_size: int
  num_targets: int
  variance_floor: float
  log_variance_min: float
  log_variance_max: float

  @nn.compact
  def __call__(self, states: jax.Array, noise: jax.Array | None) -> Reconstruction:
    """Returns the reconstruction of the rows at `states` [H, ..., B].

    Args:
      noise: [B, ..., Z] standard normal draws; None takes the mean code, which is what scoring does: one
        random draw would make a row's score depend on luck.
    """
    of_code = (
      DenseParameters(self.latent_size, name="code_mean"),
      DenseParameters(self.latent_size, name="code_log_variance"),
    )
    code_mean, raw = _apply(states, *of_code)
    log_variance = bounded(raw, self.log_variance_min, self.log_variance_max)
    code = code_mean if noise is None else code_mean + jnp.exp(0.5 * log_variance) * reversed_axes(noise)
    (hidden,) = _apply(code, DenseParameters(self.decoder_size, name="decoder"))
    of_rows = (
      DenseParameters(self.num_targets, name="mean"),
      DenseParameters(self.num_targets, name="variance"),
    )
    mean, raw = _apply(nn.relu(hidden), *of_rows)
    variance = self.variance_floor + jax.nn.softplus(raw)
    return Reconstruction(mean.T, variance.T, code_mean.T, log_variance.T)


def reversed_axes(array: jax.Array) -> jax.Array:
  """Returns the array with its axes in reversed order, copied, so that what follows works on a whole array."""
  return lax.optimization_barrier(array.T)


def bounded(x: jax.Array, low: float, high: float) -> jax.Array:
  """Returns x squeezed smoothly into (low, high), with slope 1 at 0; both bounds must enclose 0.

  A hard clip would have gradient 0 outside; unbounded, exp overflows at 89.
  """
  return jnp.where(x < 0, low * jnp.tanh(x / low), high * jnp.tanh(x / high))
