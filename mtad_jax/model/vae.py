"""The variational autoencoder on the GRU's states; it reconstructs the window itself.

q(z_t | h_t) = N(mean, exp(log_variance)); p(x_t | z_t) = N(mean, variance), one mean and one variance per
time and metric, variance = floor + softplus(.) so that no metric's likelihood is without bound. The
paper does not say whether the code is one per window or one per row; the original program's latent size, half
of the 38 metrics, is a row's, and so is ours.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class Reconstruction(NamedTuple):
  """mean, variance: [..., F] of the input; code_mean, code_log_variance: [..., Z] of q(z | h)."""

  mean: jax.Array
  variance: jax.Array
  code_mean: jax.Array
  code_log_variance: jax.Array


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
    """Returns the reconstruction of the rows at `states` [..., H].

    Args:
      noise: [..., Z] standard normal draws; None takes the mean code, which is what scoring does: one
        random draw would make a row's score depend on luck.
    """
    code_mean = nn.Dense(self.latent_size, name="code_mean")(states)
    raw = nn.Dense(self.latent_size, name="code_log_variance")(states)
    log_variance = bounded(raw, self.log_variance_min, self.log_variance_max)
    code = code_mean if noise is None else code_mean + jnp.exp(0.5 * log_variance) * noise
    hidden = nn.relu(nn.Dense(self.decoder_size, name="decoder")(code))
    mean = nn.Dense(self.num_targets, name="mean")(hidden)
    variance = self.variance_floor + jax.nn.softplus(nn.Dense(self.num_targets, name="variance")(hidden))
    return Reconstruction(mean, variance, code_mean, log_variance)


def bounded(x: jax.Array, low: float, high: float) -> jax.Array:
  """Returns x squeezed smoothly into (low, high), with slope 1 at 0; both bounds must enclose 0.

  A hard clip would have gradient 0 outside; unbounded, exp overflows at 89.
  """
  return jnp.where(x < 0, low * jnp.tanh(x / low), high * jnp.tanh(x / high))
