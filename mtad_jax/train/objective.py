"""The two losses of one machine, per window, from parameters and windows.

forecast: sqrt(sum_i d_i^2 + eps^2) - eps over the target metrics of the next row (paper: eps = 0).
reconstruction: 0.5 (d^2 / v + log v + log 2 pi), KL: 0.5 sum_z (e^s + m^2 - 1 - s) per row; both are divided
by the number of target metrics and averaged over the window's rows, so that neither part drowns the other
in the shared layers: the paper adds the plain sums, in which 3,800 reconstructed values stand
against one forecast row.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtad_jax.config import ModelConfig
from mtad_jax.model.network import Params, apply
from mtad_jax.model.vae import Reconstruction, reversed_axes

FIT_EPSILON = 1e-4  # scaled units; the square root's gradient at an exact fit is 0 instead of NaN
LOG_TWO_PI = math.log(2 * math.pi)


class Losses(NamedTuple):
  """total, forecast, reconstruction, kl: one value per window, or their means. Absent parts are 0."""

  total: jax.Array
  forecast: jax.Array
  reconstruction: jax.Array
  kl: jax.Array


def forecast_loss(forecast: jax.Array, actual: jax.Array) -> jax.Array:
  """Returns the root of the summed squares of forecast - actual [B, F] per window, [B]."""
  squares = jnp.sum((forecast - actual) ** 2, axis=-1)
  return jnp.sqrt(squares + FIT_EPSILON**2) - FIT_EPSILON


def reconstruction_loss(reconstruction: Reconstruction, actual: jax.Array) -> jax.Array:
  """Returns the negative log-likelihood of actual [B, W, F] per value, averaged per window: [B], nats."""
  mean, variance = reconstruction.mean.T, reconstruction.variance.T  # [F, W, B], as they were formed
  squares = (reversed_axes(actual) - mean) ** 2
  return jnp.mean(0.5 * (squares / variance + jnp.log(variance) + LOG_TWO_PI), axis=(0, 1))


def kl_divergence(reconstruction: Reconstruction) -> jax.Array:
  """Returns KL(q(z | h) || N(0, I)) per row and target metric, averaged per window: [B], nats."""
  mean, log_variance = reconstruction.code_mean.T, reconstruction.code_log_variance.T  # [Z, W, B]
  per_row = 0.5 * jnp.sum(jnp.exp(log_variance) + mean**2 - 1 - log_variance, axis=0)  # [W, B]
  return jnp.mean(per_row, axis=0) / reconstruction.mean.shape[-1]


def window_losses(
  params: Params,
  windows: jax.Array,
  next_rows: jax.Array,
  key: jax.Array | None,
  *,
  settings: ModelConfig,
  targets: tuple[int, ...],
  kl_weight: float,
) -> Losses:
  """Returns the losses [B] of each window.

  Args:
    params: one machine's tree.
    windows: [B, W, F] scaled rows. next_rows: [B, F], the row after each window.
    key: for the code's noise; None takes the mean code (validation).
    targets: columns that are forecast and reconstructed.
    kl_weight: factor of the KL part in the total.
  """
  noise = None
  if key is not None:
    noise = jax.random.normal(key, (*windows.shape[:2], settings.latent_size), windows.dtype)
  outputs = apply(params, windows, noise, settings=settings, num_targets=len(targets))
  columns = jnp.asarray(targets)
  zero = jnp.zeros(windows.shape[0], windows.dtype)
  forecast = reconstruction = kl = zero
  if outputs.forecast is not None:
    forecast = forecast_loss(outputs.forecast, next_rows[:, columns])
  if outputs.reconstruction is not None:
    reconstruction = reconstruction_loss(outputs.reconstruction, windows[:, :, columns])
    kl = kl_divergence(outputs.reconstruction)
  return Losses(forecast + reconstruction + kl_weight * kl, forecast, reconstruction, kl)
