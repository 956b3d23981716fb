"""A gated recurrent unit over a window (Cho et al. 2014, with the reset gate after the product).

r_t = sigmoid(W_r x_t + U_r h + b_r), u_t = sigmoid(W_u x_t + U_u h + b_u),
n_t = tanh(W_n x_t + b_n + r_t * (U_n h + c)), h_t = (1 - u_t) n_t + u_t h, h_0 = 0.
The input products of all rows are formed outside the loop over time.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtad_jax.model.recurrence import InputProducts, all_states, last_state


class _Input(nn.Module):
  """The inputs' share of the gates, reset and update apart from the candidate: no copy joins or cuts them later."""

  hidden_size: int

  @nn.compact
  def __call__(self, inputs: jax.Array) -> InputProducts:
    size = self.hidden_size
    kernel = self.param("kernel", nn.initializers.lecun_normal(), (inputs.shape[-1], 3 * size))
    bias = self.param("bias", nn.initializers.zeros, (3 * size,))
    cuts = (slice(0, 2 * size), slice(2 * size, None))
    return InputProducts(*(inputs @ kernel[:, cut] + bias[cut][None, None, :] for cut in cuts))


class GRU(nn.Module):
  """One layer; gates stand in the order reset, update, candidate."""

  hidden_size: int

  @nn.compact
  def __call__(self, inputs: jax.Array, last_only: bool) -> jax.Array:
    """Returns the states [B, W, H] of inputs [B, W, D], or the last one alone [B, H], as scoring needs it."""
    size = self.hidden_size
    products = _Input(size, name="input")(jnp.swapaxes(inputs, 0, 1))  # [W, B, .]
    recurrent = self.param("recurrent", nn.initializers.orthogonal(), (size, 3 * size))
    candidate_bias = self.param("candidate_bias", nn.initializers.zeros, (size,))
    if last_only:
      return last_state(products, recurrent, candidate_bias)
    return jnp.swapaxes(all_states(products, recurrent, candidate_bias), 0, 1)
