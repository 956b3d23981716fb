"""The PyTorch side of `benchmark.py --measure=speed`: one machine, its windows in memory, nothing but the step.

In: settings and requests on stdin (`benchmark_protocol`). Out: seconds, peak memory, where the time goes.
Needs PyTorch and the standard library alone, so that any interpreter that has them can run it.
"""

import contextlib
import time
from typing import Any

from benchmark_protocol import serve
from resources import allocator_settings, keep_freed_memory, num_cores, resident_peak

PREPARED_BATCHES = 4  # batches' worth of windows that are held ready
BREAKDOWN_REPEATS = 3


class TorchSide:
  """The network, its optimiser and the prepared windows."""

  def __init__(self, settings: dict[str, Any]):
    keep_freed_memory()  # as the other side does
    try:
      import torch
    except ImportError:
      raise ValueError("the yardstick needs PyTorch: pip install -e .[torch]") from None
    import torch_network

    self._torch, self._network = torch, torch_network
    self._matmul = settings["matmul"]
    torch.set_num_threads(num_cores())
    torch.set_float32_matmul_precision("highest" if self._matmul == "float32" else "high")
    torch.backends.cudnn.allow_tf32 = self._matmul != "float32"  # the convolution and the GRU; on by default
    torch.manual_seed(0)
    self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    self._base = self._peak()
    config, num_metrics = settings["config"], settings["metrics"]
    self._train, self._score_batch = config["train"], config["detect"]["score_batch"]
    self._targets = tuple(range(num_metrics))
    self._sizes = torch_network.read_sizes(config["model"], num_metrics, self._targets)
    self._model = torch_network.Network(self._sizes, factored=settings["factored"]).to(self._device)
    self._optimizer = torch.optim.Adam(self._model.parameters(), lr=self._train["learning_rate"])
    num = PREPARED_BATCHES * max(self._train["batch_size"], self._score_batch)
    rows = torch.rand(num, self._sizes.window_size + 1, num_metrics, device=self._device)
    self._windows, self._next_rows = rows[:, :-1].contiguous(), rows[:, -1].contiguous()

  def about(self) -> dict[str, Any]:
    """Returns what the side runs on."""
    torch = self._torch
    on_gpu = self._device.type == "cuda"
    return {
      "framework": f"torch {torch.__version__}",
      "device": torch.cuda.get_device_name() if on_gpu else f"cpu, {torch.get_num_threads()} threads",
      "environment": allocator_settings(),
    }

  def warm_up(self) -> dict[str, Any]:
    """Returns what a step and a scoring batch take, once each has run."""
    self.train(1)
    self.score(1)
    return {"train_s": self.train(2)["seconds"] / 2, "score_s": self.score(2)["seconds"] / 2}

  def train(self, steps: int) -> dict[str, Any]:
    """Returns how long that many training steps took."""
    batch = self._train["batch_size"]
    began = self._now()
    for _ in range(steps):
      self._step(self._torch.randint(len(self._windows), (batch,), device=self._device))
    return {"seconds": self._now() - began}

  def score(self, steps: int) -> dict[str, Any]:
    """Returns how long the forward pass of that many scoring batches took."""
    began = self._now()
    with self._torch.inference_mode():
      for i in range(steps):
        first = i % PREPARED_BATCHES * self._score_batch
        with self._precision():
          self._model(self._windows[first : first + self._score_batch], last_row_only=True)
    return {"seconds": self._now() - began}

  def peak(self) -> dict[str, Any]:
    """Returns the most memory held so far, and what was held before there was a network; bytes."""
    return {"peak_bytes": self._peak(), "base_bytes": self._base}

  def breakdown(self) -> dict[str, Any]:
    """Returns a step's seconds in the GRU, in both attentions, and the rest.

    The parts are timed alone, forward and backward at the step's own shapes; the rest is what the whole step
    takes beyond them. The quickest of a few repeats counts: other work on the machine only ever adds.
    """
    torch, batch = self._torch, self._train["batch_size"]
    sizes = self._sizes
    window, num_metrics = sizes.window_size, sizes.num_metrics
    shapes = {
      "gru": (self._model.gru, (batch, window, 3 * num_metrics)),
      "feature_attention": (self._model.feature_attention, (batch, num_metrics, window)),
      "time_attention": (self._model.time_attention, (batch, window, num_metrics)),
    }
    found = {}
    for name, (module, shape) in shapes.items():
      inputs = torch.rand(shape, device=self._device, requires_grad=True)
      found[name] = self._least_seconds(lambda m=module, x=inputs: self._forward_backward(m, x))
    step = self._least_seconds(lambda: self.train(1))
    attention = found["feature_attention"] + found["time_attention"]
    return {
      "step_s": step,
      "gru_s": found["gru"],
      "attention_s": attention,
      "rest_s": step - attention - found["gru"],
      "how": "parts timed alone, forward and backward at the step's shapes",
    }

  def _step(self, chosen: Any) -> None:
    torch = self._torch
    windows, next_rows = self._windows[chosen], self._next_rows[chosen]
    self._optimizer.zero_grad(set_to_none=True)
    noise = torch.randn(*windows.shape[:2], self._sizes.latent_size, device=self._device)
    with self._precision():
      outputs = self._model(windows, noise)
    losses = self._network.window_losses(outputs, windows, next_rows, self._targets, self._train["kl_weight"])
    losses.mean().backward()
    if self._train["clip_gradients"] > 0:
      torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._train["clip_gradients"])
    self._optimizer.step()

  def _forward_backward(self, module: Any, inputs: Any) -> None:
    with self._precision():
      outputs, _ = module(inputs)
    outputs.sum().backward()

  def _least_seconds(self, work: Any) -> float:
    times = []
    for _ in range(1 + BREAKDOWN_REPEATS):
      began = self._now()
      work()
      times.append(self._now() - began)
    return min(times[1:])  # the first is a warm-up

  def _precision(self) -> Any:
    if self._matmul == "bfloat16":
      return self._torch.autocast(self._device.type, dtype=self._torch.bfloat16)
    return contextlib.nullcontext()

  def _peak(self) -> int:
    return self._torch.cuda.max_memory_allocated() if self._device.type == "cuda" else resident_peak()

  def _now(self) -> float:
    if self._device.type == "cuda":
      self._torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
  """Answers the parent's requests until it has no more."""
  serve(TorchSide)
