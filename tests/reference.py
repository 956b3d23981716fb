"""A slow, obvious MTAD-GAT for one window, in NumPy float64 with explicit loops: the oracle of the model's tests.

In: one machine's parameter tree, a window [W, F]. Out: forecast, reconstruction, attentions, losses. Written from
the equations (Zhao et al. 2020; Brody et al. 2022; Cho et al. 2014), pair by pair and step by step.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mtad_jax.config import ModelConfig
from mtad_jax.config_choices import Attention, RunMode

Tree = Mapping[str, Any]


class ExpectedReconstruction(NamedTuple):
  """mean, variance: [W, F']. code_mean, code_log_variance: [W, Z]; in the order of the model's own."""

  mean: np.ndarray
  variance: np.ndarray
  code_mean: np.ndarray
  code_log_variance: np.ndarray


class Expected(NamedTuple):
  """What the network should say of one window; None where the run mode has no such part.

  forecast: [F']. feature_attention: [F, F], time_attention: [W, W], where there are any.
  """

  forecast: np.ndarray | None
  reconstruction: ExpectedReconstruction | None
  feature_attention: np.ndarray | None
  time_attention: np.ndarray | None


def sigmoid(x: np.ndarray) -> np.ndarray:
  """Returns 1 / (1 + exp(-x)), without overflow."""
  return 0.5 * (1 + np.tanh(0.5 * x))


def dense(params: Tree, x: np.ndarray) -> np.ndarray:
  """Returns the affine image of one vector x [D], [E]; a layer without a bias has none in its tree."""
  total = np.zeros(params["kernel"].shape[1])
  for i, value in enumerate(x):
    total += value * params["kernel"][i]
  return total + params["bias"] if "bias" in params else total


def convolution(params: Tree, window: np.ndarray) -> np.ndarray:
  """Returns y_t = b + sum_k K_k x_{t + k - (K - 1)/2} [W, F] with zeros outside the window."""
  kernel = params["kernel"]
  num_rows = len(window)
  result = np.zeros((num_rows, kernel.shape[2]))
  for t in range(num_rows):
    result[t] = params["bias"]
    for k in range(len(kernel)):
      row = t + k - (len(kernel) - 1) // 2
      if 0 <= row < num_rows:
        result[t] += window[row] @ kernel[k]
  return result


def graph_attention(
  params: Tree, nodes: np.ndarray, *, gatv2: bool, slope: float
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (mixed nodes [N, D], attention [N, N]), each logit from the pair v_i ++ v_j written out."""
  num_nodes = len(nodes)
  logits = np.zeros((num_nodes, num_nodes))
  for i in range(num_nodes):
    for j in range(num_nodes):
      pair = np.concatenate([nodes[i], nodes[j]])
      if gatv2:
        kernel = np.concatenate([params["left"]["kernel"], params["right"]["kernel"]])  # [2D, A]
        inner = pair @ kernel + params["left"]["bias"]
        logits[i, j] = params["weight"][:, 0] @ np.where(inner > 0, inner, slope * inner)
      else:
        inner = pair @ np.concatenate([params["left"], params["right"]])[:, 0]
        logits[i, j] = inner if inner > 0 else slope * inner
  attention = np.zeros_like(logits)
  mixed = np.zeros_like(nodes)
  for i in range(num_nodes):
    weights = np.exp(logits[i] - logits[i].max())
    attention[i] = weights / weights.sum()
    mixed[i] = sigmoid(sum(attention[i, j] * nodes[j] for j in range(num_nodes)))
  return mixed, attention


def gru(params: Tree, inputs: np.ndarray) -> np.ndarray:
  """Returns the states [W, H] of inputs [W, D], from a zero state."""
  size = len(params["recurrent"])
  of_input = np.split(params["input"]["kernel"], 3, axis=1)
  biases = np.split(params["input"]["bias"], 3)
  of_state = np.split(params["recurrent"], 3, axis=1)
  state = np.zeros(size)
  states = []
  for row in inputs:
    reset = sigmoid(row @ of_input[0] + biases[0] + state @ of_state[0])
    update = sigmoid(row @ of_input[1] + biases[1] + state @ of_state[1])
    recurrent = state @ of_state[2] + params["candidate_bias"]
    candidate = np.tanh(row @ of_input[2] + biases[2] + reset * recurrent)
    state = (1 - update) * candidate + update * state
    states.append(state)
  return np.stack(states)


def forecaster(params: Tree, state: np.ndarray, num_layers: int) -> np.ndarray:
  """Returns the forecast [F'] from the last state [H]."""
  for i in range(num_layers):
    state = np.maximum(dense(params[f"layer_{i}"], state), 0)
  return dense(params["output"], state)


def vae(
  params: Tree, states: np.ndarray, noise: np.ndarray | None, settings: ModelConfig
) -> ExpectedReconstruction:
  """Returns the reconstruction of every row from the states [W, H]; noise [W, Z], or None."""
  low, high = settings.log_variance_min, settings.log_variance_max
  rows: list[tuple[np.ndarray, ...]] = []
  for t, state in enumerate(states):
    code_mean = dense(params["code_mean"], state)
    raw = dense(params["code_log_variance"], state)
    log_variance = np.array([low * math.tanh(x / low) if x < 0 else high * math.tanh(x / high) for x in raw])
    code = code_mean if noise is None else code_mean + np.sqrt(np.exp(log_variance)) * noise[t]
    hidden = np.maximum(dense(params["decoder"], code), 0)
    variance = settings.variance_floor + np.logaddexp(0, dense(params["variance"], hidden))
    rows.append((dense(params["mean"], hidden), variance, code_mean, log_variance))
  return ExpectedReconstruction(*(np.stack(part) for part in zip(*rows, strict=True)))


def network(params: Tree, window: np.ndarray, noise: np.ndarray | None, settings: ModelConfig) -> Expected:
  """Returns the whole network's outputs for one window [W, F]; noise [W, Z], or None for the mean code."""
  gatv2, slope = settings.attention is Attention.GATV2, settings.leaky_slope
  rows = joined = convolution(params["convolution"], window)
  feature_attention = time_attention = None
  if settings.attention is not Attention.NONE:
    by_feature, feature_attention = graph_attention(
      params["feature_attention"], rows.T, gatv2=gatv2, slope=slope
    )
    by_time, time_attention = graph_attention(params["time_attention"], rows, gatv2=gatv2, slope=slope)
    joined = np.concatenate([rows, by_feature.T, by_time], axis=1)
  states = gru(params["gru"], joined)
  forecast, reconstruction = None, None
  if settings.run_mode in (RunMode.FORECASTING, RunMode.BOTH):
    forecast = forecaster(params["forecaster"], states[-1], settings.forecast_layers)
    if settings.linear_rows:
      forecast = forecast + dense(params["linear"], window[-settings.linear_rows :].ravel())
  if settings.run_mode in (RunMode.RECONSTRUCTING, RunMode.BOTH):
    reconstruction = vae(params["vae"], states, noise, settings)
  return Expected(forecast, reconstruction, feature_attention, time_attention)


def losses(
  expected: Expected, window: np.ndarray, next_row: np.ndarray, targets: tuple[int, ...], epsilon: float
) -> tuple[float, float, float]:
  """Returns (forecast, reconstruction, KL) of one window: value by value, then per target metric and row.

  The reconstruction is -log N(x | mean, variance) of the window itself.
  """
  forecast = reconstruction = kl = 0.0
  if expected.forecast is not None:
    squares = sum((expected.forecast[i] - next_row[column]) ** 2 for i, column in enumerate(targets))
    forecast = math.sqrt(squares + epsilon**2) - epsilon
  if expected.reconstruction is not None:
    mean, variance, code_mean, code_log_variance = expected.reconstruction
    num_rows, num_targets = mean.shape
    for t in range(num_rows):
      for i, column in enumerate(targets):
        error = window[t, column] - mean[t, i]
        reconstruction += 0.5 * (error**2 / variance[t, i] + math.log(2 * math.pi * variance[t, i]))
      for m, s in zip(code_mean[t], code_log_variance[t], strict=True):
        kl += 0.5 * (math.exp(s) + m**2 - 1 - s)
    reconstruction /= num_rows * num_targets
    kl /= num_rows * num_targets
  return forecast, reconstruction, kl
