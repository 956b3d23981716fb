"""GATv2's logits e_ij = sum_k w_k LeakyReLU(l_ik + r_jk) without the [N, N, A] values behind them, either way.

In: N nodes v, projected as l_i = L v_i + b and r_j = R v_j. Out: [N, N]. Forward and backward are loops that add a
chunk of terms at a time to arrays of the result's size, with the nodes in the innermost axis. On the CPU that is one
vectorised pass in cache, where storing the pairs moves gigabytes; on a GPU nothing but the results is written.

With a the slope below 0, LeakyReLU(l + r) = l + a r + (1 - a) max(r, -l), so that a term of a pair is one maximum and
one multiply-add. LeakyReLU(x) = x s(x) with s its slope at x. Of the gradient g of the logits all that is needed is
p_ik = sum_j g_ij s(l_ik + r_jk) and q_jk = sum_i g_ij s(l_ik + r_jk): with P_k = sum_i p_ik v_i, Q_k = sum_j q_jk v_j
and c_k = sum_i p_ik, dL_k = w_k P_k, dR_k = w_k Q_k, db_k = w_k c_k, dw_k = L_k . P_k + R_k . Q_k + b_k c_k.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Added per pass; more make the program longer to compile and no faster. With fewer than 16 readers XLA's CPU compiler
# reads a chunk through its dynamic index in the innermost loop, which is then no longer vectorised: 3 times the time.
MOST_TERMS = 16


def _even_terms(length: int) -> int:
  """Returns how many terms a pass has where each reads its chunk twice: cut evenly, 9 to 16 of more than 16."""
  return -(-length // -(-length // MOST_TERMS))


def _chunks(array: jax.Array, axis: int, terms: int) -> jax.Array:
  """Returns [chunks, ..., terms, ...]: the axis cut into chunks, the last one filled up with zeros.

  The terms stay where the axis was: in front, they would lie a batch apart, often by a multiple of 4096 bytes, in the
  same few lines of a cache.
  """
  length = array.shape[axis]
  num_chunks = -(-length // terms)
  widths = [(0, 0)] * array.ndim
  widths[axis] = (0, num_chunks * terms - length)
  filled = jnp.pad(array, widths)
  split = filled.reshape(*array.shape[:axis], num_chunks, terms, *array.shape[axis + 1 :])
  return jnp.moveaxis(split, axis, 0)


class PairWeights(NamedTuple):
  """left [D, A] and left_bias [A]: l = v left + left_bias. right [D, A]: r = v right. terms [A]: w."""

  left: jax.Array
  left_bias: jax.Array
  right: jax.Array
  terms: jax.Array


def _project(nodes: jax.Array, weights: PairWeights) -> tuple[jax.Array, jax.Array]:
  """Returns both projections [B, A, N] of nodes [B, N, D]."""
  left, right = (jnp.einsum("bnd,da->ban", nodes, kernel) for kernel in (weights.left, weights.right))
  return left + weights.left_bias[None, :, None], right


def _logits(left: jax.Array, right: jax.Array, terms: jax.Array, slope: float) -> jax.Array:
  """Returns e [B, N, N] with e_ij = sum_k terms_k LeakyReLU(left_ki + right_kj); left and right [B, A, N]."""
  batch, _, num_nodes = left.shape

  def add(total: jax.Array, chunk: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
    lefts, rights, factors = chunk  # [B, terms, N], [B, terms, N], [terms]
    for t in range(lefts.shape[1]):
      x, y, factor = rights[:, t, None, :], lefts[:, t, :, None], factors[t]
      total = total + factor * jnp.where(x > y, x, y)  # a NaN is told by the plain sums below
    return total, None

  start = jnp.zeros((batch, num_nodes, num_nodes), left.dtype)
  chunks = (_chunks(-left, 1, MOST_TERMS), _chunks(right, 1, MOST_TERMS), _chunks(terms, 0, MOST_TERMS))
  total = lax.scan(add, start, chunks)[0]
  of_left, of_right = (jnp.sum(side * terms[None, :, None], axis=1) for side in (left, right))  # [B, N]
  return of_left[:, :, None] + slope * of_right[:, None, :] + (1 - slope) * total


def _slopes_sum(own: jax.Array, other: jax.Array, gradient: jax.Array, slope: float) -> jax.Array:
  """Returns [B, A, N]: sum_j gradient_ji s(own_ki + other_kj); gradient [B, N, N], own and other [B, A, N]."""

  def add(total: jax.Array, chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
    others, gradients = chunk  # [B, A, terms], [B, terms, N]
    for t in range(others.shape[2]):
      o, g = others[:, :, t, None], gradients[:, t, None, :]
      total = total + jnp.where(own >= o, g, slope * g)
    return total, None

  num_terms = _even_terms(gradient.shape[1])
  chunks = (_chunks(-other, 2, num_terms), _chunks(gradient, 1, num_terms))
  return lax.scan(add, jnp.zeros_like(own), chunks)[0]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def pair_logits(nodes: jax.Array, weights: PairWeights, slope: float) -> jax.Array:
  """Returns the logits [B, N, N] of nodes [B, N, D]; slope: of LeakyReLU below 0."""
  return _logits(*_project(nodes, weights), weights.terms, slope)


def _forward(nodes: jax.Array, weights: PairWeights, slope: float) -> tuple[jax.Array, tuple]:
  sides = _project(nodes, weights)
  return _logits(*sides, weights.terms, slope), (nodes, weights, *sides)


def _backward(slope: float, residuals: tuple, gradient: jax.Array) -> tuple[jax.Array, PairWeights]:
  nodes, weights, left, right = residuals
  of_left = _slopes_sum(left, right, jnp.swapaxes(gradient, 1, 2), slope)
  of_right = _slopes_sum(right, left, gradient, slope)
  left_sum, right_sum = (jnp.einsum("bnd,ban->da", nodes, side) for side in (of_left, of_right))
  bias_sum = jnp.sum(of_left, axis=(0, 2))
  terms = weights.terms
  of_terms = (
    jnp.sum(weights.left * left_sum + weights.right * right_sum, axis=0) + weights.left_bias * bias_sum
  )
  of_nodes = jnp.einsum("ban,da->bnd", of_left, weights.left * terms[None, :])
  of_nodes += jnp.einsum("ban,da->bnd", of_right, weights.right * terms[None, :])
  scaled = PairWeights(left_sum * terms[None, :], bias_sum * terms, right_sum * terms[None, :], of_terms)
  return of_nodes, scaled


pair_logits.defvjp(_forward, _backward)
