"""The recurrence of a gated recurrent unit over time, with a gradient written by hand.

In: the products of the inputs. Out: the states. Arrays are [W, H, B] inside the loops, time first and the batch
last, and reset, update and candidate are arrays of their own: on a CPU XLA works on whole arrays of one shape with
vector instructions, on slices of a joined one value by value, which took twice the time. The loops write into
preallocated arrays by index, so that a mapped machine axis stays a batched product; the backward loop carries the
state's gradient alone and keeps the gates' gradients, of which the weights' gradient is one product over all
rows after the loop. Left to automatic differentiation, every row adds a product of its own to the weights'
gradient, and the stacked gates are copied.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class _Gates(NamedTuple):
  """One array for each gate, and for the candidate."""

  reset: jax.Array
  update: jax.Array
  candidate: jax.Array


class _Row(NamedTuple):
  """One row's gates and candidate, [H, B] each ([W, H, B]: all rows); recurrent: U_n h + c, before the reset gate."""

  reset: jax.Array
  update: jax.Array
  candidate: jax.Array
  recurrent: jax.Array


def _swap_outer(*arrays: jax.Array) -> tuple[jax.Array, ...]:
  """Returns [X, Y, B] arrays as [Y, X, B], copied at once: copies XLA makes inside a loop cost more."""
  return lax.optimization_barrier(tuple(jnp.swapaxes(x, 0, 1) for x in arrays))


def _rows(inputs: jax.Array) -> _Gates:
  """Returns [3H, W, B] as three of [W, H, B]."""
  return _Gates(*_swap_outer(*jnp.split(inputs, 3)))


def _step(state: jax.Array, inputs: _Gates, weights: _Gates, bias: jax.Array) -> tuple[jax.Array, _Row]:
  """Returns (the next state [H, B], what the gradient needs of the row); weights are [H out, H in]."""
  reset = jax.nn.sigmoid(inputs.reset + weights.reset @ state)
  update = jax.nn.sigmoid(inputs.update + weights.update @ state)
  recurrent = weights.candidate @ state + bias[:, None]
  new = jnp.tanh(inputs.candidate + reset * recurrent)
  return (1 - update) * new + update * state, _Row(reset, update, new, recurrent)


def _row(gates: _Gates, t: jax.Array) -> _Gates:
  return _Gates(*(array[t] for array in gates))


def _by_gate(weight: jax.Array) -> _Gates:
  """Returns [H, 3H] as three of [H out, H in]."""
  return _Gates(*(cut.T for cut in jnp.split(weight, 3, axis=1)))


def last_state(inputs: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
  """Returns the state [H, B] after the last row, for use without a gradient: no other row's is kept.

  Args: as `all_states`.
  """
  rows, weights = _rows(inputs), _by_gate(weight)

  def body(t: jax.Array, state: jax.Array) -> jax.Array:
    return _step(state, _row(rows, t), weights, bias)[0]

  num_rows = rows.candidate.shape[0]
  return lax.fori_loop(0, num_rows, body, jnp.zeros_like(rows.candidate[0]))


@jax.custom_vjp
def all_states(inputs: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
  """Returns the states [W, H, B] after every row, from h = 0.

  Args:
    inputs: [3H, W, B], what the gates take from W rows, biases included.
    weight: [H, 3H], recurrent; gates in the order reset, update, candidate.
    bias: [H], of the candidate, inside the reset gate's product.
  """
  return _forward(inputs, weight, bias)[0]


def _forward(inputs: jax.Array, weight: jax.Array, bias: jax.Array) -> tuple[jax.Array, tuple]:
  rows, weights = _rows(inputs), _by_gate(weight)
  empty = jnp.zeros_like(rows.candidate)

  def body(t: jax.Array, carry: tuple) -> tuple:
    state, states, kept = carry
    state, row = _step(state, _row(rows, t), weights, bias)
    kept = _Row(*(array.at[t].set(value) for array, value in zip(kept, row, strict=True)))
    return state, states.at[t].set(state), kept

  start = (jnp.zeros_like(empty[0]), empty, _Row(empty, empty, empty, empty))
  _, states, kept = lax.fori_loop(0, empty.shape[0], body, start)
  return states, (weight, states, kept)


def _backward(residuals: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  weight, states, kept = residuals
  num_rows, size, batch = states.shape
  previous = jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]])  # [W, H, B]
  transposed = jnp.split(weight, 3, axis=1)  # [H in, H out] each

  def body(back: jax.Array, carry: tuple) -> tuple:
    of_state, gradients = carry
    t = num_rows - 1 - back
    reset, update, new, recurrent = (array[t] for array in kept)
    of_state = of_state + gradient[t]
    to_candidate = of_state * (1 - update) * (1 - new * new)
    to_update = of_state * (previous[t] - new) * update * (1 - update)
    to_reset = to_candidate * recurrent * reset * (1 - reset)
    to_recurrent = to_candidate * reset
    products = (to_reset, to_update, to_recurrent)
    of_state = of_state * update + sum(w @ x for w, x in zip(transposed, products, strict=True))
    for i, value in enumerate((to_recurrent, to_reset, to_update, to_candidate)):
      gradients = gradients.at[t, i * size : (i + 1) * size].set(value)
    return of_state, gradients

  gradients = jnp.zeros((num_rows, 4 * size, batch), states.dtype)
  _, gradients = lax.fori_loop(0, num_rows, body, (jnp.zeros_like(states[0]), gradients))
  gradients, before = _swap_outer(gradients, previous)  # [4H, W, B], [H, W, B]
  of_products = gradients[: 3 * size].reshape(3 * size, -1)  # candidate (before the reset gate), reset, update
  of_weight = (of_products @ before.reshape(size, -1).T).T
  of_bias = jnp.sum(of_products[:size], axis=1)
  return gradients[size:], jnp.roll(of_weight, -size, axis=1), of_bias


all_states.defvjp(_forward, _backward)
