"""The recurrence of a gated recurrent unit over time, with a gradient written by hand.

In: the products of the inputs, time first. Out: the states. The loops write into preallocated arrays by index, so
that a mapped machine axis stays a batched product and nothing is transposed; the backward loop carries the state's
gradient alone and keeps the gates' gradients, of which the weights' gradient is one product over all rows after
the loop. Left to automatic differentiation, every row adds a product of its own to the weights' gradient, and the
stacked gates are copied.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class InputProducts(NamedTuple):
  """What the gates take from the inputs, biases included: gates [W, B, 2H] (reset, update), candidate [W, B, H]."""

  gates: jax.Array
  candidate: jax.Array


class _Row(NamedTuple):
  """One row's gates and candidate, [B, H] each ([W, B, H]: all rows); recurrent: U_n h + c, before the reset gate."""

  reset: jax.Array
  update: jax.Array
  candidate: jax.Array
  recurrent: jax.Array


def _step(
  state: jax.Array, gates: jax.Array, candidate: jax.Array, weight: jax.Array, bias: jax.Array
) -> tuple[jax.Array, _Row]:
  """Returns (the next state [B, H], what the gradient needs of the row)."""
  size = state.shape[-1]
  products = state @ weight  # [B, 3H]
  both = jax.nn.sigmoid(gates + products[:, : 2 * size])
  reset, update = both[:, :size], both[:, size:]
  recurrent = products[:, 2 * size :] + bias[None, :]
  new = jnp.tanh(candidate + reset * recurrent)
  return (1 - update) * new + update * state, _Row(reset, update, new, recurrent)


def last_state(inputs: InputProducts, weight: jax.Array, bias: jax.Array) -> jax.Array:
  """Returns the state [B, H] after the last row, for use without a gradient: no other row's is kept."""

  def body(t: jax.Array, state: jax.Array) -> jax.Array:
    return _step(state, inputs.gates[t], inputs.candidate[t], weight, bias)[0]

  first = jnp.zeros(inputs.candidate.shape[1:], inputs.candidate.dtype)
  return lax.fori_loop(0, inputs.candidate.shape[0], body, first)


@jax.custom_vjp
def all_states(inputs: InputProducts, weight: jax.Array, bias: jax.Array) -> jax.Array:
  """Returns the states [W, B, H] after every row, from h = 0.

  Args:
    inputs: of W rows.
    weight: [H, 3H], recurrent; gates in the order reset, update, candidate.
    bias: [H], of the candidate, inside the reset gate's product.
  """
  return _forward(inputs, weight, bias)[0]


def _forward(inputs: InputProducts, weight: jax.Array, bias: jax.Array) -> tuple[jax.Array, tuple]:
  num_rows = inputs.candidate.shape[0]
  empty = jnp.zeros_like(inputs.candidate)

  def body(t: jax.Array, carry: tuple) -> tuple:
    state, states, kept = carry
    state, row = _step(state, inputs.gates[t], inputs.candidate[t], weight, bias)
    kept = _Row(*(array.at[t].set(value) for array, value in zip(kept, row, strict=True)))
    return state, states.at[t].set(state), kept

  start = (jnp.zeros_like(inputs.candidate[0]), empty, _Row(empty, empty, empty, empty))
  _, states, kept = lax.fori_loop(0, num_rows, body, start)
  return states, (weight, states, kept)


def _backward(residuals: tuple, gradient: jax.Array) -> tuple[InputProducts, jax.Array, jax.Array]:
  weight, states, kept = residuals
  num_rows, _, size = states.shape
  previous = jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]])  # [W, B, H]
  transposed = weight.T

  def body(i: jax.Array, carry: tuple) -> tuple:
    of_state, of_gates, of_candidate = carry
    t = num_rows - 1 - i
    reset, update, new, recurrent = (array[t] for array in kept)
    of_state = of_state + gradient[t]
    to_candidate = of_state * (1 - update) * (1 - new * new)
    to_update = of_state * (previous[t] - new) * update * (1 - update)
    to_reset = to_candidate * recurrent * reset * (1 - reset)
    gates = jnp.concatenate([to_reset, to_update], axis=-1)  # [B, 2H]
    products = jnp.concatenate([gates, to_candidate * reset], axis=-1)  # [B, 3H]
    of_state = of_state * update + products @ transposed
    return of_state, of_gates.at[t].set(gates), of_candidate.at[t].set(to_candidate)

  gates = jnp.zeros((*states.shape[:2], 2 * size), states.dtype)
  start = (jnp.zeros_like(states[0]), gates, jnp.zeros_like(states))
  _, of_gates, of_candidate = lax.fori_loop(0, num_rows, body, start)
  of_recurrent = of_candidate * kept.reset
  of_weight = [jnp.einsum("tbh,tbk->hk", previous, x) for x in (of_gates, of_recurrent)]
  return (
    InputProducts(of_gates, of_candidate),
    jnp.concatenate(of_weight, axis=-1),
    jnp.sum(of_recurrent, axis=(0, 1)),
  )


all_states.defvjp(_forward, _backward)
