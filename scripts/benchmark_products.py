"""Counts the matrix products of a traced program: the work that no compiler can leave out.

XLA's own cost analysis counts the body of a loop once, and the GRU is a loop over the window's rows: here a loop of
known length counts its body that many times.
"""

import math
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr


class Products(NamedTuple):
  """flops: two for each multiply-add. bytes: what the products read and write, all else taken as fused."""

  flops: int
  bytes: int


def count_products(jaxpr: Jaxpr) -> Products:
  """Returns the products of a jaxpr; a loop of unknown length counts once, of branches the dearest counts."""
  total = Products(0, 0)
  for equation in jaxpr.eqns:
    found = _product(equation) if equation.primitive.name == "dot_general" else _inner(equation)
    total = Products(total.flops + found.flops, total.bytes + found.bytes)
  return total


def _product(equation: Any) -> Products:
  (contracted, _), _ = equation.params["dimension_numbers"]
  left = equation.invars[0].aval.shape
  out = equation.outvars[0].aval
  flops = 2 * math.prod(out.shape) * math.prod(left[axis] for axis in contracted)
  arrays = [*(variable.aval for variable in equation.invars), out]
  return Products(flops, sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays))


def _inner(equation: Any) -> Products:
  """Returns the products of the jaxprs inside an equation, as often as it runs them."""
  found = [count_products(inner) for inner in _jaxprs(list(equation.params.values()))]
  if not found:
    return Products(0, 0)
  if equation.primitive.name == "cond":
    return max(found)
  times = _times(equation)
  return Products(times * sum(one.flops for one in found), times * sum(one.bytes for one in found))


def _times(equation: Any) -> int:
  name, params = equation.primitive.name, equation.params
  if name == "scan":
    return params["length"]
  if name == "shard_map":
    # along the other axes the shapes seen here are those of the whole
    return math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
  if name == "pallas_call":
    return math.prod(params["grid_mapping"].grid)
  return 1


def _jaxprs(values: Any) -> list[Jaxpr]:
  found = []
  for value in values:
    if isinstance(value, ClosedJaxpr):
      found.append(value.jaxpr)
    elif isinstance(value, Jaxpr):
      found.append(value)
    elif isinstance(value, (list, tuple)):
      found += _jaxprs(value)
  return found
