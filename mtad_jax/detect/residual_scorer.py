"""What a role's mixture of residuals says of a row: its surprise, and each metric's errors against all others'.

In: a machine's forecast and reconstruction errors. Out: `Judged`. A metric's errors stand in one block, B, as a fault
moves both and each would explain the other away: with Lambda = Sigma^-1 the block given the rest has covariance
Lambda_BB^-1 and lies gap = Lambda_BB^-1 (Lambda (x - mu))_B from its mean, at squared distance m = (Lambda (x -
mu))_B . gap. A metric's attribution is -log of the probability of a larger m, weighted over the components; of two
columns that probability is exp(-m / 2), of one 2 Phi(-sqrt m). Written for one machine; float64.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from mtad_jax.roles.attribution import LOG_TWO, NORMAL_CONTEXT, Scorer, explain_series, make_scorer
from mtad_jax.roles.mixture import LOG_TWO_PI, Array, Mixture
from mtad_jax.roles.prior import MetricPrior


class ResidualScorer(NamedTuple):
  """One machine's mixture of residuals made ready for rows; stacked, machines lead every array.

  scorer: of the D = b F' columns, the forecast's first where there are both. inner: [K, F', b, b] covariance of a
  metric's block given the others; inner_log_det: [K, F']. alone: [K, F', b, b] inverse covariance of the block alone.
  """

  scorer: Scorer
  inner: Array
  inner_log_det: Array
  alone: Array


class Judged(NamedTuple):
  """surprise: [N], log of the density's bound minus log p(x), at least 0. attribution: [N, F'], at least 0."""

  surprise: Array
  attribution: Array


def make_residual_scorer(
  mixture: Mixture, deviation: np.ndarray, deviation_floor: np.ndarray, prior: MetricPrior
) -> ResidualScorer:
  """Returns a machine's scorer in NumPy.

  Args:
    deviation: [D] of the machine's errors, scaled units. deviation_floor: [D] that the mixture was fitted with.
    prior: of the F' metrics; what it ignores is integrated out, both errors of it.

  Raises:
    ValueError: every metric is ignored.
  """
  num_metrics, size, num_components = len(prior.floor), len(deviation), len(mixture.log_weights)
  width = size // num_metrics
  each = MetricPrior(*[np.tile(values, width) for values in prior])
  scorer = make_scorer(
    mixture, num_components, 1.0 / deviation, np.zeros(size), each, range(size), deviation_floor
  )
  counts = int((~each.is_ignored).sum())
  limit = stats.chi2.ppf(NORMAL_CONTEXT, max(counts - width, 1)) / 2
  places = np.arange(size).reshape(width, num_metrics).T  # [F', b]
  rows, others = places[:, :, None], places[:, None, :]
  is_ignored = prior.is_ignored[None, :, None, None]
  inner = np.linalg.inv(np.where(is_ignored, np.eye(width), scorer.precisions[:, rows, others]))
  blocks = scorer.covariances[:, rows, others]
  return ResidualScorer(
    scorer=scorer._replace(context_limit=np.asarray(limit)),
    inner=inner,
    inner_log_det=np.linalg.slogdet(inner)[1],
    alone=np.linalg.inv(blocks),
  )


class _Blocks(NamedTuple):
  """Each component's view of each metric's block given the others.

  joint: [N, K]. gap: [N, K, b, F'] from its mean. distance: [N, K, F'] squared. without: [N, K, F'], the log of the
  component's weight and density of all but the block. weights: those of the component, its logarithm.
  """

  joint: jax.Array
  gap: jax.Array
  distance: jax.Array
  without: jax.Array
  weights: jax.Array


def _blocks(own: ResidualScorer, x: jax.Array) -> _Blocks:
  width = own.inner.shape[-1]
  away = x[:, None, :] - own.scorer.means[None, :, :]
  pull = jnp.einsum("nkf,kfg->nkg", away, own.scorer.precisions)
  joint = (own.scorer.log_weights + own.scorer.log_norms)[None, :] - 0.5 * jnp.sum(away * pull, axis=2)
  pull = pull.reshape(*pull.shape[:2], width, -1)
  gap = jnp.einsum("kfab,nkbf->nkaf", own.inner, pull)
  distance = jnp.sum(pull * gap, axis=2)
  density = -0.5 * (distance + own.inner_log_det[None, :, :] + width * LOG_TWO_PI)
  without = joint[:, :, None] - density
  return _Blocks(joint, gap, distance, without, without - jax.nn.logsumexp(without, axis=1)[:, None, :])


def _log_tail(distance: jax.Array, width: int) -> jax.Array:
  """Returns the log of the probability that a normal block of so many columns lies further out."""
  if width == 2:
    return -0.5 * distance
  return LOG_TWO + jax.scipy.special.log_ndtr(-jnp.sqrt(jnp.maximum(distance, 0.0)))


def judge_rows(own: ResidualScorer, rows: jax.Array) -> Judged:
  """Returns what the mixture says of errors [N, D], scaled units.

  As `explain_rows`: an error that goes the way that does not matter is moved to what was to be expected, and where
  the other metrics are unusual themselves, a metric's attribution is at most that of its errors alone.
  """
  scorer, width = own.scorer, own.inner.shape[-1]
  x = rows * scorer.factor[None, :] + scorer.shift[None, :]
  first = _blocks(own, x)
  departure = jnp.sum(jnp.exp(first.weights)[:, :, None, :] * first.gap, axis=1).reshape(x.shape)
  x = jnp.where(departure * scorer.direction[None, :] < 0, x - departure, x)
  found = _blocks(own, x)
  conditional = -jax.nn.logsumexp(found.weights + _log_tail(found.distance, width), axis=1)
  away = (x[:, None, :] - scorer.means[None, :, :]).reshape(*found.gap.shape)
  distance = jnp.sum(away * jnp.einsum("kfab,nkbf->nkaf", own.alone, away), axis=2)
  alone = -jax.nn.logsumexp(scorer.log_weights[None, :, None] + _log_tail(distance, width), axis=1)
  bound = scorer.log_weights + scorer.log_norms
  of_others = jax.nn.logsumexp(bound[:, None] + 0.5 * (own.inner_log_det + width * LOG_TWO_PI), axis=0)
  no_context = of_others[None, :] - jax.nn.logsumexp(found.without, axis=1) > scorer.context_limit
  attribution = jnp.where(no_context, jnp.minimum(conditional, alone), conditional)
  surprise = jax.nn.logsumexp(bound) - jax.nn.logsumexp(found.joint, axis=1)
  is_ignored = scorer.is_ignored[: attribution.shape[1]]
  return Judged(
    jnp.maximum(surprise, 0.0), jnp.where(is_ignored[None, :], 0.0, jnp.maximum(attribution, 0.0))
  )


def judge_series(scorers: ResidualScorer, series: list[np.ndarray], batch_rows: int) -> list[Judged]:
  """Returns what the mixtures say of every row of every machine, NaN where a row has no error.

  Args:
    scorers: stacked, [M, ...]. series: M arrays [T_i, D]. batch_rows: as `explain_series`.
  """
  found = explain_series(scorers, [np.nan_to_num(errors) for errors in series], batch_rows, judge_rows)
  judged = []
  for errors, (surprise, attribution) in zip(series, found, strict=True):
    is_there = np.isfinite(errors).all(axis=1)
    judged.append(
      Judged(np.where(is_there, surprise, np.nan), np.where(is_there[:, None], attribution, np.nan))
    )
  return judged
