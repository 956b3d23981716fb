"""The input contract at scoring: names, order, count, sampling step and share filled are as in training.

A broken contract is refused by one line; another order of the same names is put right.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from mtad_jax.config import DataConfig
from mtad_jax.data import gaps
from mtad_jax.data.machine import Series
from mtad_jax.data.preparation import Preparation

STEP_TOLERANCE = 0.05  # relative difference of sampling steps that is let pass: clocks drift


def _listed(names: Sequence[str]) -> str:
  return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _columns(trained: Sequence[str], given: Sequence[str], where: str, extra: str) -> np.ndarray:
  repeated = sorted({name for name in given if list(given).count(name) > 1})
  if repeated:
    raise ValueError(f"{where}: metric {repeated[0]!r} is there more than once")
  missing = [name for name in trained if name not in given]
  unknown = [name for name in given if name not in trained]
  if missing and len(unknown) == len(missing):
    pairs = [f"{old} (is {new} the same, renamed?)" for old, new in zip(missing, unknown, strict=True)]
    raise ValueError(f"{where}: metrics missing that training had: {_listed(pairs)}")
  if missing:
    raise ValueError(f"{where}: metrics missing that training had: {_listed(missing)}")
  if unknown and extra == "refuse":
    raise ValueError(f"{where}: metrics that training did not have: {_listed(unknown)}; they can be ignored")
  return np.array([list(given).index(name) for name in trained], np.int64)


def _check_step(preparation: Preparation, series: Series, where: str) -> None:
  trained, here = preparation.source_step_s, gaps.sampling_step(series)
  if trained is None or here is None:
    return
  if abs(here - trained) > STEP_TOLERANCE * trained:
    raise ValueError(
      f"{where}: sampling step is {here:g} s, in training it was {trained:g} s; at most"
      f" {STEP_TOLERANCE:.0%} of difference is allowed"
    )


def check_contract(
  preparation: Preparation,
  machine_name: str,
  metrics: Sequence[str],
  series: Series,
  settings: DataConfig,
  *,
  named: bool,
  extra: Literal["refuse", "ignore"],
) -> np.ndarray:
  """Returns the column of `metrics` that holds each trained metric, [F] int64 in the trained order.

  Args:
    preparation: of the machine's training split.
    machine_name: for messages.
    metrics: names of the series' columns; made up by the reader where `named` is False.
    series: [T, len(metrics)].
    settings: max_filled_share is read.
    named: whether the source names its columns; unnamed ones are taken by position and must be as many.
    extra: what to do with metrics that training did not have.

  Raises:
    ValueError: one line naming the machine and the metric, step or share that breaks the contract. The step
      is compared only where both sides have timestamps.
  """
  where = f"machine {machine_name}"
  if extra not in ("refuse", "ignore"):
    raise ValueError(f"extra metrics: {extra!r} is not allowed; choose refuse or ignore")
  if series.values.shape[1] != len(metrics):
    raise ValueError(f"{where}: {series.values.shape[1]} columns but {len(metrics)} metric names")
  if named:
    columns = _columns(preparation.metrics, metrics, where, extra)
  else:
    if len(metrics) != len(preparation.metrics):
      raise ValueError(
        f"{where}: {len(metrics)} unnamed columns, training had {len(preparation.metrics)} metrics"
      )
    columns = np.arange(len(metrics), dtype=np.int64)
  _check_step(preparation, series, where)
  try:
    grid = gaps.place_on_grid(Series(series.values[:, columns], series.timestamps), preparation.step_s)
  except ValueError as error:
    raise ValueError(f"{where}: {error}") from None
  if len(grid.filled):
    share = float(np.mean(grid.filled))
    if share > settings.max_filled_share:
      raise ValueError(
        f"{where}: {share:.1%} of the values are missing; at most {settings.max_filled_share:.1%} are allowed"
        " (data.max_filled_share)"
      )
  return columns
