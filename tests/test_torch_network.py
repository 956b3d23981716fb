"""The PyTorch yardstick is the same network: outputs and gradients agree with the JAX one's to 1e-4."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_model import SMALL as WITH_SKIP

from mtad_jax.config import ModelConfig, to_dict
from mtad_jax.config_choices import Attention, RunMode
from mtad_jax.model.network import apply, init_params
from mtad_jax.train.objective import window_losses

torch = pytest.importorskip("torch", reason="PyTorch, the yardstick's framework, is an optional extra: torch")
import torch_network  # noqa: E402  # where torch is absent there is nothing to import

TOLERANCE = 1e-4
SMALL = dataclasses.replace(WITH_SKIP, linear_rows=0)  # the yardstick has no linear skip
NUM_METRICS, NUM_WINDOWS, KL_WEIGHT = 5, 4, 0.7
TARGETS = (0, 2, 3)


def draw_batch() -> tuple[np.ndarray, np.ndarray]:
  """Returns windows [B, W, F] and the rows after them [B, F]."""
  rng = np.random.default_rng(0)
  windows = rng.normal(0.5, 1, (NUM_WINDOWS, SMALL.window_size, NUM_METRICS))
  return windows.astype(np.float32), rng.random((NUM_WINDOWS, NUM_METRICS)).astype(np.float32)


@functools.cache
def jax_side(settings: ModelConfig) -> Any:
  """Returns (parameters, noise, outputs, total losses [B], gradients of the mean total loss), NumPy leaves."""
  windows, next_rows = map(jnp.asarray, draw_batch())
  fresh = init_params(jax.random.key(0), settings, NUM_METRICS, len(TARGETS))
  rng = np.random.default_rng(1)
  params = jax.tree.map(lambda x: x + jnp.asarray(rng.normal(size=x.shape) * 0.1, x.dtype), fresh)
  key = jax.random.key(3)
  noise = jax.random.normal(key, (*windows.shape[:2], settings.latent_size), jnp.float32)

  def mean_loss(tree: Any) -> tuple[jax.Array, jax.Array]:
    found = window_losses(
      tree, windows, next_rows, key, settings=settings, targets=TARGETS, kl_weight=KL_WEIGHT
    )
    return jnp.mean(found.total, axis=0), found.total

  @jax.jit
  def both(tree: Any) -> Any:
    outputs = apply(tree, windows, noise, settings=settings, num_targets=len(TARGETS))
    return outputs, jax.value_and_grad(mean_loss, has_aux=True)(tree)

  with jax.default_matmul_precision("highest"):
    outputs, ((_, totals), gradients) = both(params)
  return jax.tree.map(np.asarray, (params, noise, outputs, totals, gradients))


def assert_close(found: Any, expected: Any, what: str) -> None:
  scale = max(1.0, float(np.abs(expected).max()))
  np.testing.assert_allclose(np.asarray(found), expected, atol=TOLERANCE * scale, rtol=0, err_msg=what)


@pytest.mark.parametrize("factored", [False, True], ids=["plain", "factored"])
@pytest.mark.parametrize("attention", [Attention.STATIC, Attention.GATV2])
@pytest.mark.parametrize("run_mode", list(RunMode))
def test_outputs_losses_and_gradients_are_those_of_jax(
  run_mode: RunMode, attention: Attention, factored: bool
) -> None:
  # each width of GATv2's projections once: the given one and, where it is 0, twice the node's length
  width = 6 if run_mode is RunMode.BOTH else 0
  settings = dataclasses.replace(SMALL, run_mode=run_mode, attention=attention, attention_size=width)
  windows, next_rows = draw_batch()
  params, noise, outputs, totals, gradients = jax_side(settings)

  sizes = torch_network.read_sizes(to_dict(settings), NUM_METRICS, TARGETS)
  model = torch_network.Network(sizes, factored=factored)
  torch_network.load(model, params)
  found = model(torch.tensor(windows), torch.tensor(noise))
  losses = torch_network.window_losses(
    found, torch.tensor(windows), torch.tensor(next_rows), TARGETS, KL_WEIGHT
  )
  losses.mean().backward()

  assert_close(losses.detach(), totals, "losses")
  assert (found.forecast is None) == (outputs.forecast is None)
  assert (found.reconstruction is None) == (outputs.reconstruction is None)
  for here, there in zip(jax.tree.leaves(found), jax.tree.leaves(outputs), strict=True):
    assert_close(here.detach(), there, "outputs")
  tree = torch_network.gradients_as_tree(model)
  assert jax.tree.structure(tree) == jax.tree.structure(gradients)
  for (path, here), there in zip(
    jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(gradients), strict=True
  ):
    assert_close(here, there, jax.tree_util.keystr(path))


def test_scoring_reconstructs_the_last_row() -> None:
  sizes = torch_network.read_sizes(to_dict(SMALL), NUM_METRICS, TARGETS)
  model = torch_network.Network(sizes, factored=True)
  windows = torch.rand(NUM_WINDOWS, SMALL.window_size, NUM_METRICS)
  with torch.inference_mode():
    every, last = model(windows), model(windows, last_row_only=True)
  assert_close(last.reconstruction.mean, every.reconstruction.mean[:, -1].numpy(), "mean")
  assert_close(last.reconstruction.variance, every.reconstruction.variance[:, -1].numpy(), "variance")


def test_parameters_of_another_size_are_refused() -> None:
  fresh = init_params(jax.random.key(0), SMALL, NUM_METRICS, len(TARGETS))
  other = dataclasses.replace(SMALL, hidden_size=8)
  model = torch_network.Network(
    torch_network.read_sizes(to_dict(other), NUM_METRICS, TARGETS), factored=False
  )
  with pytest.raises(ValueError, match=r"parameters of shape \(21, 15\) do not fit \(24, 15\)"):
    torch_network.load(model, jax.tree.map(np.asarray, fresh))
