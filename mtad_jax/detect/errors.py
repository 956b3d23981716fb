"""A metric's errors and the distribution they have on held-out normal rows.

In: actual and predicted rows, scaled. Out: `ErrorModel`, one mean and deviation per metric for signed and for
absolute errors of every part, fitted on the calibration part and on nothing else.
"""

from typing import Any, NamedTuple

import numpy as np

from mtad_jax.detect.row_outputs import RowOutputs


class Errors(NamedTuple):
  """Signed errors [T, F'] float64, NaN where a row has no window; None where the mode has no such part.

  forecast: actual - forecast. reconstruction: actual - mean. log_variance: of the reconstruction, natural log.
  level: actual - the metric's mean on the fit part, the error of who expects nothing but what was usual: it lasts as
  long as a fault does, where a forecast soon follows the fault. Every row has one.
  surprise: [T], attribution: [T, F'], of a role's mixture; no errors, and taken as they are.
  """

  forecast: np.ndarray | None
  reconstruction: np.ndarray | None
  log_variance: np.ndarray | None
  level: np.ndarray
  surprise: np.ndarray | None = None
  attribution: np.ndarray | None = None


class Moments(NamedTuple):
  """Mean and deviation [F'] of signed errors and of their absolute values, scaled units."""

  mean: np.ndarray
  deviation: np.ndarray
  absolute_mean: np.ndarray
  absolute_deviation: np.ndarray


class ErrorModel(NamedTuple):
  """The errors' moments for each part; None where the mode has no such part."""

  forecast: Moments | None
  reconstruction: Moments | None
  level: Moments


def find_errors(actual: np.ndarray, outputs: RowOutputs, centre: np.ndarray) -> Errors:
  """Returns the errors of actual [T, F'] in float64; centre: [F'] the metrics' means on the fit part."""
  exact = actual.astype(np.float64)
  level = exact - centre[None, :]
  forecast = None if outputs.forecast is None else exact - outputs.forecast
  if outputs.reconstruction is None or outputs.variance is None:
    return Errors(forecast, None, None, level)
  log_variance = np.log(outputs.variance.astype(np.float64))
  return Errors(
    forecast, exact - outputs.reconstruction, log_variance, level, outputs.surprise, outputs.attribution
  )


def take_rows(errors: Errors, rows: np.ndarray) -> Errors:
  """Returns the errors of some rows."""
  parts: dict[str, Any] = {
    name: None if part is None else part[rows] for name, part in errors._asdict().items()
  }
  return Errors(**parts)


def join(errors: list[Errors]) -> Errors:
  """Returns the rows of several machines' errors, one after the other."""
  parts: dict[str, Any] = {}
  for name, first in errors[0]._asdict().items():
    parts[name] = None if first is None else np.concatenate([getattr(each, name) for each in errors])
  return Errors(**parts)


def _moments(errors: np.ndarray) -> Moments:
  size = np.abs(errors)
  return Moments(errors.mean(axis=0), errors.std(axis=0), size.mean(axis=0), size.std(axis=0))


def fit_error_model(errors: Errors) -> ErrorModel:
  """Returns the moments over the rows of `errors`; raises ValueError where there is no row or one is NaN."""
  if not len(errors.level):
    raise ValueError("no calibration rows: errors cannot be measured")
  found: dict[str, Any] = {}
  for name in ErrorModel._fields:
    part = getattr(errors, name)
    if part is not None and not np.all(np.isfinite(part)):
      raise ValueError(f"{int(np.sum(~np.isfinite(part).all(axis=1)))} calibration rows have no finite error")
    found[name] = None if part is None else _moments(part)
  return ErrorModel(**found)


def model_to_json(model: ErrorModel) -> dict:
  """Returns plain lists; `model_from_json` is its exact inverse."""
  return {
    part: None if moments is None else {k: v.tolist() for k, v in moments._asdict().items()}
    for part, moments in model._asdict().items()
  }


def model_from_json(values: dict) -> ErrorModel:
  """Returns the error model that `model_to_json` wrote."""
  found: dict[str, Any] = {
    part: None if moments is None else Moments(**{k: np.array(v, np.float64) for k, v in moments.items()})
    for part, moments in values.items()
  }
  return ErrorModel(**found)
