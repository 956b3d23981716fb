"""The trimmed loss: the windows of largest loss are left out of a step, and one that is not finite never is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from tiny import make_config, make_group

from mtad_jax.data.fleet import training_arrays
from mtad_jax.train.fleet_step import make_programs, place
from mtad_jax.train.objective import Losses
from mtad_jax.train.step import mean_losses


def draw_losses(num_windows: int = 10, seed: int = 0) -> Losses:
  parts = np.random.default_rng(seed).exponential(size=(3, num_windows)).astype(np.float32)
  return Losses(jnp.asarray(parts.sum(axis=0)), *map(jnp.asarray, parts))


@pytest.mark.parametrize(("share", "kept"), [(0.0, 10), (0.04, 10), (0.1, 9), (0.3, 7), (0.9, 1)])
def test_the_means_are_over_the_windows_of_smallest_total(share, kept):
  losses = draw_losses()
  means = mean_losses(losses, share)
  rows = np.argsort(np.asarray(losses.total))[:kept]
  for found, values in zip(means, losses, strict=True):
    np.testing.assert_allclose(found, np.asarray(values)[rows].mean(), rtol=1e-6)
  np.testing.assert_allclose(means.total, sum(means[1:]), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_is_seen_though_it_would_be_left_out(bad):
  losses = draw_losses()
  worse = losses._replace(total=losses.total.at[3].set(bad))
  assert not np.isfinite(mean_losses(worse, 0.5).total)


def test_a_window_that_is_left_out_moves_nothing_and_the_gradient_is_that_of_the_mean():
  def loss(totals: jax.Array) -> jax.Array:
    return mean_losses(Losses(totals, totals, totals, totals), 0.25).total

  totals = jnp.asarray([3.0, 1.0, 9.0, 2.0])
  np.testing.assert_allclose(jax.grad(loss)(totals), [1 / 3, 1 / 3, 0, 1 / 3])
  check_grads(loss, (totals,), order=1, modes=("rev",))


def test_training_obeys_it():
  group = make_group(make_config())
  found = {}
  for share in (0.0, 0.5):
    config = make_config(train={"trimmed_share": share})
    programs = make_programs(config, len(group.metrics), group.targets)
    arrays = place(training_arrays(group, config))
    found[share] = jax.device_get(programs.run(programs.init(arrays.machine_ids), arrays, 10, 20))
  assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(found[0.5].params))
  means = [np.asarray(s.sums.losses.total) / np.asarray(s.sums.num_steps) for s in (found[0.0], found[0.5])]
  assert (means[1] < means[0]).all()  # the half of smallest loss
