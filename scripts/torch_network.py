"""A plain PyTorch MTAD-GAT with the structure, the sizes and the losses of `mtad_jax`: yardstick and oracle in one.

In: windows [B, W, F] and one machine's parameters, carried over from the JAX tree by `load`. Out: the same outputs,
losses and, by `gradients_as_tree`, the same gradients. It is written the straightforward way, and needs nothing
but PyTorch and NumPy.
"""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

FIT_EPSILON = 1e-4  # as in mtad_jax/train/objective.py
LOG_TWO_PI = math.log(2 * math.pi)


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The network's sizes; all but the first two have the names, and the meaning, of `ModelConfig`."""

  num_metrics: int
  targets: tuple[int, ...]  # columns that are forecast and reconstructed
  run_mode: str
  attention: str
  kernel_size: int
  window_size: int
  attention_size: int
  leaky_slope: float
  hidden_size: int
  forecast_size: int
  forecast_layers: int
  latent_size: int
  decoder_size: int
  log_variance_min: float
  log_variance_max: float
  variance_floor: float


def read_sizes(model: Mapping[str, Any], num_metrics: int, targets: tuple[int, ...]) -> Sizes:
  """Returns the sizes from the settings of `ModelConfig` as plain values; other settings are left out.

  Raises:
    ValueError: a network with a linear skip, which these have not.
  """
  if model["linear_rows"]:
    raise ValueError("model.linear_rows: the PyTorch networks have no linear skip; 0 is wanted")
  known = {field.name for field in dataclasses.fields(Sizes)}
  return Sizes(num_metrics, targets, **{name: value for name, value in model.items() if name in known})


class GraphAttention(nn.Module, abc.ABC):
  """Attention over N nodes of length D; how the pairs' logits come about is the subclass's."""

  def __init__(self, length: int, sizes: Sizes):
    super().__init__()
    self.slope = sizes.leaky_slope
    width = (sizes.attention_size or 2 * length) if sizes.attention == "gatv2" else 2 * length
    self.pair = nn.Linear(2 * length, width) if sizes.attention == "gatv2" else None  # W of (v_i ++ v_j)
    self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(width, 1)))

  @abc.abstractmethod
  def logits(self, nodes: Tensor) -> Tensor:
    """Returns e_ij [B, N, N] of nodes [B, N, D]."""

  def forward(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (mixed nodes [B, N, D], attention [B, N, N]) of nodes [B, N, D]."""
    attention = torch.softmax(self.logits(nodes), dim=2)
    return torch.sigmoid(torch.matmul(attention, nodes)), attention


class PairwiseAttention(GraphAttention):
  """Every pair v_i ++ v_j written out, [B, N, N, 2D], as public PyTorch versions do."""

  def logits(self, nodes: Tensor) -> Tensor:
    num_windows, num_nodes, length = nodes.shape
    left = nodes.repeat_interleave(num_nodes, dim=1)  # v_0, v_0, ... v_1, v_1, ...
    right = nodes.repeat(1, num_nodes, 1)  # v_0, v_1, ... v_0, v_1, ...
    pairs = torch.cat((left, right), dim=2).view(num_windows, num_nodes, num_nodes, 2 * length)
    if self.pair is None:
      return functional.leaky_relu(torch.matmul(pairs, self.weight), self.slope).squeeze(3)
    return torch.matmul(functional.leaky_relu(self.pair(pairs), self.slope), self.weight).squeeze(3)


class FactoredAttention(GraphAttention):
  """The same logits by W (v_i ++ v_j) = W1 v_i + W2 v_j: no pair is written out before its sum."""

  def logits(self, nodes: Tensor) -> Tensor:
    length = nodes.shape[2]
    if self.pair is None:
      left, right = torch.matmul(nodes, self.weight[:length]), torch.matmul(nodes, self.weight[length:])
      return functional.leaky_relu(left + right.transpose(1, 2), self.slope)
    left = functional.linear(nodes, self.pair.weight[:, :length], self.pair.bias)
    right = functional.linear(nodes, self.pair.weight[:, length:])
    pairs = left[:, :, None] + right[:, None]  # [B, N, N, A]
    # in place: the only array of pairs that is kept for the backward pass, which needs the result alone
    return torch.matmul(functional.leaky_relu(pairs, self.slope, inplace=True), self.weight).squeeze(3)


class Reconstruction(NamedTuple):
  """mean, variance: [..., F'] of the input; code_mean, code_log_variance: [..., Z]."""

  mean: Tensor
  variance: Tensor
  code_mean: Tensor
  code_log_variance: Tensor


class Outputs(NamedTuple):
  """As `mtad_jax.model.network.Outputs`; None where the run mode has no such part."""

  forecast: Tensor | None
  reconstruction: Reconstruction | None
  feature_attention: Tensor
  time_attention: Tensor


def bounded(x: Tensor, low: float, high: float) -> Tensor:
  """Returns x squeezed smoothly into (low, high)."""
  return torch.where(x < 0, low * torch.tanh(x / low), high * torch.tanh(x / high))


class VAE(nn.Module):
  """Encoder and decoder, applied to every state alike."""

  def __init__(self, sizes: Sizes):
    super().__init__()
    self.sizes = sizes
    self.code_mean = nn.Linear(sizes.hidden_size, sizes.latent_size)
    self.code_log_variance = nn.Linear(sizes.hidden_size, sizes.latent_size)
    self.decoder = nn.Linear(sizes.latent_size, sizes.decoder_size)
    self.mean = nn.Linear(sizes.decoder_size, len(sizes.targets))
    self.variance = nn.Linear(sizes.decoder_size, len(sizes.targets))

  def forward(self, states: Tensor, noise: Tensor | None) -> Reconstruction:
    """Returns the reconstruction of the rows at `states` [..., H]; noise [..., Z], or None for the mean code."""
    code_mean = self.code_mean(states).float()  # float32 from here on under autocast too, as are the losses
    raw = self.code_log_variance(states).float()
    log_variance = bounded(raw, self.sizes.log_variance_min, self.sizes.log_variance_max)
    code = code_mean if noise is None else code_mean + torch.exp(0.5 * log_variance) * noise
    hidden = torch.relu(self.decoder(code))
    variance = self.sizes.variance_floor + functional.softplus(self.variance(hidden).float())
    return Reconstruction(self.mean(hidden).float(), variance, code_mean, log_variance)


class Network(nn.Module):
  """The whole network of one machine; `factored` chooses how the attentions form their logits."""

  def __init__(self, sizes: Sizes, *, factored: bool):
    super().__init__()
    self.sizes = sizes
    attention = FactoredAttention if factored else PairwiseAttention
    num_metrics, hidden = sizes.num_metrics, sizes.hidden_size
    self.convolution = nn.Conv1d(num_metrics, num_metrics, sizes.kernel_size, padding=sizes.kernel_size // 2)
    self.feature_attention = attention(sizes.window_size, sizes)
    self.time_attention = attention(num_metrics, sizes)
    self.gru = nn.GRU(3 * num_metrics, hidden, batch_first=True)
    self.forecaster: nn.Sequential | None = None
    self.vae: VAE | None = None
    if sizes.run_mode != "RECONSTRUCTING":
      layers: list[nn.Module] = []
      for i in range(sizes.forecast_layers):
        layers += [nn.Linear(sizes.forecast_size if i else hidden, sizes.forecast_size), nn.ReLU()]
      last = sizes.forecast_size if sizes.forecast_layers else hidden
      self.forecaster = nn.Sequential(*layers, nn.Linear(last, len(sizes.targets)))
    if sizes.run_mode != "FORECASTING":
      self.vae = VAE(sizes)

  def forward(self, windows: Tensor, noise: Tensor | None = None, last_row_only: bool = False) -> Outputs:
    """Returns the outputs for windows [B, W, F]; noise [B, W, Z], or None for the mean code."""
    rows = self.convolution(windows.transpose(1, 2)).transpose(1, 2)  # [B, W, F]
    by_feature, feature_weights = self.feature_attention(rows.transpose(1, 2))
    by_time, time_weights = self.time_attention(rows)
    states, _ = self.gru(torch.cat((rows, by_feature.transpose(1, 2), by_time), dim=2))  # [B, W, H]
    forecast = None if self.forecaster is None else self.forecaster(states[:, -1]).float()
    reconstruction = None
    if self.vae is not None:
      reconstruction = self.vae(states[:, -1] if last_row_only else states, noise)
    return Outputs(forecast, reconstruction, feature_weights, time_weights)


def window_losses(
  outputs: Outputs, windows: Tensor, next_rows: Tensor, targets: tuple[int, ...], kl_weight: float
) -> Tensor:
  """Returns the total loss [B] of each window, as `mtad_jax.train.objective.window_losses`.

  Args:
    windows: [B, W, F]. next_rows: [B, F], the row after each window.
  """
  all_columns = targets == tuple(range(windows.shape[2]))
  columns = slice(None) if all_columns else list(targets)  # a list copies
  total = torch.zeros(windows.shape[0], device=windows.device)
  if outputs.forecast is not None:
    squares = ((outputs.forecast - next_rows[:, columns]) ** 2).sum(dim=1)
    total = total + torch.sqrt(squares + FIT_EPSILON**2) - FIT_EPSILON
  if outputs.reconstruction is not None:
    mean, variance, code_mean, log_variance = outputs.reconstruction
    squares = (windows[:, :, columns] - mean) ** 2
    total = total + (0.5 * (squares / variance + torch.log(variance) + LOG_TWO_PI)).mean(dim=(1, 2))
    per_row = 0.5 * (torch.exp(log_variance) + code_mean**2 - 1 - log_variance).sum(dim=2)  # [B, W]
    total = total + kl_weight * per_row.mean(dim=1) / mean.shape[2]
  return total


def _dense_layers(model: Network) -> dict[tuple[str, str], Any]:
  """Returns the dense layers by their place in the JAX tree."""
  layers: dict[tuple[str, str], Any] = {}
  if model.forecaster is not None:
    *hidden, output = (layer for layer in model.forecaster if isinstance(layer, nn.Linear))
    layers = {("forecaster", f"layer_{i}"): layer for i, layer in enumerate(hidden)}
    layers["forecaster", "output"] = output
  if model.vae is not None:
    layers |= {("vae", name): layer for name, layer in model.vae.named_children()}
  return layers


def load(model: Network, params: Mapping[str, Any]) -> None:
  """Sets the model's parameters to one machine's JAX tree (NumPy leaves).

  torch.nn.GRU has a second bias; ours has it in the candidate alone, the sums of the others are one bias each.
  """
  size = model.sizes.hidden_size
  gru = params["gru"]
  pairs: list[tuple[Any, np.ndarray]] = [
    (model.convolution.weight, np.transpose(params["convolution"]["kernel"], (2, 1, 0))),  # [K, in, out]
    (model.convolution.bias, params["convolution"]["bias"]),
    (model.gru.weight_ih_l0, np.transpose(gru["input"]["kernel"])),
    (model.gru.bias_ih_l0, gru["input"]["bias"]),
    (model.gru.weight_hh_l0, np.transpose(gru["recurrent"])),
    (model.gru.bias_hh_l0, np.concatenate([np.zeros(2 * size), gru["candidate_bias"]])),
  ]
  for name in ("feature_attention", "time_attention"):
    attention, tree = getattr(model, name), params[name]
    if attention.pair is None:
      pairs.append((attention.weight, np.concatenate([tree["left"], tree["right"]])))
    else:
      kernel = np.concatenate([tree["left"]["kernel"], tree["right"]["kernel"]])  # [2D, A]
      pairs += [(attention.pair.weight, kernel.T), (attention.pair.bias, tree["left"]["bias"])]
      pairs.append((attention.weight, tree["weight"]))
  for (part, name), layer in _dense_layers(model).items():
    pairs.append((layer.weight, np.transpose(params[part][name]["kernel"])))
    pairs.append((layer.bias, params[part][name]["bias"]))
  with torch.no_grad():
    for parameter, array in pairs:
      if parameter.shape != array.shape:
        raise ValueError(f"parameters of shape {array.shape} do not fit {tuple(parameter.shape)}")
      parameter.copy_(torch.tensor(np.asarray(array, np.float32)))


def gradients_as_tree(model: Network) -> dict[str, Any]:
  """Returns the gradients that `backward` left, as a tree of NumPy arrays shaped as the JAX parameters'."""

  def gradient(parameter: Any) -> np.ndarray:
    return parameter.grad.detach().cpu().numpy()

  size = model.sizes.hidden_size
  tree: dict[str, Any] = {
    "convolution": {
      "kernel": gradient(model.convolution.weight).transpose(2, 1, 0),
      "bias": gradient(model.convolution.bias),
    },
    "gru": {
      "input": {"kernel": gradient(model.gru.weight_ih_l0).T, "bias": gradient(model.gru.bias_ih_l0)},
      "recurrent": gradient(model.gru.weight_hh_l0).T,
      "candidate_bias": gradient(model.gru.bias_hh_l0)[2 * size :],
    },
  }
  for name in ("feature_attention", "time_attention"):
    attention = getattr(model, name)
    weight = gradient(attention.weight)
    if attention.pair is None:
      left, right = np.split(weight, 2)
      tree[name] = {"left": left, "right": right}
    else:
      left, right = np.split(gradient(attention.pair.weight).T, 2)
      tree[name] = {
        "left": {"kernel": left, "bias": gradient(attention.pair.bias)},
        "right": {"kernel": right},
        "weight": weight,
      }
  for (part, name), layer in _dense_layers(model).items():
    tree.setdefault(part, {})[name] = {"kernel": gradient(layer.weight).T, "bias": gradient(layer.bias)}
  return tree
