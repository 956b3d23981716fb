"""The two graph attentions on complete graphs: rows of nodes in, the same nodes mixed by attention out.

Static (Zhao et al. 2020, eq. 1 to 3): e_ij = LeakyReLU(a . v_i + b . v_j), the paper's w . (v_i ++ v_j) with
w split into halves, so that nothing of shape [N, N, 2D] exists. GATv2 (Brody et al. 2022):
e_ij = w . LeakyReLU(W1 v_i + W2 v_j). In both, alpha_ij = softmax over the neighbours j (the node itself
among them), h_i = sigmoid(sum_j alpha_ij v_j).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtad_jax.model.dense import DenseKernel, DenseParameters
from mtad_jax.model.pair_logits import PairWeights, pair_logits


class GraphAttention(nn.Module):
  """Attention over N nodes of length D; feature-oriented or time-oriented by what the caller passes."""

  gatv2: bool
  attention_size: int  # width of GATv2's projections; 0: 2 D
  leaky_slope: float

  @nn.compact
  def __call__(self, nodes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns (mixed nodes [B, N, D] in 0..1, attention [B, N, N] with rows that sum to 1).

    Args:
      nodes: [B, N, D].
    """
    length = nodes.shape[-1]
    glorot = nn.initializers.glorot_uniform()
    if self.gatv2:
      width = self.attention_size or 2 * length
      left, left_bias = DenseParameters(width, name="left")(length)
      right = DenseKernel(width, name="right")(length)
      terms = self.param("weight", glorot, (width, 1))[:, 0]
      logits = pair_logits(nodes, PairWeights(left, left_bias, right, terms), self.leaky_slope)
    else:
      left = nodes @ self.param("left", glorot, (length, 1))  # [B, N, 1]
      right = nodes @ self.param("right", glorot, (length, 1))
      logits = nn.leaky_relu(left + jnp.swapaxes(right, 1, 2), self.leaky_slope)
    attention = jax.nn.softmax(logits, axis=-1)
    return jax.nn.sigmoid(attention @ nodes), attention
