"""A gated recurrent unit over a window (Cho et al. 2014, with the reset gate after the product).

r_t = sigmoid(W_r x_t + U_r h + b_r), u_t = sigmoid(W_u x_t + U_u h + b_u),
n_t = tanh(W_n x_t + b_n + r_t * (U_n h + c)), h_t = (1 - u_t) n_t + u_t h, h_0 = 0.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from mtad_jax.model.dense import DenseParameters
from mtad_jax.model.recurrence import Weights, all_states, last_state


class GRU(nn.Module):
  """One layer; gates stand in the order reset, update, candidate."""

  hidden_size: int

  @nn.compact
  def __call__(self, inputs: jax.Array, last_only: bool) -> jax.Array:
    """Returns the states [H, W, B] of inputs [B, W, D], or the last one alone [H, B], as scoring needs it."""
    size = self.hidden_size
    kernel, bias = DenseParameters(3 * size, name="input")(inputs.shape[-1])
    recurrent = self.param("recurrent", nn.initializers.orthogonal(), (size, 3 * size))
    candidate_bias = self.param("candidate_bias", nn.initializers.zeros, (size,))
    weights = Weights(kernel, bias, recurrent, candidate_bias)
    batch_last = lax.optimization_barrier(jnp.transpose(inputs, (1, 2, 0)))  # [W, D, B], copied once
    if last_only:
      return last_state(batch_last, weights)
    return lax.optimization_barrier(jnp.swapaxes(all_states(batch_last, weights), 0, 1))
