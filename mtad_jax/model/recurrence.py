"""The recurrence of a gated recurrent unit over time, with a gradient written by hand.

In: a window's rows, and the weights. Out: the states. Arrays are [W, ., B] inside the loops, time first and the batch
last, and reset, update and candidate are arrays of their own: on a CPU XLA works on whole arrays of one shape with
vector instructions, on slices of a joined one value by value. The loops write into preallocated arrays by index, so
that a mapped machine axis stays a batched product.

Which products stand inside the loop is chosen by platform. A CPU forms all of a row's there, those of the inputs and
of the weights' gradient too: they find their operands in the caches, where arrays of all rows' gates (46 MB at batch
256, window 100, hidden 150) go through memory several times and cost more than the products. Elsewhere they are
formed for all rows at once, as products too small to fill the device are what a loop cannot afford; so are they on a
CPU where the batch is small beside the weights (28 machines of batch 32: the loop's took 1.3 times the time).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Weights(NamedTuple):
  """Gates stand in the order reset, update, candidate.

  kernel: [D, 3H], of the inputs. bias: [3H]. recurrent: [H, 3H], of the state. candidate_bias: [H], of the
  candidate, inside the reset gate's product.
  """

  kernel: jax.Array
  bias: jax.Array
  recurrent: jax.Array
  candidate_bias: jax.Array


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

  def inputs_share(self) -> _Gates:
    """Returns what stands beside the inputs' products."""
    return _Gates(self.reset, self.update, self.candidate)

  def state_share(self) -> _Gates:
    """Returns what stands beside the state's products."""
    return _Gates(self.reset, self.update, self.recurrent)


def _by_platform(part: Callable[..., Any], inputs: jax.Array, weights: Weights, *others: Any) -> Any:
  """Runs a part with its products in the loop on a CPU, where the batch is large enough, else with them hoisted."""
  num_inputs, batch = inputs.shape[-2:]
  in_the_loop = 2 * batch >= num_inputs + weights.recurrent.shape[0]
  return lax.platform_dependent(
    inputs, weights, *others, cpu=partial(part, hoisted=not in_the_loop), default=partial(part, hoisted=True)
  )


def _flat(*arrays: jax.Array) -> list[jax.Array]:
  """Returns [W, D, B] arrays as [D, W B], copied at once: a product over all rows is one large product then."""
  swapped = lax.optimization_barrier(tuple(jnp.swapaxes(array, 0, 1) for array in arrays))
  return [array.reshape(array.shape[0], -1) for array in swapped]


def _per_gate(weight: jax.Array) -> _Gates:
  """Returns [D, 3H] as three of [H, D]."""
  return _Gates(*(cut.T for cut in jnp.split(weight, 3, axis=1)))


def _at(arrays: Any, t: jax.Array | int) -> Any:
  return jax.tree.map(lambda array: array[t], arrays)


def _put(arrays: Any, t: jax.Array, values: Any) -> Any:
  return jax.tree.map(lambda array, value: array.at[t].set(value), arrays, values)


def _input_products(inputs: jax.Array, weights: Weights) -> _Gates:
  """Returns what the gates take from a row's inputs [D, B], biases included: [H, B] each."""
  biases = jnp.split(weights.bias[:, None], 3)
  return _Gates(*(w @ inputs + bias for w, bias in zip(_per_gate(weights.kernel), biases, strict=True)))


def _step(state: jax.Array, inputs: _Gates, weights: _Gates, bias: jax.Array) -> tuple[jax.Array, _Row]:
  """Returns (the next state [H, B], what the gradient needs of the row); weights are [H out, H in]."""
  reset = jax.nn.sigmoid(inputs.reset + weights.reset @ state)
  update = jax.nn.sigmoid(inputs.update + weights.update @ state)
  recurrent = weights.candidate @ state + bias[:, None]
  new = jnp.tanh(inputs.candidate + reset * recurrent)
  return (1 - update) * new + update * state, _Row(reset, update, new, recurrent)


def _all_input_products(inputs: jax.Array, weights: Weights) -> _Gates:
  """Returns `_input_products` of all rows of inputs [W, D, B] from one product; [W, H, B] each."""
  (flat,) = _flat(inputs)
  products = (weights.kernel.T @ flat + weights.bias[:, None]).reshape(-1, inputs.shape[0], inputs.shape[2])
  return _Gates(*lax.optimization_barrier(tuple(jnp.swapaxes(part, 0, 1) for part in jnp.split(products, 3))))


def _rows(inputs: jax.Array, weights: Weights, hoisted: bool) -> Callable[..., tuple[jax.Array, _Row]]:
  """Returns a function of (row's index, state) that steps over that row of inputs [W, D, B]."""
  products = _all_input_products(inputs, weights) if hoisted else None
  recurrent = _per_gate(weights.recurrent)

  def step(t: jax.Array, state: jax.Array) -> tuple[jax.Array, _Row]:
    of_inputs = _at(products, t) if hoisted else _input_products(inputs[t], weights)
    return _step(state, of_inputs, recurrent, weights.candidate_bias)

  return step


def _start(inputs: jax.Array, weights: Weights) -> jax.Array:
  return jnp.zeros((weights.recurrent.shape[0], inputs.shape[-1]), inputs.dtype)


def _last(inputs: jax.Array, weights: Weights, *, hoisted: bool) -> jax.Array:
  step = _rows(inputs, weights, hoisted)
  return lax.fori_loop(0, inputs.shape[0], lambda t, state: step(t, state)[0], _start(inputs, weights))


def last_state(inputs: jax.Array, weights: Weights) -> jax.Array:
  """Returns the state [H, B] after the last row of inputs [W, D, B]; has no gradient, as no other row's is kept."""
  return _by_platform(_last, inputs, weights)


@jax.custom_vjp
def all_states(inputs: jax.Array, weights: Weights) -> jax.Array:
  """Returns the states [W, H, B] after every row of inputs [W, D, B], from h = 0."""
  return _forward(inputs, weights)[0]


def _all(inputs: jax.Array, weights: Weights, *, hoisted: bool) -> tuple[jax.Array, _Row]:
  """Returns the states before and after every row [W + 1, H, B], and what the gradient needs of the rows."""
  step, start = _rows(inputs, weights, hoisted), _start(inputs, weights)
  num_rows = inputs.shape[0]

  def body(t: jax.Array, carry: tuple) -> tuple:
    state, states, kept = carry
    state, row = step(t, state)
    return state, states.at[t + 1].set(state), _put(kept, t, row)

  empty = jnp.zeros((num_rows, *start.shape), start.dtype)
  states = jnp.zeros((num_rows + 1, *start.shape), start.dtype)
  _, states, kept = lax.fori_loop(0, num_rows, body, (start, states, _Row(empty, empty, empty, empty)))
  return states, kept


def _forward(inputs: jax.Array, weights: Weights) -> tuple[jax.Array, tuple]:
  states, kept = _by_platform(_all, inputs, weights)
  return states[1:], (inputs, weights, states, kept)


def _row_back(of_state: jax.Array, previous: jax.Array, row: _Row) -> _Row:
  """Returns the gradient of a row's gates before their functions, and of `recurrent`, from that of its state."""
  to_candidate = of_state * (1 - row.update) * (1 - row.candidate * row.candidate)
  to_update = of_state * (previous - row.candidate) * row.update * (1 - row.update)
  to_reset = to_candidate * row.recurrent * row.reset * (1 - row.reset)
  return _Row(to_reset, to_update, to_candidate, to_candidate * row.reset)


def _through(weight: jax.Array, of_gates: _Gates) -> jax.Array:
  """Returns the gradient [D, B] of what [D, 3H] was multiplied with, from that of the gates [H, B]."""
  first, *others = (cut @ gate for cut, gate in zip(jnp.split(weight, 3, axis=1), of_gates, strict=True))
  return sum(others, first)


def _of_weights(of_row: _Row, inputs: jax.Array, previous: jax.Array) -> tuple[_Gates, _Gates, _Row]:
  """Returns the weights' gradient by gate, kernel's [H, D], recurrent ones' [H, H], biases' [H], of one row."""

  def against(of_gates: _Gates, values: jax.Array) -> _Gates:
    # not `gate @ values.T`: under a machine axis XLA copies the transposed
    return _Gates(*(jnp.einsum("hb,db->hd", gate, values) for gate in of_gates))

  of_kernel, of_recurrent = against(of_row.inputs_share(), inputs), against(of_row.state_share(), previous)
  return of_kernel, of_recurrent, _Row(*(jnp.sum(gate, axis=1) for gate in of_row))


def _joined(of_kernel: _Gates, of_recurrent: _Gates, of_biases: _Row) -> Weights:
  return Weights(
    jnp.concatenate(of_kernel).T,
    jnp.concatenate(of_biases.inputs_share()),
    jnp.concatenate(of_recurrent).T,
    of_biases.recurrent,
  )


def _back_to(
  t: jax.Array, of_state: jax.Array, weights: Weights, states: jax.Array, kept: _Row, of_states: jax.Array
) -> tuple[jax.Array, _Row]:
  """Returns the gradient of the state before row t, from that of the state after it, and of the row's gates."""
  row = _at(kept, t)
  of_state = of_state + of_states[t]
  of_row = _row_back(of_state, states[t], row)
  return of_state * row.update + _through(weights.recurrent, of_row.state_share()), of_row


def _back_in_the_loop(inputs: jax.Array, weights: Weights, states: jax.Array, *others: Any) -> tuple:
  def body(back: jax.Array, carry: tuple) -> tuple:
    of_state, of_inputs, of_weights = carry
    t = len(inputs) - 1 - back
    of_state, of_row = _back_to(t, of_state, weights, states, *others)
    of_inputs = of_inputs.at[t].set(_through(weights.kernel, of_row.inputs_share()))
    more = _of_weights(of_row, inputs[t], states[t])
    return of_state, of_inputs, jax.tree.map(jnp.add, of_weights, more)

  start = jnp.zeros_like(states[0])
  shapes = jax.eval_shape(_of_weights, _Row(start, start, start, start), inputs[0], start)
  none = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
  _, of_inputs, of_weights = lax.fori_loop(0, len(inputs), body, (start, jnp.zeros_like(inputs), none))
  return of_inputs, _joined(*of_weights)


def _back_hoisted(inputs: jax.Array, weights: Weights, states: jax.Array, *others: Any) -> tuple:
  num_rows, (size, batch) = len(inputs), states.shape[1:]

  def body(back: jax.Array, carry: tuple) -> tuple:
    of_state, of_rows = carry
    t = num_rows - 1 - back
    of_state, of_row = _back_to(t, of_state, weights, states, *others)
    for i, gate in enumerate((of_row.recurrent, *of_row.inputs_share())):
      of_rows = of_rows.at[t, i * size : (i + 1) * size].set(gate)
    return of_state, of_rows

  empty = jnp.zeros((num_rows, 4 * size, batch), states.dtype)
  _, of_rows = lax.fori_loop(0, num_rows, body, (jnp.zeros_like(states[0]), empty))
  of_rows, flat_inputs, previous = _flat(of_rows, inputs, states[:-1])
  of_inputs = (weights.kernel @ of_rows[size:]).reshape(-1, num_rows, batch)
  of_recurrent = jnp.einsum("gr,hr->gh", of_rows[: 3 * size], previous)  # candidate, reset, update
  of_biases = jnp.sum(of_rows, axis=1)
  return jnp.swapaxes(of_inputs, 0, 1), Weights(
    jnp.einsum("gr,dr->dg", of_rows[size:], flat_inputs),
    of_biases[size:],
    jnp.roll(of_recurrent, -size, axis=0).T,
    of_biases[:size],
  )


def _all_back(*arguments: Any, hoisted: bool) -> tuple[jax.Array, Weights]:
  """Returns the gradients of inputs [W, D, B] and weights.

  Args: inputs, weights, the states before and after every row [W + 1, H, B], what was kept of the rows, and the
    gradient of the states after them [W, H, B].
  """
  return (_back_hoisted if hoisted else _back_in_the_loop)(*arguments)


def _backward(residuals: tuple, gradient: jax.Array) -> tuple[jax.Array, Weights]:
  return _by_platform(_all_back, *residuals, gradient)


all_states.defvjp(_forward, _backward)
