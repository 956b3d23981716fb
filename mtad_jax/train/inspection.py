"""What can be said of a checkpoint's arrays: norms, values that are not finite, and how two checkpoints differ.

In: trees as `Checkpoints.read_part` gives them. Out: plain dicts and lists, for a table or for JSON.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


def named_leaves(tree: Any) -> dict[str, Any]:
  """Returns {path: leaf}, the names on the way joined by "/"; NamedTuples and dicts of equal names look alike."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _norm(values: np.ndarray) -> float:
  return float(np.linalg.norm(np.asarray(values, np.float64).ravel()))


def describe_leaves(tree: Any) -> list[dict[str, Any]]:
  """Returns a dict per leaf: path, shape, dtype, norm (Euclidean), num_not_finite, num_bytes."""
  described = []
  for path, leaf in named_leaves(tree).items():
    values = np.asarray(leaf)
    floating = np.issubdtype(values.dtype, np.floating)
    described.append(
      {
        "path": path,
        "shape": list(values.shape),
        "dtype": str(values.dtype),
        "norm": _norm(values),
        "num_not_finite": int(np.sum(~np.isfinite(values))) if floating else 0,
        "num_bytes": values.nbytes,
      }
    )
  return described


def describe_unread(tree: dict[str, Sequence[Any]], shown: Sequence[str]) -> list[dict[str, Any]]:
  """Returns a dict per top-level branch that is not shown: name, num_leaves, num_values; nothing is read for it.

  Args:
    tree: the `tree` beside a checkpoint, {leaf path: [shape, dtype]}.
    shown: names of branches to leave out.
  """
  branches: dict[str, dict[str, Any]] = {}
  for path, (shape, _) in tree.items():
    found = re.search(r"\w+", path)
    name = found[0] if found else path
    if name not in shown:
      branch = branches.setdefault(name, {"name": name, "num_leaves": 0, "num_values": 0})
      branch["num_leaves"] += 1
      branch["num_values"] += math.prod(shape)
  return list(branches.values())


def machine_records(about: dict[str, Any]) -> list[dict[str, Any]]:
  """Returns a dict per machine of what a checkpoint counts of it; None: the checkpoint does not say.

  Fields: name, machine_step, best_loss, best_step, validated_step, num_skipped, num_rolled_back, retired.
  """
  verdicts = about.get("verdicts", {})
  fields = {name: about.get(name) for name in ("machine_step", "best_loss", "best_step", "validated_step")}
  fields |= {name: verdicts.get(name) for name in ("num_skipped", "num_rolled_back", "retired")}
  return [
    {"name": name, **{field: None if values is None else values[lane] for field, values in fields.items()}}
    for lane, name in enumerate(about["machines"])
  ]


class Lanes(NamedTuple):
  """One group's branch as read and which lane is which machine: leaves [M, ...], names of the M machines."""

  tree: Any
  names: tuple[str, ...]


def _ratio(distance: float, size: float) -> float:
  if distance == 0:
    return 0.0
  return math.inf if size == 0 else distance / size


def relative_difference(here: np.ndarray, there: np.ndarray) -> float:
  """Returns ||here - there|| / ||there||: 0 where equal; inf where only `there` is 0; NaN where not finite."""
  b = np.asarray(there, np.float64)
  with np.errstate(invalid="ignore"):  # inf - inf
    return _ratio(_norm(np.asarray(here, np.float64) - b), _norm(b))


def _rank(value: float) -> float:
  """Returns a number to sort differences by: what is not finite is worst."""
  return math.inf if math.isnan(value) else value


def compare_branches(here: Sequence[Lanes], there: Sequence[Lanes]) -> dict[str, Any]:
  """Returns how one branch differs between two checkpoints, machine by machine of the same name.

  Args:
    here, there: every group's part of the branch.

  Returns:
    leaves: [{path, median, worst, machine}] of the relative difference over the machines, worst first;
    machines: [{name, whole, path, worst}], of all leaves together and of the worst leaf;
    others: [line] on leaves that one side lacks or that have other shapes.
  """
  placed = {name: (lanes, i) for lanes in there for i, name in enumerate(lanes.names)}
  by_leaf: dict[str, dict[str, float]] = {}
  machines, others = [], []
  for lanes in here:
    a = named_leaves(lanes.tree)
    for i, name in enumerate(lanes.names):
      if name not in placed:
        continue
      b = named_leaves(placed[name][0].tree)
      k = placed[name][1]
      others += [f"{path}: only here" for path in a if path not in b]
      others += [f"{path}: only there" for path in b if path not in a]
      found, squares = {}, [0.0, 0.0]
      for path in (path for path in a if path in b):
        x, y = np.asarray(a[path][i]), np.asarray(b[path][k])
        if x.shape != y.shape:
          others.append(f"{path}: {list(x.shape)} here, {list(y.shape)} there")
          continue
        found[path] = relative_difference(x, y)
        by_leaf.setdefault(path, {})[name] = found[path]
        with np.errstate(invalid="ignore"):
          squares[0] += _norm(x.astype(np.float64) - y) ** 2
          squares[1] += _norm(y) ** 2
      if found:
        worst = max(found, key=lambda path: _rank(found[path]))
        whole = _ratio(math.sqrt(squares[0]), math.sqrt(squares[1]))
        machines.append({"name": name, "whole": whole, "path": worst, "worst": found[worst]})
  leaves: list[dict[str, Any]] = []
  for path, values in by_leaf.items():
    name = max(values, key=lambda machine: _rank(values[machine]))
    median = float(np.median([_rank(value) for value in values.values()]))
    leaves.append({"path": path, "median": median, "worst": values[name], "machine": name})
  leaves.sort(key=lambda leaf: -_rank(leaf["worst"]))
  return {"leaves": leaves, "machines": machines, "others": list(dict.fromkeys(others))}
