"""The generalised Pareto distribution of excesses over a threshold: fit, likelihood and quantile.

In: excesses, positive float64. Out: shape and scale, with the method that gave them. The fit is by profile
likelihood in theta = shape / scale (Grimshaw 1993), over both signs of theta, and never leaves
shape >= -1/2, below which maximum likelihood is not regular (Smith 1985).
"""

import enum
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

SHAPE_MIN = -0.5  # a maximum on this bound is a failed fit
MIN_EXCESSES = 10  # below, two parameters are more than the data carry: exponential
_THETA_MIN, _THETA_MAX = 1e-8, 1e8  # search range on the positive side, in units of 1 / mean excess
_GRID = 160  # points per side of the coarse search


class FitMethod(enum.StrEnum):
  """Which estimator gave the figures."""

  LIKELIHOOD = "maximum likelihood"
  EXPONENTIAL = "exponential"
  MOMENTS = "moments"


class GpdFit(NamedTuple):
  """A fitted distribution; `reason` says why a fall-back was used and is empty for maximum likelihood."""

  shape: float
  scale: float
  log_likelihood: float
  method: FitMethod
  reason: str = ""


def log_likelihood(excesses: np.ndarray, shape: float, scale: float) -> float:
  """Returns the log-likelihood of the excesses; -inf where one lies beyond the distribution's end.

  Args:
    excesses: [N] positive, in the scores' unit.
    shape: gamma; 0 is the exponential.
    scale: sigma, positive, in the scores' unit.
  """
  if scale <= 0:
    return -np.inf
  scaled = excesses / scale
  if shape == 0:  # the limit of log1p(gamma y) (1 + 1 / gamma)
    return float(-len(scaled) * np.log(scale) - np.sum(scaled))
  inside = shape * scaled
  if np.min(inside) <= -1:
    return -np.inf
  # log1p(gamma y) / gamma by its own ratio keeps its digits as gamma -> 0
  return float(-len(scaled) * np.log(scale) - np.sum(np.log1p(inside) + scaled * _log1p_ratio(inside)))


def _log1p_ratio(x: np.ndarray) -> np.ndarray:
  """Returns log1p(x) / x, by its series where the division would lose the limit 1."""
  small = np.abs(x) < 1e-6  # the third term is then below float64's resolution
  safe = np.where(small, 1.0, x)
  return np.where(small, 1 - x / 2 + x * x / 3, np.log1p(safe) / safe)


def excess_quantile(shape: float, scale: float, tail_share: float) -> float:
  """Returns the excess that a share `tail_share` of the excesses lies above.

  (sigma / gamma) (tail_share^-gamma - 1), and -sigma log(tail_share) for gamma -> 0 (Siffer et al. 2017).

  Args:
    shape: gamma.
    scale: sigma, in the scores' unit.
    tail_share: q n / N_t, in (0, 1].
  """
  depth = -np.log(tail_share)
  return float(scale * depth * special.exprel(shape * depth))  # exprel(x) = expm1(x) / x, 1 at 0


def _positive_side(y: np.ndarray) -> tuple[float, float, float, bool]:
  """Returns (log-likelihood, shape, scale, on the bound) of the best theta > 0; y has mean 1."""

  def parts(log_theta: float) -> tuple[float, float]:
    theta = np.exp(log_theta)
    return float(np.mean(np.log1p(theta * y))), theta

  def loss(log_theta: float) -> float:
    shape, theta = parts(log_theta)
    return float(np.log(shape / theta) + shape)

  grid = np.linspace(np.log(_THETA_MIN), np.log(_THETA_MAX), _GRID)
  best = _refine(loss, grid)
  shape, theta = parts(best)
  return -len(y) * (1 + loss(best)), shape, shape / theta, best > grid[-2]


def _negative_side(y: np.ndarray) -> tuple[float, float, float, bool]:
  """Returns (log-likelihood, shape, scale, on the bound) of the best -1 / max < theta < 0; y has mean 1.

  theta = -(1 - e^-u) / max, so that 1 + theta y = (1 - y / max) + e^-u y / max keeps its digits near the end.
  """
  ratio = y / np.max(y)
  with np.errstate(divide="ignore"):
    log_rest, log_ratio = np.log1p(-ratio), np.log(ratio)

  def parts(u: float) -> tuple[float, float]:
    return float(np.mean(np.logaddexp(log_rest, log_ratio - u))), float(np.expm1(-u) / np.max(y))

  def loss(u: float) -> float:
    shape, theta = parts(u)
    return float(np.log(shape / theta) + shape)

  # shape falls without end as u grows, at least as fast as -u / N
  end = optimize.brentq(lambda u: parts(u)[0] - SHAPE_MIN, 0, -SHAPE_MIN * len(y) + 1, xtol=1e-12)
  grid = end * np.geomspace(1e-8, 1, _GRID)
  best = _refine(loss, grid)
  shape, theta = parts(best)
  on_bound = loss(end) <= loss(best) or best > end * (1 - 1e-6)
  return -len(y) * (1 + loss(best)), shape, shape / theta, on_bound


def _refine(loss: Callable[[float], float], grid: np.ndarray) -> float:
  """Returns the argument of the lowest loss: the best grid point, then a bounded search around it."""
  index = int(np.argmin([loss(point) for point in grid]))
  low, high = grid[max(index - 1, 0)], grid[min(index + 1, len(grid) - 1)]
  found = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-11})
  return float(found.x) if found.fun <= loss(grid[index]) else float(grid[index])


def _exponential(excesses: np.ndarray, reason: str) -> GpdFit:
  scale = float(np.mean(excesses))
  return GpdFit(0.0, scale, log_likelihood(excesses, 0.0, scale), FitMethod.EXPONENTIAL, reason)


def fit_moments(excesses: np.ndarray, reason: str = "asked for") -> GpdFit | None:
  """Returns the fit by mean and variance, or None where it does not exist or excludes an excess seen.

  gamma = (1 - m^2 / v) / 2, sigma = m (1 + m^2 / v) / 2.

  Args:
    excesses: [N] positive.
    reason: kept in the fit.
  """
  mean, variance = float(np.mean(excesses)), float(np.var(excesses))
  if variance <= (1e-9 * mean) ** 2:
    return None
  ratio = mean * mean / variance
  shape, scale = (1 - ratio) / 2, mean * (1 + ratio) / 2
  likelihood = log_likelihood(excesses, shape, scale)
  if not np.isfinite(likelihood):
    return None
  return GpdFit(shape, scale, likelihood, FitMethod.MOMENTS, reason)


def fit_gpd(excesses: np.ndarray) -> GpdFit:
  """Returns the maximum-likelihood fit, or a fall-back that says why.

  l(theta) = -N [log(gamma(theta) / theta) + 1 + gamma(theta)], gamma(theta) = mean log1p(theta Y).
  Fewer than `MIN_EXCESSES` excesses, or all equal: exponential. A maximum on the bound of the search:
  moments, or exponential where the moments exclude an excess that was seen.

  Args:
    excesses: [N >= 1] float64, positive and finite, in the scores' unit.

  Raises:
    ValueError: no excess, or one that is not a positive finite number.

  Source: Siffer et al. 2017 for the use, Grimshaw 1993 for the reduction to theta.
  """
  excesses = np.asarray(excesses, np.float64)
  if excesses.ndim != 1 or len(excesses) == 0:
    raise ValueError(f"excesses: shape {excesses.shape} given; a list of at least one number is wanted")
  if not (np.all(np.isfinite(excesses)) and np.min(excesses) > 0):
    raise ValueError("excesses: every one must be a positive finite number")
  if len(excesses) < MIN_EXCESSES:
    return _exponential(excesses, f"{len(excesses)} excesses are fewer than {MIN_EXCESSES}")
  unit = float(np.mean(excesses))
  y = excesses / unit  # the search then knows no units: scaling the scores scales the fit
  if np.ptp(y) <= 1e-9:
    return _exponential(excesses, "all excesses are equal")
  likelihood, shape, scale, on_bound = max(_positive_side(y), _negative_side(y))
  if on_bound:
    end = "above the search range" if shape > 0 else f"at its bound {SHAPE_MIN:g}"
    reason = f"the likelihood's maximum has its shape {end}"
    return fit_moments(excesses, reason) or _exponential(excesses, reason)
  likelihood -= len(y) * float(np.log(unit))
  return GpdFit(float(shape), float(scale * unit), float(likelihood), FitMethod.LIKELIHOOD)
