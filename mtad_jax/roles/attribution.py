"""What a role's mixture says of a row: its surprise, and each metric's value against all others'.

In: rows in a machine's own scaled units. Out: `Explained`. With Lambda = Sigma^-1 every metric's conditional is had
at once: v_ki = 1 / Lambda_ii, m_ki = x_i - (Lambda (x - mu))_i / Lambda_ii, at O(K F^2) a row. Written for one
machine; float64, callers enter `jax.enable_x64(True)`.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from mtad_jax.data.track import Track, untracked
from mtad_jax.roles.mixture import LOG_TWO_PI, Array, Mixture
from mtad_jax.roles.prior import DOWN, UP, MetricPrior

LOG_TWO = float(np.log(2.0))
NORMAL_CONTEXT = 0.999  # share of normal rows whose other metrics count as usual; see `explain_rows`


class Scorer(NamedTuple):
  """One machine's mixture made ready for rows; stacked, machines lead every array.

  log_weights: [K]. means: [K, F]. precisions: [K, F, F], zero in rows and columns of ignored metrics.
  covariances: [K, F, F], of all metrics. log_norms: [K] log of a component's density at its mean, over the metrics
  as `MetricPrior`'s. targets: [F'] columns told of. context_limit: surprise of a row's other metrics above which they
  are no context.
  no context.
  """

  log_weights: Array
  means: Array
  precisions: Array
  covariances: Array
  log_norms: Array
  factor: Array
  shift: Array
  is_ignored: Array
  direction: Array
  targets: Array
  context_limit: Array


class Explained(NamedTuple):
  """surprise: [N], log of the density's bound minus log p(x), at least 0. attribution: [N, F'], at least 0.

  expected, variance: [N, F'], mean and variance of each metric given the others, own scaled units.
  """

  surprise: Array
  attribution: Array
  expected: Array
  variance: Array


def make_scorer(
  mixture: Mixture,
  num_components: int,
  factor: np.ndarray,
  shift: np.ndarray,
  prior: MetricPrior,
  targets: Sequence[int],
  deviation_floor: np.ndarray,
) -> Scorer:
  """Returns a machine's scorer in NumPy, padded to `num_components` with components of no weight.

  An ignored metric is integrated out: what is left is the mixture's marginal over the others. What
  the prior lets a metric vary by is added to every component, so that it holds however many rows the mixture was
  fitted on, and a prior can be changed without fitting again.

  Args:
    factor, shift: [F], see `Scorer`. targets: columns that are told of.
    deviation_floor: [F] that the mixture was fitted with, the role's scaled units; only what is more is added.

  Raises:
    ValueError: every metric is ignored.
  """
  counts = ~prior.is_ignored
  if not counts.any():
    raise ValueError("every metric is ignored: nothing is left to score")
  num_metrics, missing = len(counts), num_components - len(mixture.log_weights)
  covariances = np.array(mixture.covariances, np.float64)
  more = np.maximum((prior.floor * factor) ** 2 - deviation_floor**2, 0.0)
  covariances = covariances + np.diag(more)[None, :, :]
  inside = np.ix_(counts, counts)
  precisions = np.zeros((num_components, num_metrics, num_metrics))
  log_norms = np.zeros(num_components)
  for k, covariance in enumerate(covariances):
    precisions[k][inside] = np.linalg.inv(covariance[inside])
    log_norms[k] = -0.5 * (np.linalg.slogdet(covariance[inside])[1] + counts.sum() * LOG_TWO_PI)
  return Scorer(
    log_weights=np.concatenate([mixture.log_weights, np.full(missing, -np.inf)]),
    means=np.concatenate([mixture.means, np.zeros((missing, num_metrics))]),
    precisions=precisions,
    covariances=np.concatenate([covariances, np.tile(np.eye(num_metrics), (missing, 1, 1))]),
    log_norms=log_norms,
    factor=factor,
    shift=shift,
    is_ignored=prior.is_ignored,
    direction=prior.direction,
    targets=np.array(targets, np.int64),
    context_limit=np.asarray(stats.chi2.ppf(NORMAL_CONTEXT, max(int(counts.sum()) - 1, 1)) / 2),
  )


class _Conditionals(NamedTuple):
  """Each component's view of each metric given the others.

  joint: [N, K] log pi_k N_k(x). expected: [N, K, F] m. variance: [K, F] v. weights: [N, K, F] log w. own: [N, K, F]
  log N(x_i | m, v).
  """

  joint: jax.Array
  expected: jax.Array
  variance: jax.Array
  weights: jax.Array
  own: jax.Array


def _conditionals(scorer: Scorer, rows: jax.Array) -> _Conditionals:
  away = rows[:, None, :] - scorer.means[None, :, :]  # [N, K, F]
  pull = jnp.einsum("nkf,kfg->nkg", away, scorer.precisions)
  diagonal = jnp.diagonal(scorer.precisions, axis1=1, axis2=2)  # [K, F]
  variance = 1.0 / jnp.where(diagonal > 0, diagonal, 1.0)
  expected = rows[:, None, :] - pull * variance[None, :, :]
  joint = (scorer.log_weights + scorer.log_norms)[None, :] - 0.5 * jnp.sum(away * pull, axis=2)
  gap = pull * variance[None, :, :]
  own = -0.5 * (gap**2 / variance[None, :, :] + jnp.log(variance)[None, :, :] + LOG_TWO_PI)
  without = joint[:, :, None] - own  # log pi_k N_k(x_-i), over all metrics but i
  weights = without - jax.nn.logsumexp(without, axis=1)[:, None, :]
  return _Conditionals(joint, expected, variance, weights, own)


def _tails(weights: jax.Array, z: jax.Array, direction: jax.Array) -> jax.Array:
  """Returns -log(2 min(u, 1 - u)) [N, F] of sum_k w_k Phi(z_k), in logs; one-sided where a direction is given."""
  below = jax.nn.logsumexp(weights + jax.scipy.special.log_ndtr(z), axis=1)
  above = jax.nn.logsumexp(weights + jax.scipy.special.log_ndtr(-z), axis=1)
  way = direction[None, :]
  smaller = jnp.where(way == UP, above, jnp.where(way == DOWN, below, jnp.minimum(below, above)))
  return jnp.maximum(-LOG_TWO - smaller, 0.0)


def explain_rows(scorer: Scorer, rows: jax.Array) -> Explained:
  """Returns what the mixture says of rows [N, F], own scaled units.

  log p(x_i | x_-i) = LSE_k l_k - LSE_k [l_k - log N(x_i | m_ki, v_ki)], w_ki proportional to
  pi_k N_k(x) / N(x_i | m_ki, v_ki), u_i = sum_k w_ki Phi((x_i - m_ki) / sqrt v_ki), attribution
  a_i = -log(2 min(u_i, 1 - u_i)).

  Where the other metrics are unusual themselves they say nothing of metric i: a_i is then at most its surprise alone,
  and blame is not smeared over what follows the culprit. A metric of which only one direction matters is moved to
  its expected value where it departs the other way, before the row's surprise is taken.
  """
  x = rows * scorer.factor[None, :] + scorer.shift[None, :]
  first = _conditionals(scorer, x)
  expected = jnp.sum(jnp.exp(first.weights) * first.expected, axis=1)  # [N, F]
  direction = scorer.direction[None, :]
  harmless = ((direction == UP) & (x < expected)) | ((direction == DOWN) & (x > expected))
  x = jnp.where(harmless, expected, x)
  found = _conditionals(scorer, x)
  shares = jnp.exp(found.weights)
  expected = jnp.sum(shares * found.expected, axis=1)
  variance = jnp.sum(shares * (found.variance[None, :, :] + found.expected**2), axis=1) - expected**2
  z = (x[:, None, :] - found.expected) / jnp.sqrt(found.variance)[None, :, :]
  conditional = _tails(found.weights, z, scorer.direction)

  deviations = jnp.sqrt(jnp.diagonal(scorer.covariances, axis1=1, axis2=2))  # [K, F] of each metric alone
  alone_z = (x[:, None, :] - scorer.means[None, :, :]) / deviations[None, :, :]
  prior_weights = jnp.broadcast_to(scorer.log_weights[None, :, None], alone_z.shape)
  alone = _tails(prior_weights, alone_z, scorer.direction)
  bound = scorer.log_weights + scorer.log_norms  # [K]
  without = jax.nn.logsumexp(found.joint[:, :, None] - found.own, axis=1)  # [N, F] log p(x_-i)
  bound_without = jax.nn.logsumexp(
    bound[:, None] + 0.5 * (jnp.log(found.variance) + LOG_TWO_PI), axis=0
  )  # [F], the bound of the others' density
  no_context = bound_without[None, :] - without > scorer.context_limit
  attribution = jnp.where(no_context, jnp.minimum(conditional, alone), conditional)
  surprise = jax.nn.logsumexp(bound) - jax.nn.logsumexp(found.joint, axis=1)
  told = scorer.targets
  return Explained(
    surprise=jnp.maximum(surprise, 0.0),
    attribution=jnp.where(scorer.is_ignored[None, :], 0.0, attribution)[:, told],
    expected=((expected - scorer.shift[None, :]) / scorer.factor[None, :])[:, told],
    variance=(jnp.maximum(variance, 0.0) / scorer.factor[None, :] ** 2)[:, told],
  )


@lru_cache(maxsize=8)
def _make_explain(explain: Callable[..., Any]) -> Callable[..., Any]:
  return jax.jit(jax.vmap(explain))


def explain_series(
  scorers: Any,
  series: Sequence[np.ndarray],
  batch_rows: int,
  explain: Callable[..., Any] = explain_rows,
  track: Track = untracked,
) -> list[Any]:
  """Returns what the mixtures say of every row of every machine, in NumPy.

  Args:
    scorers: stacked, [M, ...]. series: M arrays [T_i, F], own scaled units.
    batch_rows: of a machine and dispatch; the batches' shape does not depend on the lengths.
    explain: of one machine's scorer and rows, a NamedTuple of arrays of which each has the rows first.
    track: watches the batches.
  """
  longest = max(len(x) for x in series)
  num_batches = max(1, -(-longest // batch_rows))
  values = np.zeros((len(series), num_batches * batch_rows, series[0].shape[1]))
  for i, x in enumerate(series):
    values[i, : len(x)] = x
  compiled = _make_explain(explain)
  with jax.enable_x64(True):
    on_device = jax.tree.map(jnp.asarray, scorers)
    batches = [
      jax.tree.map(np.asarray, compiled(on_device, jnp.asarray(values[:, first : first + batch_rows])))
      for first in track(range(0, values.shape[1], batch_rows), "running the model")
    ]
  kind = type(batches[0])
  whole = kind(*[np.concatenate(parts, axis=1) for parts in zip(*batches, strict=True)])
  return [kind(*[part[i, : len(x)] for part in whole]) for i, x in enumerate(series)]
