"""The JAX side of `benchmark.py --measure=speed`: the fleet's real training program, guard and all, and real scoring.

In: settings and requests on stdin (`benchmark_protocol`). Out: seconds, peak memory, compile time, counted work,
and the rates at which this machine multiplies and copies.
"""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the other side needs room on the same GPU

import time
from typing import Any

import host
import jax
import jax.numpy as jnp
import numpy as np
from benchmark_fleet import ALL_STEPS, NUM_ROWS, TimedTraining, random_fleet
from benchmark_products import count_products
from benchmark_protocol import serve
from resources import allocator_settings, num_cores, resident_peak

from mtad_jax.config import freeze
from mtad_jax.detect.row_outputs import make_forward
from mtad_jax.train.fleet_step import place
from mtad_jax.train.mesh import make_mesh

PRECISIONS = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}  # of `config.model.matmul`
MATRIX_SIZE = {"cpu": 2048}  # of the product that tells the machine's rate; else:
LARGE_MATRIX_SIZE = 8192
COPY_MIB = {"cpu": 256}  # beyond every cache; else:
LARGE_COPY_MIB = 1024


class JaxSide:
  """A fleet's training program and its scoring."""

  def __init__(self, settings: dict[str, Any]):
    settings["config"]["model"]["matmul"] = PRECISIONS[settings["matmul"]]
    host.prepare()
    self._cache_hits = 0
    jax.monitoring.register_event_listener(self._count)
    self._platform = jax.devices()[0].platform
    self._base = self._peak()
    self._config, self._num_metrics = freeze(settings["config"]), settings["metrics"]
    self._mesh = make_mesh(settings["machines"], self._config.train.batch_size)
    self._arrays = place(random_fleet(self._config, settings["machines"], self._num_metrics), self._mesh)
    self._forward = make_forward(self._config, self._num_metrics, self._mesh)
    self._training: TimedTraining
    self._multiply = jax.jit(jnp.matmul)
    self._copy = jax.jit(
      lambda x: x + 1, donate_argnums=0
    )  # in place: fresh pages would cost more than the copy

  def about(self) -> dict[str, Any]:
    """Returns what the side runs on."""
    device = jax.devices()[0].device_kind
    return {
      "framework": f"jax {jax.__version__}",
      "device": f"cpu, {num_cores()} threads" if self._platform == "cpu" else device,
      "environment": allocator_settings(),
    }

  def warm_up(self) -> dict[str, Any]:
    """Compiles both programs; returns their first calls' seconds and what a step and a batch take after that."""
    began = time.perf_counter()
    self._training = TimedTraining(self._config, self._arrays, self._num_metrics, self._mesh)
    created = time.perf_counter() - began
    hits = self._cache_hits
    first_score = self.score(1)["seconds"]
    cache = (
      "off" if jax.config.values.get("jax_compilation_cache_dir") is None else "hit" if hits else "filled"
    )
    return {
      "train_s": self._training.step_s,
      "score_s": self.score(2)["seconds"] / 2,
      "first_call_s": self._training.compile_s,
      "score_first_call_s": first_score,
      "start_s": created,
      "compile_cache": cache,
    }

  def train(self, steps: int) -> dict[str, Any]:
    """Returns how long that many training steps of the whole fleet took."""
    return {"seconds": self._training.seconds(steps)}

  def score(self, steps: int) -> dict[str, Any]:
    """Returns how long the forward pass of that many scoring batches of every machine took."""
    batch, window = self._config.detect.score_batch, self._config.model.window_size
    params = self._training.state.params
    began = time.perf_counter()
    outputs = []
    for i in range(steps):
      first = window + i * batch % (NUM_ROWS - window)
      next_rows = np.minimum(np.arange(first, first + batch), NUM_ROWS).astype(np.int32)
      outputs.append(self._forward(params, self._arrays.values, next_rows))
    jax.block_until_ready(outputs)
    return {"seconds": time.perf_counter() - began}

  def peak(self) -> dict[str, Any]:
    """Returns the most memory held so far, and what was held before there was a fleet; bytes."""
    return {"peak_bytes": self._peak(), "base_bytes": self._base}

  def work(self) -> dict[str, Any]:
    """Returns what one training step of the fleet computes: products counted, and XLA's analysis of the program.

    The analysis counts the bodies of loops once, those over the window's rows too. program_bytes: arguments and
    temporaries of the program; the process's peak on a CPU may be the compiler's.
    """
    arguments = (self._training.state, self._arrays, 1, ALL_STEPS)
    run = self._training.programs.run
    counted = count_products(jax.make_jaxpr(run)(*arguments).jaxpr)
    compiled = run.lower(*arguments).compile()  # type: ignore[attr-defined]  # at hand from the first call
    analysis, memory = compiled.cost_analysis(), compiled.memory_analysis()
    return {
      "flops": counted.flops,
      "product_bytes": counted.bytes,
      "analysis_flops": analysis.get("flops"),
      "analysis_bytes": analysis.get("bytes accessed"),
      "program_bytes": memory.argument_size_in_bytes + memory.temp_size_in_bytes,
    }

  def ceilings(self) -> dict[str, Any]:
    """Returns this machine's rates now: a large product's flops a second, and bytes read and written a second."""
    size = MATRIX_SIZE.get(self._platform, LARGE_MATRIX_SIZE)
    matrix = jnp.ones((size, size), jnp.float32)
    self._multiply(matrix, matrix).block_until_ready()
    began = time.perf_counter()
    self._multiply(matrix, matrix).block_until_ready()
    multiplied = time.perf_counter() - began
    values = jnp.zeros(COPY_MIB.get(self._platform, LARGE_COPY_MIB) * 2**18, jnp.float32)
    values = self._copy(values).block_until_ready()
    began = time.perf_counter()
    values = self._copy(values).block_until_ready()
    copied = time.perf_counter() - began
    return {"matmul_flops_s": 2 * size**3 / multiplied, "copy_bytes_s": 2 * values.nbytes / copied}

  def _count(self, event: str, **_: Any) -> None:
    self._cache_hits += event == "/jax/compilation_cache/cache_hits"

  def _peak(self) -> int:
    if self._platform == "cpu":
      return resident_peak()
    return sum(device.memory_stats()["peak_bytes_in_use"] for device in jax.devices())


def main() -> None:
  """Answers the parent's requests until it has no more."""
  serve(JaxSide)
