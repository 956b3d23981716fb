"""Fits the mixtures of all roles at once: starts by k-means, MAP-EM, number of components by BIC.

In: each role's rows [N, F], scaled. Out: one `Fitted` a role. Components and starts are chosen on a few thousand rows
of each role, all roles in one program; the chosen mixture then climbs on all rows, in batches where there are many.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.cluster.vq import kmeans2

from mtad_jax.config import RolesConfig
from mtad_jax.config_choices import Covariance
from mtad_jax.data.track import Track, untracked
from mtad_jax.roles.mixture import (
  Mixture,
  Prior,
  Statistics,
  collect,
  default_prior,
  from_shares,
  log_prior,
  maximise,
  num_parameters,
)

_STEP_DECAY = 0.6  # of stepwise EM's step (t + 2)^-decay; between .5 and 1 it converges (Cappe and Moulines 2009)
_SEED_ROWS = 2000  # rows that k-means starts from


class Climb(NamedTuple):
  """Where EM ended.

  objective: log posterior a row, up to a constant. loglik: of all rows. num_steps: E steps taken.
  """

  mixture: Mixture
  objective: jax.Array
  loglik: jax.Array
  num_steps: jax.Array


class Fitted(NamedTuple):
  """One role's mixture, in NumPy.

  bic: by number of components, those tried. num_rows: it was fitted on. objective: log posterior a row.
  """

  mixture: Mixture
  bic: dict[int, float]
  num_rows: int
  objective: float


@lru_cache(maxsize=64)
def _make_climb(kind: Covariance, max_steps: int, tolerance: float) -> Any:
  """Returns the compiled EM of several roles: (start, rows [R, N, F], weights [R, N], prior) -> `Climb`, stacked."""

  def climb(start: Mixture, rows: jax.Array, weights: jax.Array, prior: Prior) -> Climb:
    num_rows = jnp.sum(weights)

    def go_on(state: tuple[Climb, Mixture, jax.Array]) -> jax.Array:
      climbed, _, gain = state
      return (climbed.num_steps < max_steps) & (gain > tolerance)

    def step(state: tuple[Climb, Mixture, jax.Array]) -> tuple[Climb, Mixture, jax.Array]:
      before, mixture, _ = state
      found = collect(mixture, rows, weights, prior.deviation_floor)
      objective = (found.loglik + log_prior(mixture, prior, kind)) / num_rows
      after = Climb(mixture, objective, found.loglik, before.num_steps + 1)
      return after, maximise(found, prior, kind), objective - before.objective

    low = jnp.asarray(-jnp.inf, rows.dtype)
    begin = Climb(start, low, low, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(go_on, step, (begin, start, jnp.asarray(jnp.inf, rows.dtype)))[0]

  return jax.jit(jax.vmap(climb))


@lru_cache(maxsize=64)
def _make_collect() -> Any:
  """Returns the compiled E step of several roles, every row counted once."""

  def every_row_once(mixture: Mixture, rows: jax.Array, floor: jax.Array) -> Statistics:
    return collect(mixture, rows, jnp.ones(len(rows), rows.dtype), floor)

  return jax.jit(jax.vmap(every_row_once))


@lru_cache(maxsize=64)
def _make_stepwise(kind: Covariance) -> Any:
  """Returns one compiled step of EM in batches: (mixture, statistics, batch, prior, step size, scale) -> both new."""

  def step(mixture: Mixture, held: Any, rows: jax.Array, prior: Prior, size: jax.Array, scale: jax.Array) -> Any:
    found = collect(mixture, rows, jnp.ones(len(rows), rows.dtype), prior.deviation_floor)
    held = jax.tree.map(lambda old, new: (1 - size) * old + size * scale * new, held, found)
    return maximise(held, prior, kind), held

  return jax.jit(jax.vmap(step, in_axes=(0, 0, 0, 0, None, 0)))


def climb(
  start: Mixture,
  rows: jax.Array,
  weights: jax.Array,
  prior: Prior,
  *,
  kind: Covariance,
  max_steps: int,
  tolerance: float,
) -> Climb:
  """Returns where EM leads from `start`, all roles at once; every argument has the axis of roles first.

  Args:
    rows: [R, N, F]. weights: [R, N], 0 for padding. tolerance: gain of log posterior a row below which EM ends.
  """
  return _make_climb(kind, max_steps, tolerance)(start, rows, weights, prior)


@lru_cache(maxsize=64)
def _make_start(kind: Covariance) -> Any:
  """Returns the compiled M step from shares, of several roles: (rows, shares, prior) -> Mixture, all stacked."""
  return jax.jit(jax.vmap(lambda rows, share, prior: maximise(from_shares(rows, share), prior, kind)))


def start_mixtures(rows: jax.Array, shares: jax.Array, prior: Prior, kind: Covariance) -> Mixture:
  """Returns the M step's mixtures of rows [R, N, F] that belong to components by shares [R, N, K], stacked."""
  return _make_start(kind)(rows, shares, prior)


def cluster(rows: np.ndarray, num_components: int, seed: int) -> np.ndarray:
  """Returns the shares [N, K], 0 or 1, of rows [N, F] in k-means' clusters (k-means++, 10 passes)."""
  some = rows[:: max(1, len(rows) // _SEED_ROWS)]
  centres, _ = kmeans2(some, num_components, iter=10, minit="++", rng=np.random.default_rng(seed), missing="warn")
  gaps = np.stack([((rows - centre[None, :]) ** 2).sum(axis=1) for centre in centres], axis=1)  # [N, K]
  share = np.zeros_like(gaps)
  share[np.arange(len(rows)), gaps.argmin(axis=1)] = 1.0
  return share


def spread_rows(rows: np.ndarray, num: int) -> np.ndarray:
  """Returns at most `num` of the rows, evenly spaced."""
  return rows if len(rows) <= num else rows[np.linspace(0, len(rows) - 1, num).round().astype(int)]


def _stack(trees: list[Any]) -> Any:
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _lane(tree: Any, lane: int) -> Any:
  return jax.tree.map(lambda leaf: np.asarray(leaf[lane]), tree)


def _pad(members: list[np.ndarray]) -> tuple[jax.Array, jax.Array]:
  """Returns rows [R, N, F], short roles padded with zeros (of shares, too), and their weights [R, N]."""
  longest = max(len(rows) for rows in members)
  padded = np.zeros((len(members), longest, members[0].shape[1]))
  weights = np.zeros((len(members), longest))
  for lane, rows in enumerate(members):
    padded[lane, : len(rows)], weights[lane, : len(rows)] = rows, 1.0
  return jnp.asarray(padded), jnp.asarray(weights)


def _prior(rows: np.ndarray, floors: np.ndarray, num_components: int, settings: RolesConfig) -> Prior:
  centre = rows.mean(axis=0)
  scatter = (rows - centre[None, :]).T @ (rows - centre[None, :]) / len(rows)
  kind = settings.covariance
  prior = default_prior(jnp.asarray(centre), jnp.asarray(scatter), jnp.asarray(floors), num_components, kind)
  return prior._replace(concentration=jnp.asarray(settings.concentration))


def _search(
  members: list[np.ndarray], floors: list[np.ndarray], num_components: int, settings: RolesConfig, seed: int
) -> list[tuple[float, Mixture]]:
  """Returns each role's best mixture of K components over the restarts, behind its BIC; rows: the search rows."""
  kind = settings.covariance
  rows, weights = _pad(members)
  priors = [_prior(x, floor, num_components, settings) for x, floor in zip(members, floors, strict=True)]
  prior = _stack(priors)
  best: list[tuple[float, float, Mixture]] = []
  for restart in range(settings.restarts if num_components > 1 else 1):
    shares, _ = _pad([cluster(x, num_components, seed + restart) for x in members])
    start = start_mixtures(rows, shares, prior, kind)
    found = climb(
      start, rows, weights, prior, kind=kind, max_steps=settings.max_steps, tolerance=settings.tolerance
    )
    for lane in range(len(members)):
      entry = (float(found.objective[lane]), float(found.loglik[lane]), _lane(found.mixture, lane))
      if restart == 0:
        best.append(entry)
      elif entry[0] > best[lane][0]:
        best[lane] = entry
  free = num_parameters(kind, num_components, members[0].shape[1])
  return [
    (free * math.log(len(x)) - 2 * loglik, mixture) for x, (_, loglik, mixture) in zip(members, best, strict=True)
  ]


def _finish(
  members: list[np.ndarray], starts: list[Mixture], priors: list[Prior], settings: RolesConfig, seed: int
) -> list[tuple[Mixture, float]]:
  """Returns the mixtures after climbing on all rows, and their log posterior a row; all of one K."""
  kind, batch = settings.covariance, settings.batch_rows
  prior, start = _stack(priors), _stack(starts)
  if max(len(rows) for rows in members) <= batch:
    rows, weights = _pad(members)
    found = climb(
      start, rows, weights, prior, kind=kind, max_steps=settings.max_steps, tolerance=settings.tolerance
    )
    return [(_lane(found.mixture, lane), float(found.objective[lane])) for lane in range(len(members))]
  orders = [np.random.default_rng(seed).permutation(len(rows)) for rows in members]
  scale = jnp.asarray([len(rows) / batch for rows in members])
  num_steps = settings.passes * -(-max(len(rows) for rows in members) // batch)
  step = _make_stepwise(kind)
  held: Any = None
  mixture = start
  for number in range(num_steps):
    places = np.arange(number * batch, (number + 1) * batch)
    rows = jnp.asarray(
      np.stack([x[order[places % len(x)]] for x, order in zip(members, orders, strict=True)])
    )
    if held is None:
      held = jax.tree.map(
        lambda leaf: leaf * scale.reshape(-1, *[1] * (leaf.ndim - 1)),
        _make_collect()(mixture, rows, prior.deviation_floor),
      )
    mixture, held = step(mixture, held, rows, prior, (number + 2.0) ** -_STEP_DECAY, scale)
  ends = []
  for lane, whole in enumerate(members):
    own = _lane(mixture, lane)
    some = spread_rows(whole, batch)
    loglik = _make_collect()(*_stack([(own, some, priors[lane].deviation_floor)])).loglik[0]
    ends.append((own, float(loglik) / len(some) + float(log_prior(own, priors[lane], kind)) / len(whole)))
  return ends


def fit_roles(
  names: list[str],
  members: list[np.ndarray],
  floors: list[np.ndarray],
  settings: RolesConfig,
  seed: int,
  track: Track = untracked,
) -> list[Fitted]:
  """Returns each role's mixture.

  Args:
    names: R, of the roles, for messages.
    members: R arrays [N_r, F] float64, scaled, no NaN.
    floors: R arrays [F], the deviations that no component's metric falls below.
    seed: of the starts and of the order of batches.
    track: watches the numbers of components tried, then the chosen ones that climb on all rows.

  Raises:
    ValueError: a role has fewer different rows than the fewest components tried, by name.
  """
  with jax.enable_x64(True):
    some = [spread_rows(rows, settings.search_rows) for rows in members]
    num_different = [len(np.unique(rows, axis=0)) for rows in some]
    for lane, number in enumerate(num_different):
      if number < min(settings.components):
        raise ValueError(
          f"role {names[lane]}: {number} different rows, fewer than the fewest components that"
          f" config.roles.components tries, {min(settings.components)}"
        )
    tried: list[dict[int, tuple[float, Mixture]]] = [{} for _ in members]
    for num_components in track(settings.components, "components"):
      lanes = [lane for lane, number in enumerate(num_different) if number >= num_components]
      if not lanes:
        continue
      found = _search([some[i] for i in lanes], [floors[i] for i in lanes], num_components, settings, seed)
      for lane, entry in zip(lanes, found, strict=True):
        tried[lane][num_components] = entry
    chosen = [min(entries, key=lambda k: entries[k][0]) for entries in tried]
    fitted: dict[int, Fitted] = {}
    for num_components in track(sorted(set(chosen)), "all rows"):
      lanes = [lane for lane, number in enumerate(chosen) if number == num_components]
      priors = [_prior(members[i], floors[i], num_components, settings) for i in lanes]
      starts = [tried[i][num_components][1] for i in lanes]
      ends = _finish([members[i] for i in lanes], starts, priors, settings, seed)
      for lane, (mixture, objective) in zip(lanes, ends, strict=True):
        bic = {number: entry[0] for number, entry in tried[lane].items()}
        fitted[lane] = Fitted(mixture, bic, len(members[lane]), objective)
    return [fitted[lane] for lane in range(len(members))]
