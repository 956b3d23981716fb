"""The role mixtures' EM: against scikit-learn without a prior, its laws with one, and rows that are no good."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.mixture import GaussianMixture

from mtad_jax.config import RolesConfig
from mtad_jax.config_choices import Covariance
from mtad_jax.roles.fit import climb, cluster, fit_roles
from mtad_jax.roles.mixture import (
  collect,
  default_prior,
  from_shares,
  log_density,
  log_joint,
  log_prior,
  maximise,
  no_prior,
)

SKLEARN = {Covariance.FULL: "full", Covariance.DIAGONAL: "diag", Covariance.TIED: "tied"}


@pytest.fixture(autouse=True)
def double():
  with jax.enable_x64(True):
    yield


def three_clusters(num_rows: int = 400, num_metrics: int = 3, seed: int = 0) -> np.ndarray:
  rng = np.random.default_rng(seed)
  shapes = rng.normal(size=(3, num_metrics, num_metrics))
  parts = [rng.normal(c, 1, (num_rows, num_metrics)) @ shape for c, shape in zip((0, 4, -5), shapes, strict=True)]
  return np.concatenate(parts)


def start_mixture(rows, num_components, prior, kind, seed):
  share = cluster(rows, num_components, seed)
  return jax.jit(lambda x, s: maximise(from_shares(x, s), prior, kind))(jnp.asarray(rows), jnp.asarray(share))


def one(tree):
  """Returns a tree with an axis of one role in front."""
  return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tree)


def climbed(rows, start, prior, kind, max_steps=500, tolerance=0.0):
  found = climb(
    one(start),
    jnp.asarray(rows)[None],
    jnp.ones((1, len(rows))),
    one(prior),
    kind=kind,
    max_steps=max_steps,
    tolerance=tolerance,
  )
  return jax.tree.map(lambda leaf: leaf[0], found)


@pytest.mark.parametrize("kind", list(Covariance))
def test_without_a_prior_em_is_scikit_learns_to_six_digits(kind):
  rows = three_clusters()
  start = start_mixture(rows, 3, no_prior(3, 3, kind), kind, seed=0)
  ours = climbed(rows, start, no_prior(3, 3, kind), kind, max_steps=26, tolerance=-np.inf)  # the last is an E step
  precisions = np.linalg.inv(np.asarray(start.covariances))
  if kind is Covariance.DIAGONAL:
    precisions = np.diagonal(precisions, axis1=1, axis2=2)
  theirs = GaussianMixture(
    3,
    covariance_type=SKLEARN[kind],
    weights_init=np.exp(start.log_weights),
    means_init=np.asarray(start.means),
    precisions_init=precisions[0] if kind is Covariance.TIED else precisions,
    tol=0,  # as many steps as ours
    max_iter=25,
    reg_covar=0,
  )
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it says that it did not converge
    theirs.fit(rows)
  np.testing.assert_allclose(ours.loglik / len(rows), theirs.score(rows), rtol=1e-9)
  np.testing.assert_allclose(np.exp(ours.mixture.log_weights), theirs.weights_, rtol=1e-6)
  np.testing.assert_allclose(ours.mixture.means, theirs.means_, rtol=1e-6)
  covariances = np.asarray(ours.mixture.covariances)
  if kind is Covariance.DIAGONAL:
    covariances = np.diagonal(covariances, axis1=1, axis2=2)
  ours_shared = covariances[0] if kind is Covariance.TIED else covariances
  np.testing.assert_allclose(ours_shared, theirs.covariances_, rtol=1e-6, atol=1e-9)


def test_density_is_scipys():
  rows = three_clusters(50)
  mixture = start_mixture(rows, 3, no_prior(3, 3, Covariance.FULL), Covariance.FULL, seed=1)
  wanted = sum(
    np.exp(weight) * stats.multivariate_normal(mean, covariance).pdf(rows)
    for weight, mean, covariance in zip(*map(np.asarray, mixture), strict=True)
  )
  np.testing.assert_allclose(log_density(mixture, jnp.asarray(rows)), np.log(wanted), rtol=1e-9)


@pytest.mark.parametrize("kind", list(Covariance))
@pytest.mark.parametrize("floor", [0.0, 0.5])
@pytest.mark.parametrize("concentration", [1.0, 5.0])
def test_every_step_raises_the_log_posterior(kind, floor, concentration):
  rows = three_clusters(60)
  scatter = jnp.asarray(np.cov(rows.T, bias=True))
  prior = default_prior(jnp.asarray(rows.mean(axis=0)), scatter, jnp.full(3, floor), 4, kind)
  prior = prior._replace(concentration=jnp.asarray(concentration))
  mixture = start_mixture(rows, 4, prior, kind, seed=0)
  objectives = []

  @jax.jit
  def step(mixture):
    found = collect(mixture, jnp.asarray(rows), jnp.ones(len(rows)), prior.deviation_floor)
    return maximise(found, prior, kind), found.loglik + log_prior(mixture, prior, kind)

  for _ in range(40):
    mixture, objective = step(mixture)
    objectives.append(float(objective))
  gains = np.diff(objectives)
  assert gains.min() > -1e-9 * abs(objectives[-1])
  assert gains[0] > 1e-3  # it did climb


@pytest.mark.parametrize("kind", list(Covariance))
def test_m_step_is_the_mode(kind):
  """No small move of the means or covariances away from the M step's raises the expected log posterior."""
  rows = three_clusters(40)
  rng = np.random.default_rng(3)
  share = jnp.asarray(rng.dirichlet(np.ones(2), len(rows)))
  floor = jnp.asarray([0.2, 0.0, 0.4])
  prior = default_prior(jnp.asarray(rows.mean(axis=0)) + 1, jnp.eye(3) * 2.0, floor, 2, kind)

  def expected(mixture):
    return jnp.sum(share * log_joint(mixture, jnp.asarray(rows), floor)) + log_prior(mixture, prior, kind)

  mode = maximise(from_shares(jnp.asarray(rows), share), prior, kind)
  slope = jax.jit(jax.grad(expected))
  gradient = slope(mode)
  shared = gradient.covariances.sum(axis=0, keepdims=True) if kind is Covariance.TIED else gradient.covariances
  if kind is Covariance.DIAGONAL:
    shared = jnp.diagonal(shared, axis1=1, axis2=2)
  scale = float(jnp.abs(slope(mode._replace(means=mode.means + 1.0)).means).max())
  np.testing.assert_allclose(gradient.means, 0.0, atol=1e-9 * scale)
  np.testing.assert_allclose(shared, 0.0, atol=1e-9 * scale)


@pytest.mark.parametrize("num_rows", [1_000, 1_000_000])
def test_what_a_metric_may_vary_by_holds_at_any_number_of_rows(num_rows):
  """A metric that hardly moved moves by what it may: no surprise with the prior, a large one without."""
  rng = np.random.default_rng(0)
  rows = np.stack([rng.normal(0, 1, num_rows), rng.normal(0, 1e-3, num_rows)], axis=1)
  found = from_shares(jnp.asarray(rows), jnp.ones((num_rows, 1)))
  moved = jnp.asarray([[0.0, 0.05]])
  surprises = []
  for floor in (0.0, 0.05):
    scatter = jnp.asarray(np.cov(rows.T, bias=True))
    prior = default_prior(jnp.asarray(rows.mean(axis=0)), scatter, jnp.asarray([0.0, floor]), 1, Covariance.FULL)
    mixture = maximise(found, prior, Covariance.FULL)
    peak = log_density(mixture, mixture.means)[0]
    surprises.append(float(peak - log_density(mixture, moved)[0]))
  without, with_prior = surprises
  assert without > 1000
  assert with_prior == pytest.approx(0.5, abs=0.01)  # one deviation away: half a nat


SMALL = RolesConfig(components=(1, 2, 3, 5), search_rows=600, batch_rows=2000)


def test_bic_finds_the_number_of_clusters_of_several_roles_at_once():
  roles = [three_clusters(200, seed=s) for s in (0, 1)] + [three_clusters(200, seed=2)[:200]]
  fitted = fit_roles(["a", "b", "c"], roles, [np.full(3, 1e-3)] * 3, SMALL, seed=0)
  assert [len(role.mixture.log_weights) for role in fitted] == [3, 3, 1]
  assert [role.num_rows for role in fitted] == [600, 600, 200]
  for role in fitted:
    assert len(role.mixture.log_weights) == min(role.bic, key=role.bic.get)
    assert np.exp(role.mixture.log_weights).sum() == pytest.approx(1.0)


def test_a_role_is_fitted_alike_alone_and_among_others():
  roles = [three_clusters(200, seed=0), three_clusters(100, seed=5)]
  floors = [np.full(3, 1e-3)] * 2
  settings = dataclasses.replace(SMALL, components=(3,))
  together = fit_roles(["a", "b"], roles, floors, settings, seed=0)[1].mixture
  alone = fit_roles(["b"], roles[1:], floors[1:], settings, seed=0)[0].mixture
  for here, there in zip(together, alone, strict=True):
    np.testing.assert_allclose(here, there, rtol=1e-6, atol=1e-9)


def test_batches_come_near_what_all_rows_at_once_give():
  rows = three_clusters(3000)
  floors = [np.full(3, 1e-3)]
  settings = RolesConfig(components=(3,), search_rows=600, batch_rows=20_000)
  whole = fit_roles(["a"], [rows], floors, settings, seed=0)[0]
  in_batches = dataclasses.replace(settings, batch_rows=1000, passes=2)
  batches = fit_roles(["a"], [rows], floors, in_batches, seed=0)[0]
  assert batches.objective == pytest.approx(whole.objective, abs=0.01)
  for here, there in zip(sorted(batches.mixture.means[:, 0]), sorted(whole.mixture.means[:, 0]), strict=True):
    assert here == pytest.approx(there, abs=0.15)


def bad_rows(kind: str) -> np.ndarray:
  rng = np.random.default_rng(0)
  rows = rng.normal(size=(500, 4))
  if kind == "constant":
    rows[:, 1] = 3.0
  elif kind == "duplicate":
    rows[:, 2] = rows[:, 0]
  elif kind == "collinear":
    rows[:, 3] = rows[:, 0] - 2 * rows[:, 1]
  elif kind == "two values":
    rows[:, :] = rows[:2][rng.integers(0, 2, 500)]
  return rows


@pytest.mark.parametrize("kind", ["constant", "duplicate", "collinear", "two values"])
def test_metrics_that_say_the_same_or_nothing_do_no_harm(kind):
  rows = bad_rows(kind)
  settings = dataclasses.replace(SMALL, components=(2,))
  found = fit_roles(["a"], [rows], [np.full(4, 0.01)], settings, seed=0)[0].mixture
  smallest = min(np.linalg.eigvalsh(covariance)[0] for covariance in found.covariances)
  assert smallest >= 0.01**2 * (1 - 1e-6)
  assert np.all(np.isfinite(np.asarray(log_density(found, jnp.asarray(rows)))))


def test_more_components_than_rows_are_left_out_or_refused():
  rows = three_clusters(1)  # three rows
  fitted = fit_roles(["a"], [rows], [np.full(3, 0.01)], SMALL, seed=0)[0]
  assert set(fitted.bic) == {1, 2, 3}
  settings = RolesConfig(components=(5,))
  told = r"role web: 3 different rows, fewer than the fewest components that config.roles.components tries, 5"
  with pytest.raises(ValueError, match=told):
    fit_roles(["web"], [rows], [np.full(3, 0.01)], settings, seed=0)
