"""The linear skip's weights in closed form, machine by machine on the host, in float64.

In: a group's prepared machines. Out: the `linear` block of the network's parameters. A ridge regression of a row's
targets on the rows before it, fitted on the fit part; its penalty is the one that errs least on the validation part.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtad_jax.config import Config
from mtad_jax.data.fleet import Group, PreparedMachine, training_rows
from mtad_jax.model.linear import num_linear_rows

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # of the weights' squared length, beside the summed squared errors
_CHUNK_ROWS = 4096


def _lagged(values: np.ndarray, rows: np.ndarray, num_rows: int) -> np.ndarray:
  """Returns [N, L F]: the L rows before each of `rows`, the oldest first."""
  index = rows[:, None] - num_rows + np.arange(num_rows)[None, :]
  return values[index].reshape(len(rows), num_rows * values.shape[1]).astype(np.float64)


def _finite(values: np.ndarray, rows: np.ndarray, num_rows: int) -> np.ndarray:
  """Returns those of `rows` that are finite, with the L rows before them: one bad row must not lose the rest."""
  bad = np.concatenate([[0], np.cumsum(~np.isfinite(values).all(axis=1))])
  return rows[bad[rows + 1] == bad[rows - num_rows]]


def fit_linear(
  values: np.ndarray, fit: np.ndarray, validation: np.ndarray, targets: Sequence[int], num_rows: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (kernel [L F, F'], bias [F']) float32; zeros where the fit part has no row that is finite.

  Args:
    values: [T, F] scaled rows. fit, validation: target rows of the two parts, each at least L.
    targets: columns that are forecast. num_rows: L.
  """
  columns = list(targets)
  size = num_rows * values.shape[1]
  fit, validation = _finite(values, fit, num_rows), _finite(values, validation, num_rows)
  if not len(fit):
    return np.zeros((size, len(columns)), np.float32), np.zeros(len(columns), np.float32)
  total, total_target = np.zeros(size), np.zeros(len(columns))
  gram, cross = np.zeros((size, size)), np.zeros((size, len(columns)))
  # what is subtracted first keeps the sums of squares small: a level of 0.5 would cost digits
  origin = values[fit].mean(axis=0, dtype=np.float64)
  centred = values.astype(np.float64) - origin
  for rows in np.array_split(fit, -(-len(fit) // _CHUNK_ROWS)):
    inputs, outputs = _lagged(centred, rows, num_rows), centred[rows][:, columns]
    total, total_target = total + inputs.sum(axis=0), total_target + outputs.sum(axis=0)
    gram, cross = gram + inputs.T @ inputs, cross + inputs.T @ outputs
  mean, mean_target = total / len(fit), total_target / len(fit)
  gram -= len(fit) * np.outer(mean, mean)
  cross -= len(fit) * np.outer(mean, mean_target)
  lengths, directions = np.linalg.eigh(gram)
  lengths, along = np.maximum(lengths, 0), directions.T @ cross
  inputs, outputs = _lagged(centred, validation, num_rows) - mean, centred[validation][:, columns] - mean_target
  best, least = np.zeros_like(cross), np.inf
  for penalty in PENALTIES:
    kernel = directions @ (along / (lengths + penalty)[:, None])
    error = float(np.sum((outputs - inputs @ kernel) ** 2))
    if error < least:
      best, least = kernel, error
  bias = mean_target + origin[columns] - (mean + np.tile(origin, num_rows)) @ best
  return best.astype(np.float32), bias.astype(np.float32)


def _fit_machine(machine: PreparedMachine, targets: Sequence[int], config: Config) -> dict[str, np.ndarray]:
  rows = training_rows(machine, config)
  num_rows = num_linear_rows(config.model)
  kernel, bias = fit_linear(machine.train.values, rows["fit"], rows["validation"], targets, num_rows)
  return {"kernel": kernel, "bias": bias}


def fit_linear_skips(group: Group, config: Config, lanes: Sequence[int]) -> dict[str, Any]:
  """Returns the parameters' blocks that are fitted rather than drawn, [m, ...] leaves; empty where there is none.

  Args:
    lanes: indices of the machines wanted, at least one.
  """
  if not num_linear_rows(config.model):
    return {}
  fitted = [_fit_machine(group.machines[i], group.targets, config) for i in lanes]
  return {"linear": {name: np.stack([one[name] for one in fitted]) for name in fitted[0]}}
