"""How long the role mixtures take to fit and to score a fleet's newest rows, and how large they are on disk."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from benchmark_fleet import random_fleet

from mtad_jax.config import Config
from mtad_jax.data.scaling import fit_scaler
from mtad_jax.roles.attribution import Scorer, explain_series
from mtad_jax.roles.fit import fit_roles
from mtad_jax.roles.prior import know_nothing
from mtad_jax.roles.role_file import ROLE_MIXTURES
from mtad_jax.roles.role_models import RoleModel, stack_scorers, write_role_models

MACHINES_PER_ROLE = 9  # SMD has 8, 9 and 11
_WHOLE_ROWS = 1024  # rows of a machine and dispatch, where all rows are scored


class Extent(NamedTuple):
  """What is measured."""

  machines: int
  metrics: int
  repeats: int


def _models(config: Config, rows: Sequence[np.ndarray], names: Sequence[Sequence[str]]) -> list[RoleModel]:
  roles = [f"role-{number}" for number in range(len(rows))]
  floors = [np.full(x.shape[1], config.roles.deviation_floor) for x in rows]
  fitted = fit_roles(roles, list(rows), floors, config.roles, config.train.random_seed)
  return [
    RoleModel(0, role, tuple(own), fit_scaler(x, 1e-3), found.mixture, floor, found.bic, found.num_rows)
    for role, own, x, floor, found in zip(roles, names, rows, floors, fitted, strict=True)
  ]


def _scorers(models: Sequence[RoleModel], num_metrics: int) -> Scorer:
  machines = [(name, model.role, model.scaler) for model in models for name in model.machines]
  priors = {name: know_nothing(num_metrics) for name, _, _ in machines}
  return stack_scorers(models, 0, machines, range(num_metrics), priors)


def _median_s(repeats: int, scorers: Scorer, series: Sequence[np.ndarray], batch_rows: int) -> float:
  explain_series(scorers, series, batch_rows)  # compiles
  times = []
  for _ in range(repeats):
    began = time.perf_counter()
    explain_series(scorers, series, batch_rows)
    times.append(time.perf_counter() - began)
  return statistics.median(times)


def measure_roles(config: Config, extent: Extent) -> dict[str, Any]:
  """Returns seconds of the fit (first: with compilation; again), of scoring one row and all rows, and bytes."""
  values = random_fleet(config, extent.machines, extent.metrics).values.astype(np.float64)  # [M, T, F]
  cuts = list(range(0, extent.machines, MACHINES_PER_ROLE))
  rows = [np.concatenate(values[first : first + MACHINES_PER_ROLE]) for first in cuts]
  numbers = [range(first, min(first + MACHINES_PER_ROLE, extent.machines)) for first in cuts]
  names = [[f"machine-{number}" for number in own] for own in numbers]
  fits = []
  for _ in range(2):
    began = time.perf_counter()
    models = _models(config, rows, names)
    fits.append(time.perf_counter() - began)
  with tempfile.TemporaryDirectory() as folder:
    write_role_models(folder, models, "benchmark")
    num_bytes = (Path(folder) / ROLE_MIXTURES).stat().st_size
  scorers = _scorers(models, extent.metrics)
  newest_s = _median_s(extent.repeats, scorers, [own[-1:] for own in values], 1)
  all_s = _median_s(min(extent.repeats, 3), scorers, list(values), _WHOLE_ROWS)
  return {
    "measure": "roles",
    "machines": extent.machines,
    "roles": len(models),
    "metrics": extent.metrics,
    "rows": int(values.shape[0] * values.shape[1]),
    "settings": dataclasses.asdict(config.roles),
    "components": [len(model.mixture.log_weights) for model in models],
    "fit_first_s": fits[0],
    "fit_again_s": fits[1],
    "newest_rows_s": newest_s,
    "all_rows_s": all_s,
    "bytes": num_bytes,
  }


def describe(row: dict[str, Any]) -> list[str]:
  """Returns the figures for a person."""
  return [
    f"{row['roles']} role mixtures of {row['machines']} machines, {row['metrics']} metrics, {row['rows']:,} rows,"
    f" components {', '.join(str(number) for number in row['components'])}:",
    f"  fit {row['fit_first_s']:.1f} s the first time, compilation included, {row['fit_again_s']:.1f} s again",
    f"  the newest row of every machine scored and explained in {1000 * row['newest_rows_s']:.1f} ms",
    f"  all rows in {row['all_rows_s']:.1f} s, {row['rows'] / row['all_rows_s']:,.0f} a second",
    f"  {row['bytes'] / 1024:.0f} KiB on disk",
  ]
