"""MTAD-GAT assembled, for one machine: pure `init_params` and `apply` on a plain tree.

window [B, W, F] -> convolution over time -> feature and time attention side by side -> GRU -> forecaster on
the last state, VAE on the states (Zhao et al., ICDM 2020). A linear autoregression of the window is added to the
forecast, so that the network learns what that leaves; the paper has none. The detector `linear` is that alone.
"""

from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtad_jax.config import ModelConfig
from mtad_jax.config_choices import Attention, Detector, RunMode
from mtad_jax.model.attention import GraphAttention
from mtad_jax.model.convolution import Convolution
from mtad_jax.model.forecaster import Forecaster
from mtad_jax.model.gru import GRU
from mtad_jax.model.linear import LinearSkip, num_linear_rows
from mtad_jax.model.vae import VAE, Reconstruction

Params = dict[str, Any]


class Outputs(NamedTuple):
  """What the network says of a batch of windows; None where the run mode has no such part.

  forecast: [B, F'] of the row after each window. reconstruction: of every row [B, W, F'], or of the last row
  alone [B, F']. feature_attention: [B, F, F], time_attention: [B, W, W]; None in a network without attention.
  """

  forecast: jax.Array | None
  reconstruction: Reconstruction | None
  feature_attention: jax.Array | None
  time_attention: jax.Array | None


class Network(nn.Module):
  """The whole network; use `init_params` and `apply`."""

  settings: ModelConfig
  num_targets: int

  @nn.compact
  def __call__(self, windows: jax.Array, noise: jax.Array | None, last_row_only: bool) -> Outputs:
    config = self.settings
    linear_rows = num_linear_rows(config)
    if config.detector is Detector.LINEAR:
      return Outputs(LinearSkip(linear_rows, self.num_targets, name="linear")(windows), None, None, None)
    # No activation: the paper names none, and a ReLU here would cut what lies below a metric's minimum.
    rows = Convolution(config.kernel_size, name="convolution")(windows)
    joined, feature_weights, time_weights = rows, None, None
    if config.attention is not Attention.NONE:
      kind = (config.attention is Attention.GATV2, config.attention_size, config.leaky_slope)
      by_feature, feature_weights = GraphAttention(*kind, name="feature_attention")(
        jnp.swapaxes(rows, 1, 2)  # [B, W, F] -> [B, F, W]
      )
      by_time, time_weights = GraphAttention(*kind, name="time_attention")(rows)
      joined = jnp.concatenate([rows, jnp.swapaxes(by_feature, 1, 2), by_time], axis=-1)  # [B, W, 3F]
    states = GRU(config.hidden_size, name="gru")(joined, last_only=last_row_only)  # [H, W, B], or [H, B]
    last = (states if last_row_only else states[:, -1]).T
    forecast, reconstruction = None, None
    if config.run_mode is not RunMode.RECONSTRUCTING:
      with_skip = linear_rows > 0
      forecast = Forecaster(
        config.forecast_size, config.forecast_layers, self.num_targets, with_skip, name="forecaster"
      )(last)
      if with_skip:
        forecast += LinearSkip(linear_rows, self.num_targets, name="linear")(windows)
    if config.run_mode is not RunMode.FORECASTING:
      reconstruction = VAE(
        latent_size=config.latent_size,
        decoder_size=config.decoder_size,
        num_targets=self.num_targets,
        variance_floor=config.variance_floor,
        log_variance_min=config.log_variance_min,
        log_variance_max=config.log_variance_max,
        name="vae",
      )(states, noise)
    return Outputs(forecast, reconstruction, feature_weights, time_weights)


def init_params(key: jax.Array, settings: ModelConfig, num_metrics: int, num_targets: int) -> Params:
  """Returns freshly drawn parameters for one machine with F = num_metrics inputs and F' = num_targets."""
  network = Network(settings, num_targets)
  example = jnp.zeros((1, settings.window_size, num_metrics), jnp.float32)
  return network.init(key, example, None, last_row_only=False)["params"]


def apply(
  params: Params,
  windows: jax.Array,
  noise: jax.Array | None = None,
  *,
  settings: ModelConfig,
  num_targets: int,
  last_row_only: bool = False,
) -> Outputs:
  """Returns the network's outputs for windows [B, W, F].

  Args:
    params: one machine's tree from `init_params`.
    windows: scaled rows, float32.
    noise: [B, W, Z] standard normal draws for the VAE's code; None takes the mean code.
    last_row_only: reconstruct the window's last row alone, as scoring needs it; without a gradient.
  """
  network = Network(settings, num_targets)
  outputs = network.apply({"params": params}, windows, noise, last_row_only)
  return cast(Outputs, outputs)  # Flax's own type allows for mutable collections, of which there are none
