"""A gated recurrent unit over a window (Cho et al. 2014, with the reset gate after the product).

r_t = sigmoid(W_r x_t + U_r h + b_r), u_t = sigmoid(W_u x_t + U_u h + b_u),
n_t = tanh(W_n x_t + b_n + r_t * (U_n h + c)), h_t = (1 - u_t) n_t + u_t h, h_0 = 0.
The input products of all rows are formed outside the loop over time, the batch as the last axis.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from mtad_jax.model.recurrence import all_states, last_state


def _batch_last(array: jax.Array) -> jax.Array:
  """Returns [B, W, D] as [D, W, B], copied, so that the products after it work on whole arrays."""
  return lax.optimization_barrier(jnp.transpose(array, (2, 1, 0)))


def _batch_first(array: jax.Array) -> jax.Array:
  """Returns [W, H, B] as [B, W, H], copied."""
  return lax.optimization_barrier(jnp.transpose(array, (2, 0, 1)))


class _Input(nn.Module):
  """The inputs' share of the gates, of inputs [D, W, B]: [3H, W, B]."""

  hidden_size: int

  @nn.compact
  def __call__(self, inputs: jax.Array) -> jax.Array:
    size, (num_inputs, *rest) = 3 * self.hidden_size, inputs.shape
    kernel = self.param("kernel", nn.initializers.lecun_normal(), (num_inputs, size))
    bias = self.param("bias", nn.initializers.zeros, (size,))
    return (kernel.T @ inputs.reshape(num_inputs, -1) + bias[:, None]).reshape(size, *rest)


class GRU(nn.Module):
  """One layer; gates stand in the order reset, update, candidate."""

  hidden_size: int

  @nn.compact
  def __call__(self, inputs: jax.Array, last_only: bool) -> jax.Array:
    """Returns the states [B, W, H] of inputs [B, W, D], or the last one alone [B, H], as scoring needs it."""
    size = self.hidden_size
    products = _Input(size, name="input")(_batch_last(inputs))
    recurrent = self.param("recurrent", nn.initializers.orthogonal(), (size, 3 * size))
    candidate_bias = self.param("candidate_bias", nn.initializers.zeros, (size,))
    if last_only:
      return last_state(products, recurrent, candidate_bias).T
    return _batch_first(all_states(products, recurrent, candidate_bias))
