"""A metric's errors and the distribution they have on held-out normal rows.

In: actual and predicted rows, scaled. Out: `ErrorModel`, one mean and deviation per metric for signed and for
absolute errors of both parts, fitted on the calibration part and on nothing else.
"""

from typing import NamedTuple

import numpy as np

from mtad_jax.detect.row_outputs import RowOutputs


class Errors(NamedTuple):
  """Signed errors [T, F'] float64, NaN where a row has no window; None where the mode has no such part.

  forecast: actual - forecast. reconstruction: actual - mean. log_variance: of the reconstruction, natural log.
  """

  forecast: np.ndarray | None
  reconstruction: np.ndarray | None
  log_variance: np.ndarray | None


class Moments(NamedTuple):
  """Mean and deviation [F'] of signed errors and of their absolute values, scaled units."""

  mean: np.ndarray
  deviation: np.ndarray
  absolute_mean: np.ndarray
  absolute_deviation: np.ndarray


class ErrorModel(NamedTuple):
  """The errors' moments for both parts; None where the mode has no such part."""

  forecast: Moments | None
  reconstruction: Moments | None


def find_errors(actual: np.ndarray, outputs: RowOutputs) -> Errors:
  """Returns the errors of actual [T, F'] in float64."""
  exact = actual.astype(np.float64)
  forecast = None if outputs.forecast is None else exact - outputs.forecast
  if outputs.reconstruction is None or outputs.variance is None:
    return Errors(forecast, None, None)
  return Errors(forecast, exact - outputs.reconstruction, np.log(outputs.variance.astype(np.float64)))


def take_rows(errors: Errors, rows: np.ndarray) -> Errors:
  """Returns the errors of some rows."""
  return Errors(*(None if x is None else x[rows] for x in errors))


def join(errors: list[Errors]) -> Errors:
  """Returns the rows of several machines' errors, one after the other."""
  return Errors(*(None if parts[0] is None else np.concatenate(parts) for parts in zip(*errors, strict=True)))


def _moments(errors: np.ndarray | None) -> Moments | None:
  if errors is None:
    return None
  size = np.abs(errors)
  return Moments(errors.mean(axis=0), errors.std(axis=0), size.mean(axis=0), size.std(axis=0))


def fit_error_model(errors: Errors) -> ErrorModel:
  """Returns the moments over the rows of `errors`; raises ValueError where there is no row or one is NaN."""
  present = errors.forecast if errors.forecast is not None else errors.reconstruction
  if present is None or not len(present):
    raise ValueError("no calibration rows: errors cannot be measured")
  for part in (errors.forecast, errors.reconstruction):
    if part is not None and not np.all(np.isfinite(part)):
      raise ValueError(f"{int(np.sum(~np.isfinite(part).all(axis=1)))} calibration rows have no finite error")
  return ErrorModel(_moments(errors.forecast), _moments(errors.reconstruction))


def model_to_json(model: ErrorModel) -> dict:
  """Returns plain lists; `model_from_json` is its exact inverse."""
  return {
    part: None if moments is None else {k: v.tolist() for k, v in moments._asdict().items()}
    for part, moments in model._asdict().items()
  }


def model_from_json(values: dict) -> ErrorModel:
  """Returns the error model that `model_to_json` wrote."""
  return ErrorModel(
    **{
      part: None if moments is None else Moments(**{k: np.array(v, np.float64) for k, v in moments.items()})
      for part, moments in values.items()
    }
  )
