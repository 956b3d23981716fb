"""Rule density for a network: the mixture of a role on its machines' forecast and reconstruction errors.

In: signed errors of a machine's rows. Out: the same with `surprise` and `attribution`, as a role's mixture gives them
for the rows themselves: one calibrated score and one explanation in closed form, in place of a hand-set gamma. Fitted
on the validation part: on the fit part errors are too small, and on the calibration part thresholds are fitted.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mtad_jax.config import Config
from mtad_jax.detect.errors import Errors
from mtad_jax.detect.residual_scorer import judge_series, make_residual_scorer
from mtad_jax.roles.fit import fit_roles
from mtad_jax.roles.mixture import Mixture
from mtad_jax.roles.prior import MetricPrior

VARIES = 0.1  # of an error's own deviation, what each may vary by given the others; keeps covariances from singular
_BATCH_ROWS = 1024


class ResidualDensity(NamedTuple):
  """A machine's part of its role's mixture. deviations: [R] of its errors on the validation part, scaled units."""

  deviations: np.ndarray
  mixture: Mixture


def residual_columns(errors: Errors) -> np.ndarray:
  """Returns [T, R] float64: forecast errors, then reconstruction errors, those that the mode has."""
  parts = [part for part in (errors.forecast, errors.reconstruction) if part is not None]
  return np.concatenate(parts, axis=1)


def fit_residuals(
  names: Sequence[str], roles: Sequence[str], validation: Sequence[Errors], config: Config
) -> list[ResidualDensity]:
  """Returns each machine's density, mixtures shared by the machines of a role.

  Args:
    names, roles: of the machines. validation: their errors on the usable rows of their validation parts.

  Raises:
    ValueError: a machine without a finite validation error, or a role with too few rows, by name.
  """
  rows, deviations = [], []
  for name, errors in zip(names, validation, strict=True):
    found = residual_columns(errors)
    found = found[np.isfinite(found).all(axis=1)]
    if not len(found):
      raise ValueError(f"machine {name}: rule density: not one row of the validation part has a finite error")
    own = np.maximum(found.std(axis=0), config.detect.error_floor)
    deviations.append(own)
    rows.append(found / own[None, :])
  distinct = list(dict.fromkeys(roles))
  members = [np.concatenate([x for x, role in zip(rows, roles, strict=True) if role == one]) for one in distinct]
  floors = [np.full(x.shape[1], VARIES) for x in members]
  fitted = fit_roles(distinct, members, floors, config.roles, config.train.random_seed)
  mixtures = {role: found.mixture for role, found in zip(distinct, fitted, strict=True)}
  return [ResidualDensity(own, mixtures[role]) for own, role in zip(deviations, roles, strict=True)]


def with_density(errors: Errors, density: ResidualDensity, prior: MetricPrior) -> Errors:
  """Returns the errors with the mixture's surprise [T] and attribution [T, F'], NaN where a row has no window.

  Args:
    prior: what is known of the F' metrics.
  """
  columns = residual_columns(errors)
  scorer = make_residual_scorer(density.mixture, density.deviations, np.full(columns.shape[1], VARIES), prior)
  stacked = jax.tree.map(lambda values: np.asarray(values)[None], scorer)
  found = judge_series(stacked, [columns], _BATCH_ROWS)[0]
  return errors._replace(surprise=found.surprise, attribution=found.attribution)


def mixture_to_json(mixture: Mixture) -> dict[str, Any]:
  """Returns plain lists; `mixture_from_json` is its exact inverse."""
  return {name: np.asarray(values).tolist() for name, values in mixture._asdict().items()}


def mixture_from_json(values: dict[str, Any]) -> Mixture:
  """Returns what `mixture_to_json` wrote; raises KeyError on a missing field."""
  return Mixture(*[np.array(values[name], np.float64) for name in Mixture._fields])
