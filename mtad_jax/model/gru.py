"""A gated recurrent unit over a window (Cho et al. 2014, with the reset gate after the product).

r_t = sigmoid(W_r x_t + U_r h + b_r), u_t = sigmoid(W_u x_t + U_u h + b_u),
n_t = tanh(W_n x_t + b_n + r_t * (U_n h + c)), h_t = (1 - u_t) n_t + u_t h, h_0 = 0.
The input products of all rows are one product outside the scan.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


class GRU(nn.Module):
  """One layer; gates stand in the order reset, update, candidate."""

  hidden_size: int

  @nn.compact
  def __call__(self, inputs: jax.Array) -> jax.Array:
    """Returns the states [B, W, H] of inputs [B, W, D]."""
    size = self.hidden_size
    projected = nn.Dense(3 * size, name="input")(inputs)  # [B, W, 3H]
    recurrent = self.param("recurrent", nn.initializers.orthogonal(), (size, 3 * size))
    candidate_bias = self.param("candidate_bias", nn.initializers.zeros, (size,))

    def step(state: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
      products = state @ recurrent  # [B, 3H]
      gates = jax.nn.sigmoid(row[:, : 2 * size] + products[:, : 2 * size])
      reset, update = gates[:, :size], gates[:, size:]
      candidate = jnp.tanh(row[:, 2 * size :] + reset * (products[:, 2 * size :] + candidate_bias[None, :]))
      state = (1 - update) * candidate + update * state
      return state, state

    start = jnp.zeros((inputs.shape[0], size), inputs.dtype)
    _, states = jax.lax.scan(step, start, jnp.swapaxes(projected, 0, 1))  # [W, B, H]
    return jnp.swapaxes(states, 0, 1)
