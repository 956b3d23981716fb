"""A Gaussian mixture with a prior: densities, and the two steps of MAP-EM for one role.

In: rows x [N, F] of all machines of a role, scaled. Out: `Mixture`, the mode of the posterior under a
normal-inverse-Wishart prior of means and covariances and a Dirichlet prior of the weights (Fraley and Raftery 2007).
Everything is float64: covariances of metrics that follow one another are too near singular for less. Callers enter
`jax.enable_x64(True)`.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtad_jax.config_choices import Covariance

LOG_TWO_PI = math.log(2 * math.pi)
Array = Any  # jax.Array on the device, np.ndarray on the host
_CHUNK_ROWS = 2048  # rows whose [N, K, F] differences are held at once


class Mixture(NamedTuple):
  """log_weights: [K] natural log. means: [K, F]. covariances: [K, F, F], scaled units squared."""

  log_weights: Array
  means: Array
  covariances: Array


class Prior(NamedTuple):
  """What is believed before any row is seen.

  concentration: Dirichlet's alpha of every weight, 1: none. mean_strength: kappa0, rows that the belief in `mean`
  [F] is worth. freedom: nu0 of the covariances; scatter: [F, F] Psi0. deviation_floor: [F] tau, what a metric varies
  by itself, whatever the others do and however many rows there are.
  """

  concentration: Array
  mean_strength: Array
  mean: Array
  freedom: Array
  scatter: Array
  deviation_floor: Array


class Statistics(NamedTuple):
  """What the M step reads.

  counts: [K] N_k. sums: [K, F], of r x. products: [K, F, F], of r x x^T. loglik: of the rows.
  """

  counts: Array
  sums: Array
  products: Array
  loglik: Array


def _freedom_without_prior(kind: Covariance, num_metrics: int, num_components: int) -> float:
  """Returns the nu0 that takes the prior out of the covariance's divisor; see `_divisor_offset`."""
  return -_divisor_offset(kind, num_metrics, num_components)


def _divisor_offset(kind: Covariance, num_metrics: int, num_components: int) -> float:
  """Returns what stands beside nu0 + N in the divisor of a covariance's mode.

  Full: D + 2, the inverse Wishart's D + 1 and one for the component's mean. Tied: D + 1 + K, as K means share the
  covariance. Diagonal: 3, each metric being a mixture of one dimension.
  """
  if kind is Covariance.DIAGONAL:
    return 3.0
  return num_metrics + (2.0 if kind is Covariance.FULL else 1.0 + num_components)


def default_prior(
  centre: jax.Array, scatter: jax.Array, deviation_floor: jax.Array, num_components: int, kind: Covariance
) -> Prior:
  """Returns Fraley and Raftery's weak prior: kappa0 = .01, nu0 = D + 2 (diagonal: 3), Psi0 = S / K^(2 / D).

  Args:
    centre: [F] mean of the rows. scatter: [F, F] their covariance S. deviation_floor: [F] tau.
  """
  num_metrics = centre.shape[0]
  size = 1 if kind is Covariance.DIAGONAL else num_metrics
  return Prior(
    concentration=jnp.asarray(1.0, centre.dtype),
    mean_strength=jnp.asarray(0.01, centre.dtype),
    mean=centre,
    freedom=jnp.asarray(size + 2.0, centre.dtype),
    scatter=scatter / num_components ** (2 / size),
    deviation_floor=deviation_floor,
  )


def no_prior(num_metrics: int, num_components: int, kind: Covariance) -> Prior:
  """Returns the prior under which the mode is the maximum of the likelihood."""
  zero = jnp.zeros(num_metrics)
  return Prior(
    concentration=jnp.ones(()),
    mean_strength=jnp.zeros(()),
    mean=zero,
    freedom=jnp.asarray(_freedom_without_prior(kind, num_metrics, num_components)),
    scatter=jnp.zeros((num_metrics, num_metrics)),
    deviation_floor=zero,
  )


def inverse_and_log_det(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns a positive definite matrix's inverse [F, F] and the log of its determinant, by F sweeps.

  Sweep k takes a_ij to a_ij - a_ik a_kj / a_kk, a_ik to a_ik / a_kk and a_kk to -1 / a_kk; then the matrix is
  minus its inverse, and the a_kk divided by multiply to the determinant. In plain operations, as jaxlib's
  batched Cholesky and triangular solves (0.10, CPU) wait for threads of the pool they run on: two at once, on a
  machine of two cores, wait for ever.
  """
  size = matrix.shape[0]

  def sweep(k: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    a, log_det = state
    column = a[:, k]
    pivot = column[k]
    here = jnp.arange(size) == k
    row = column / pivot
    swept = a - column[:, None] * row[None, :]
    swept = jnp.where(here[None, :], row[:, None], jnp.where(here[:, None], row[None, :], swept))
    swept = jnp.where(here[:, None] & here[None, :], -1.0 / pivot, swept)
    return swept, log_det + jnp.log(pivot)

  swept, log_det = jax.lax.fori_loop(0, size, sweep, (matrix, jnp.zeros((), matrix.dtype)))
  return -swept, log_det


def log_joint(mixture: Mixture, rows: jax.Array, deviation_floor: jax.Array | None = None) -> jax.Array:
  """Returns l [N, K], l_nk = log pi_k + log N(x_n | mu_k, Sigma_k).

  Args:
    rows: [N, F].
    deviation_floor: [F] tau; if given, the expectation of l over rows that vary by it: -tr(Sigma^-1 tau^2) / 2 more.
  """

  def one_component(covariance: jax.Array, mean: jax.Array) -> jax.Array:
    precision, log_det = inverse_and_log_det(covariance)
    away = rows - mean[None, :]
    distance = jnp.sum((away @ precision) * away, axis=1)  # [N]
    if deviation_floor is not None:
      distance = distance + jnp.sum(jnp.diagonal(precision) * deviation_floor**2)
    return -0.5 * (distance + log_det + rows.shape[1] * LOG_TWO_PI)

  densities = jax.vmap(one_component)(mixture.covariances, mixture.means)  # [K, N]
  return densities.T + mixture.log_weights[None, :]


def log_density(mixture: Mixture, rows: jax.Array) -> jax.Array:
  """Returns log p(x) [N] of rows [N, F]."""
  return jax.nn.logsumexp(log_joint(mixture, rows), axis=1)


def collect(mixture: Mixture, rows: jax.Array, weights: jax.Array, deviation_floor: jax.Array) -> Statistics:
  """Returns the E step's statistics of rows [N, F], each counted `weights` [N] times (0: padding).

  Args:
    deviation_floor: [F], as `log_joint`; with it, EM climbs in the floored objective at every step.
  """
  num_rows, num_metrics = rows.shape
  num_components = len(mixture.log_weights)
  chunk = min(_CHUNK_ROWS, num_rows)
  padding = -num_rows % chunk
  rows = jnp.pad(rows, ((0, padding), (0, 0))).reshape(-1, chunk, num_metrics)
  weights = jnp.pad(weights, (0, padding)).reshape(-1, chunk)

  def add(total: Statistics, part: tuple[jax.Array, jax.Array]) -> tuple[Statistics, None]:
    some, times = part
    joint = log_joint(mixture, some, deviation_floor)
    density = jax.nn.logsumexp(joint, axis=1)
    share = jnp.exp(joint - density[:, None]) * times[:, None]  # [N, K]
    found = from_shares(some, share)
    loglik = jnp.sum(jnp.where(times > 0, density * times, 0.0))
    return jax.tree.map(jnp.add, total, found._replace(loglik=loglik)), None

  zero = jnp.zeros((), rows.dtype)
  begin = Statistics(
    jnp.zeros(num_components, rows.dtype),
    jnp.zeros((num_components, num_metrics), rows.dtype),
    jnp.zeros((num_components, num_metrics, num_metrics), rows.dtype),
    zero,
  )
  return jax.lax.scan(add, begin, (rows, weights))[0]


def from_shares(rows: jax.Array, share: jax.Array) -> Statistics:
  """Returns the statistics of rows [N, F] that belong to the components by shares [N, K]; without a likelihood."""
  products = jax.vmap(lambda column: (rows * column[:, None]).T @ rows, in_axes=1)(share)  # [K, F, F]
  return Statistics(jnp.sum(share, axis=0), share.T @ rows, products, jnp.zeros((), rows.dtype))


def maximise(found: Statistics, prior: Prior, kind: Covariance) -> Mixture:
  """Returns the mode given the statistics: the M step.

  pi_k = (N_k + alpha - 1) / (N + K (alpha - 1)); mu_k = (kappa0 m0 + N_k xbar_k) / (kappa0 + N_k);
  Sigma_k = [Psi0 + S_k + kappa0 N_k / (kappa0 + N_k) (xbar_k - m0)(xbar_k - m0)^T] / (nu0 + N_k + D + 2) + tau^2,
  a Psi0 that grows with N_k: a fixed one is washed out by rows. So no metric varies less than tau given the others,
  and metrics that follow one another leave no covariance singular. A component without rows and without a prior keeps
  unit covariance and no weight.
  """
  counts = found.counts
  num_components, num_metrics = found.sums.shape
  weights = counts + prior.concentration - 1
  weights = jnp.maximum(weights, 0.0) / jnp.sum(jnp.maximum(weights, 0.0))
  strength = prior.mean_strength
  total = strength + counts
  means = (strength * prior.mean[None, :] + found.sums) / jnp.where(total > 0, total, 1.0)[:, None]
  # S_k + kappa0 N_k / (kappa0 + N_k) (xbar - m0)(..)^T = sum r x x^T + kappa0 m0 m0^T - (kappa0 + N_k) mu mu^T
  spread = (
    found.products
    + strength * jnp.outer(prior.mean, prior.mean)[None, :, :]
    - total[:, None, None] * means[:, :, None] * means[:, None, :]
  )
  offset = _divisor_offset(kind, num_metrics, num_components)
  if kind is Covariance.TIED:
    scatter = prior.scatter + jnp.sum(spread, axis=0)
    shared = scatter / (prior.freedom + jnp.sum(counts) + offset)
    covariances = jnp.broadcast_to(shared, found.products.shape)
  else:
    divisor = prior.freedom + counts + offset
    covariances = (prior.scatter[None, :, :] + spread) / jnp.where(divisor > 0, divisor, 1.0)[:, None, None]
  covariances = 0.5 * (covariances + jnp.swapaxes(covariances, 1, 2))
  identity = jnp.eye(num_metrics, dtype=counts.dtype)[None, :, :]
  if kind is Covariance.DIAGONAL:
    covariances = covariances * identity
  empty = (total <= 0) & (kind is not Covariance.TIED)
  covariances = jnp.where(empty[:, None, None], identity, covariances)
  return Mixture(jnp.log(weights), means, covariances + jnp.diag(prior.deviation_floor**2)[None, :, :])


def log_prior(mixture: Mixture, prior: Prior, kind: Covariance) -> jax.Array:
  """Returns the log of the prior at the mixture, up to a constant: what EM climbs beside the likelihood."""
  num_components, num_metrics = mixture.means.shape
  offset = _divisor_offset(kind, num_metrics, num_components)
  away = mixture.means - prior.mean[None, :]
  own = prior.scatter + (prior.freedom + offset) * jnp.diag(prior.deviation_floor**2)
  scatter = own[None, :, :] + prior.mean_strength * away[:, :, None] * away[:, None, :]
  if kind is Covariance.TIED:
    scatter = (own + prior.mean_strength * away.T @ away)[None, :, :]
    covariances = mixture.covariances[:1]
  else:
    covariances = mixture.covariances
  if kind is Covariance.DIAGONAL:
    variances = jnp.diagonal(covariances, axis1=1, axis2=2)
    scatters = jnp.diagonal(scatter, axis1=1, axis2=2)
    of_shape = jnp.sum((prior.freedom + offset) * jnp.log(variances) + scatters / variances)
  else:
    precisions, log_det = jax.vmap(inverse_and_log_det)(covariances)
    inside = jnp.sum(precisions * scatter, axis=(1, 2))  # the trace of the product, as both are symmetric
    of_shape = jnp.sum((prior.freedom + offset) * log_det + inside)
  excess = prior.concentration - 1
  of_weights = jnp.where(excess == 0, 0.0, excess * jnp.sum(mixture.log_weights))
  return of_weights - 0.5 * of_shape


def num_parameters(kind: Covariance, num_components: int, num_metrics: int) -> int:
  """Returns how many numbers a mixture is free in, which BIC counts."""
  per_covariance = num_metrics if kind is Covariance.DIAGONAL else num_metrics * (num_metrics + 1) // 2
  num_covariances = 1 if kind is Covariance.TIED else num_components
  return num_components - 1 + num_components * num_metrics + num_covariances * per_covariance
