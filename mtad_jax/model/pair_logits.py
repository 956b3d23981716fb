"""GATv2's logits e_ij = sum_k w_k LeakyReLU(l_ik + r_jk) without the [N, N, A] values behind them, either way.

In: the two projections of N nodes. Out: [N, N]. Forward and backward are loops that add a chunk of terms at a
time to arrays of the result's size, with the nodes in the innermost axis. On the CPU that is one
vectorised pass in cache, where storing the pairs moves gigabytes; on a GPU nothing but the results is written.

With a the slope below 0, LeakyReLU(l + r) = l + a r + (1 - a) max(r, -l), so that a term of a pair is one maximum and
one multiply-add. LeakyReLU(x) = x s(x) with s its slope at x, so the weight's gradient needs no pass of its own:
dw_k = sum_i l_ik p_ik + sum_j r_jk q_jk with p_ik = sum_j g_ij s(l_ik + r_jk), q_jk = sum_i g_ij s(l_ik + r_jk).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

MOST_TERMS = 16  # added per pass; more make the program longer to compile and no faster


def _chunks(array: jax.Array, axis: int) -> jax.Array:
  """Returns [chunks, ..., terms, ...]: the axis cut evenly, the last chunk filled up with zeros.

  The terms stay where the axis was: in front, they would lie a batch apart, often by a multiple of 4096 bytes, in the
  same few lines of a cache.
  """
  length = array.shape[axis]
  num_chunks = -(-length // MOST_TERMS)
  terms = -(-length // num_chunks)
  widths = [(0, 0)] * array.ndim
  widths[axis] = (0, num_chunks * terms - length)
  filled = jnp.pad(array, widths)
  split = filled.reshape(*array.shape[:axis], num_chunks, terms, *array.shape[axis + 1 :])
  return jnp.moveaxis(split, axis, 0)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def pair_logits(left: jax.Array, right: jax.Array, weight: jax.Array, slope: float) -> jax.Array:
  """Returns e [B, N, N] with e_ij = sum_k weight_k LeakyReLU(left_ki + right_kj).

  Args:
    left, right: [B, A, N] projections of the nodes. weight: [A]. slope: of LeakyReLU below 0.
  """
  batch, _, num_nodes = left.shape

  def add(total: jax.Array, chunk: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
    lefts, rights, factors = chunk  # [B, terms, N], [B, terms, N], [terms]
    for t in range(lefts.shape[1]):
      x, y, factor = rights[:, t, None, :], lefts[:, t, :, None], factors[t]
      total = total + factor * jnp.where(x > y, x, y)  # a NaN is told by the plain sums below
    return total, None

  start = jnp.zeros((batch, num_nodes, num_nodes), left.dtype)
  total = lax.scan(add, start, (_chunks(-left, 1), _chunks(right, 1), _chunks(weight, 0)))[0]
  of_left, of_right = (jnp.sum(side * weight[None, :, None], axis=1) for side in (left, right))  # [B, N]
  return of_left[:, :, None] + slope * of_right[:, None, :] + (1 - slope) * total


def _slopes_sum(own: jax.Array, other: jax.Array, gradient: jax.Array, slope: float) -> jax.Array:
  """Returns [B, A, N]: sum_j gradient_ji s(own_ki + other_kj); gradient [B, N, N], own and other [B, A, N]."""

  def add(total: jax.Array, chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
    others, gradients = chunk  # [B, A, terms], [B, terms, N]
    for t in range(others.shape[2]):
      o, g = others[:, :, t, None], gradients[:, t, None, :]
      total = total + jnp.where(own >= o, g, slope * g)
    return total, None

  return lax.scan(add, jnp.zeros_like(own), (_chunks(-other, 2), _chunks(gradient, 1)))[0]


def _forward(left: jax.Array, right: jax.Array, weight: jax.Array, slope: float) -> tuple[jax.Array, tuple]:
  return pair_logits(left, right, weight, slope), (left, right, weight)


def _backward(slope: float, residuals: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  left, right, weight = residuals
  of_left = _slopes_sum(left, right, jnp.swapaxes(gradient, 1, 2), slope)
  of_right = _slopes_sum(right, left, gradient, slope)
  of_weight = jnp.sum(left * of_left + right * of_right, axis=(0, 2))
  return of_left * weight[None, :, None], of_right * weight[None, :, None], of_weight


pair_logits.defvjp(_forward, _backward)
