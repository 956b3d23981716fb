"""Windows, gathered by index on the device; which rows a batch holds is a function of (key, step).

A window is named by its target row p: it holds rows p - W .. p - 1, and row p is what is forecast. Nothing
of the size [rows, W, F] is ever stored: one split of SMD is 117 MiB, all its windows would be 11 GiB.
"""

import jax
import jax.numpy as jnp
import numpy as np

MIXING_ROUNDS = 4  # of the bijection; fewer leave neighbouring rows in neighbouring batches


def gather_windows(values: jax.Array, target_rows: jax.Array, window_size: int) -> jax.Array:
  """Returns the windows [B, W, F] that end just before `target_rows` [B] of `values` [T, F].

  The rows must lie in W .. T (T: the window after the last row): a gather never raises out of bounds.
  """
  rows = target_rows[:, None] - window_size + jnp.arange(window_size)[None, :]  # [B, W]
  return values[rows]


def shuffle_index(position: jax.Array, num_rows: jax.Array, key: jax.Array) -> jax.Array:
  """Returns the image of `position` under a keyed bijection of 0 .. num_rows - 1; O(1) memory.

  Rounds of an odd multiplication, an addition and a right-shift-xor are bijections of b-bit numbers, where
  2^b is the next power of two; positions that land outside walk on until they land inside, which keeps
  the map a bijection. A stored permutation of 28 machines x 28,000 rows would cost 143 ms an epoch.

  Args:
    position: [] int32, 0 <= position < num_rows. num_rows: [] int32, at least 1. key: a PRNG key.
  """
  num = num_rows.astype(jnp.uint32)
  num_bits = 32 - jax.lax.clz(jnp.maximum(num - 1, 1).astype(jnp.uint32))
  mask = jnp.where(num_bits >= 32, jnp.uint32(0xFFFFFFFF), (jnp.uint32(1) << num_bits) - 1)
  half = jnp.maximum(num_bits // 2, 1).astype(jnp.uint32)
  numbers = jax.random.bits(key, (2, MIXING_ROUNDS), jnp.uint32)
  factors, offsets = numbers[0] | 1, numbers[1]

  def mix(x: jax.Array) -> jax.Array:
    for i in range(MIXING_ROUNDS):
      x = (x * factors[i] + offsets[i]) & mask
      x = x ^ (x >> half)
    return x

  first = mix(position.astype(jnp.uint32))
  return jax.lax.while_loop(lambda x: x >= num, mix, first).astype(jnp.int32)


def batch_indices(key: jax.Array, step: jax.Array, num_rows: jax.Array, batch_size: int) -> jax.Array:
  """Returns the indices [B] into a machine's rows that batch `step` holds.

  Without replacement within an epoch of `num_rows`; an epoch may end inside a batch, and the next, with
  an order of its own, goes on there. Positions are counted in int32: step * B must stay below 2^31.
  """
  positions = step * batch_size + jnp.arange(batch_size, dtype=jnp.int32)

  def one(position: jax.Array) -> jax.Array:
    epoch_key = jax.random.fold_in(key, position // num_rows)
    return shuffle_index(position % num_rows, num_rows, epoch_key)

  return jax.vmap(one)(positions)


def usable_targets(
  usable: np.ndarray, filled: np.ndarray, first: int, end: int, window_size: int, max_filled_share: float
) -> np.ndarray:
  """Returns the target rows in [first, end) whose window and target may be used, rising, int32.

  Args:
    usable: [T] bool, False where a row is excluded. filled: [T, F] bool, True where a value was filled.
    max_filled_share: largest share of filled values in the W + 1 rows from the window to its target.
  """
  targets = np.arange(max(first, window_size), end)
  bad = np.concatenate([[0], np.cumsum(~usable)])
  gaps = np.concatenate([[0], np.cumsum(filled.sum(axis=1))])
  begin, stop = targets - window_size, targets + 1
  no_bad = bad[stop] == bad[begin]
  share = (gaps[stop] - gaps[begin]) / ((window_size + 1) * max(filled.shape[1], 1))
  return targets[no_bad & (share <= max_filled_share)].astype(np.int32)
