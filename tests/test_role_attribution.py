"""What a mixture says of a row: against integration by brute force, and what a prior does to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from mtad_jax.roles.attribution import explain_rows, explain_series, make_scorer
from mtad_jax.roles.cause_set import find_cause_set
from mtad_jax.roles.mixture import Mixture
from mtad_jax.roles.prior import BOTH, DOWN, UP, know_nothing

FACTOR, SHIFT = np.array([2.0, 0.5, 1.0]), np.array([0.1, -0.3, 0.0])
NOTHING = know_nothing(3)


def a_mixture(num_components: int = 2) -> Mixture:
  rng = np.random.default_rng(1)
  shapes = rng.normal(size=(num_components, 3, 3))
  covariances = shapes @ shapes.transpose(0, 2, 1) + 0.3 * np.eye(3)
  weights = rng.dirichlet(np.ones(num_components))
  return Mixture(np.log(weights), rng.normal(size=(num_components, 3)) * 2, covariances)


def density(mixture: Mixture, row: np.ndarray) -> float:
  parts = zip(*mixture, strict=True)
  return sum(np.exp(w) * stats.multivariate_normal(m, c).pdf(row) for w, m, c in parts)


def explained(mixture, rows, prior=NOTHING, targets=(0, 1, 2), num_components=None, context_limit=np.inf):
  num = num_components or len(mixture.log_weights)
  scorer = make_scorer(mixture, num, FACTOR, SHIFT, prior, targets, np.zeros(3))
  if context_limit is not None:
    scorer = scorer._replace(context_limit=np.asarray(context_limit))
  with jax.enable_x64(True):
    found = jax.jit(explain_rows)(jax.tree.map(jnp.asarray, scorer), jnp.asarray((rows - SHIFT) / FACTOR))
  return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("num_components", [1, 2, 3])
def test_conditionals_equal_integration_by_brute_force(num_components):
  mixture = a_mixture(num_components)
  rows = np.random.default_rng(2).normal(size=(4, 3)) * 1.5
  found = explained(mixture, rows, num_components=num_components + 2)  # padding changes nothing
  grid = np.linspace(-40, 40, 80_001)
  for n, row in enumerate(rows):
    for i in range(3):
      line = np.repeat(row[None, :], len(grid), axis=0)
      line[:, i] = grid
      values = density(mixture, line)
      total = integrate.simpson(values, x=grid)
      expected = integrate.simpson(values * grid, x=grid) / total
      variance = integrate.simpson(values * (grid - expected) ** 2, x=grid) / total
      tails = []
      for far in (-40.0, 40.0):
        out = np.repeat(row[None, :], 40_001, axis=0)
        out[:, i] = np.linspace(row[i], far, 40_001)
        tails.append(abs(integrate.simpson(density(mixture, out), x=out[:, i])) / total)
      assert found.attribution[n, i] == pytest.approx(-np.log(2 * min(tails)), abs=1e-6)
      assert FACTOR[i] * found.expected[n, i] + SHIFT[i] == pytest.approx(expected, abs=1e-6)
      assert FACTOR[i] ** 2 * found.variance[n, i] == pytest.approx(variance, rel=1e-6)


def test_surprise_is_the_densitys_and_never_negative():
  mixture = a_mixture()
  rows = np.random.default_rng(3).normal(size=(500, 3)) * 3
  found = explained(mixture, rows)
  wanted = np.log(density(mixture, rows))
  np.testing.assert_allclose(np.diff(found.surprise), -np.diff(wanted), rtol=1e-9, atol=1e-9)
  assert explained(mixture, mixture.means).surprise.min() >= 0


def test_far_out_every_figure_is_finite():
  found = explained(a_mixture(), np.array([[1e4, 0.0, -1e4], [0.0, 1e6, 0.0]]))
  assert all(np.all(np.isfinite(part)) for part in found)
  assert found.attribution[1].argmax() == 1


def test_an_ignored_metric_is_integrated_out():
  mixture = a_mixture()
  prior = NOTHING._replace(is_ignored=np.array([False, True, False]))
  rows = np.random.default_rng(4).normal(size=(5, 3))
  found = explained(mixture, rows, prior)
  left = [0, 2]
  marginal = Mixture(mixture.log_weights, mixture.means[:, left], mixture.covariances[:, left][:, :, left])
  wanted = np.log(density(marginal, rows[:, left]))
  np.testing.assert_allclose(np.diff(found.surprise), -np.diff(wanted), rtol=1e-9)
  assert not found.attribution[:, 1].any()
  moved = rows + np.array([0.0, 50.0, 0.0])
  np.testing.assert_allclose(explained(mixture, moved, prior).surprise, found.surprise)
  with pytest.raises(ValueError, match="every metric is ignored"):
    explained(mixture, rows, NOTHING._replace(is_ignored=np.ones(3, bool)))


@pytest.mark.parametrize(("direction", "way"), [(UP, 1), (DOWN, -1)])
def test_only_one_direction_matters(direction, way):
  mixture = Mixture(np.zeros(1), np.zeros((1, 3)), np.eye(3)[None])
  prior = NOTHING._replace(direction=np.array([direction, BOTH, BOTH]))
  harmful, harmless = explained(mixture, np.array([[6.0 * way, 0, 0], [-6.0 * way, 0, 0]]), prior).surprise
  assert harmful == pytest.approx(18.0)
  assert harmless == pytest.approx(0.0, abs=1e-9)
  attribution = explained(mixture, np.array([[-6.0 * way, 5.0, 0]]), prior).attribution[0]
  assert attribution[0] == 0
  assert attribution[1] > 10


def test_what_may_vary_calms_however_sure_the_mixture_is():
  mixture = Mixture(np.zeros(1), np.zeros((1, 3)), np.diag([1.0, 1.0, 1e-8])[None])
  moved = np.array([[0.0, 0.0, 0.05]])
  assert explained(mixture, moved).surprise[0] > 1e4
  calm = explained(mixture, moved, NOTHING._replace(floor=np.array([0, 0, 0.05]) / FACTOR))
  assert calm.surprise[0] == pytest.approx(0.5, rel=1e-4)
  assert calm.attribution[0].max() == pytest.approx(-np.log(2 * stats.norm.sf(1)), rel=1e-3)


def test_an_unusual_context_accuses_nobody_who_is_normal_alone():
  """Two metrics that follow one another; the first breaks away, and so the second is unusual given the first."""
  covariance = np.array([[1.0, 0.99, 0], [0.99, 1.0, 0], [0, 0, 1.0]])
  mixture = Mixture(np.zeros(1), np.zeros((1, 3)), covariance[None])
  row = np.array([[9.0, 0.0, 0.0]])
  smeared = explained(mixture, row).attribution[0]
  assert smeared[1] > 100
  found = explained(mixture, row, context_limit=None).attribution[0]
  assert found[0] == pytest.approx(smeared[0])
  assert found[1] == pytest.approx(0.0, abs=1e-9)


def scorer_of(mixture, prior=None, targets=None):
  num = mixture.means.shape[1]
  known = know_nothing(num) if prior is None else prior
  wanted = range(num) if targets is None else targets
  padded = len(mixture.log_weights) + 1
  return make_scorer(mixture, padded, np.full(num, 2.0), np.ones(num), known, wanted, np.zeros(num))


def causes(mixture, row, **kinds):
  return find_cause_set(scorer_of(mixture, **kinds), (np.asarray(row, float) - 1) / 2)


def test_greedy_set_names_the_culprits_and_no_more():
  covariance = 0.9 * np.ones((5, 5)) + 0.1 * np.eye(5)
  mixture = Mixture(np.zeros(1), np.zeros((1, 5)), covariance[None])
  assert causes(mixture, np.zeros(5)) == ()
  assert causes(mixture, [0, 0, 8, 0, 0]) == (2,)
  assert set(causes(mixture, [0, -7, 0, 0, 6])) == {1, 4}
  assert set(causes(mixture, [9, -9, 9, -9, 9])) == {0, 1, 2, 3, 4}  # none of them is usual even alone
  assert len(find_cause_set(scorer_of(mixture), np.array([4.0, -4, 4, -4, 4]), most=2)) == 2
  nothing = know_nothing(5)
  assert causes(mixture, [0, 0, 8, 0, 0], prior=nothing._replace(is_ignored=np.arange(5) == 2)) == ()
  upwards = nothing._replace(direction=np.where(np.arange(5) == 2, UP, BOTH))
  assert causes(mixture, [0, 0, -8, 0, 0], prior=upwards) == ()
  assert causes(mixture, [0, 0, 8, 0, 0], prior=upwards) == (2,)
  assert causes(mixture, [0, 0, 8, 0, 0], targets=(4, 2)) == (1,)  # numbered as the targets are


def test_the_first_of_the_set_is_the_injected_metric_nearly_always():
  rng = np.random.default_rng(0)
  shapes = rng.normal(size=(2, 6, 6))
  mixture = Mixture(
    np.log([0.5, 0.5]), rng.normal(size=(2, 6)) * 2, shapes @ shapes.transpose(0, 2, 1) + 0.2 * np.eye(6)
  )
  right = 0
  for number in range(60):
    k = number % 2
    row = rng.multivariate_normal(mixture.means[k], mixture.covariances[k])
    metric = int(rng.integers(6))
    row[metric] += 8 * np.sqrt(mixture.covariances[k][metric, metric])
    named = causes(mixture, row)
    right += bool(named) and named[0] == metric
  assert right >= 48


def test_a_machines_rows_do_not_depend_on_the_others():
  mixture = a_mixture()
  scorers = [make_scorer(mixture, 2, FACTOR, SHIFT + i, NOTHING, (2, 0), np.zeros(3)) for i in range(3)]
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *scorers)
  series = [np.random.default_rng(i).normal(size=(n, 3)) for i, n in enumerate((70, 5, 33))]
  together = explain_series(stacked, series, batch_rows=32)
  for i, rows in enumerate(series):
    alone = explain_series(jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], stacked), [rows], batch_rows=32)[0]
    assert together[i].attribution.shape == (len(rows), 2)
    for here, there in zip(together[i], alone, strict=True):
      np.testing.assert_allclose(here, there, rtol=1e-9, atol=1e-9)
  broken = [series[0], np.full((5, 3), np.nan), series[2]]
  for lane in (0, 2):
    for here, there in zip(explain_series(stacked, broken, batch_rows=32)[lane], together[lane], strict=True):
      np.testing.assert_array_equal(here, there)
