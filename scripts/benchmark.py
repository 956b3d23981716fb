"""Measures what guard, checkpoints, fleet sizes and role mixtures cost, and the speed beside PyTorch; JSON, a table.

python scripts/benchmark.py --config=configs/smd.py:cpu
python scripts/benchmark.py --config=configs/smd.py --machines=28 --repeats=9 --measure=guard
python scripts/benchmark.py --config=configs/smd.py:cpu --measure=sizes --machines=1,4,28 --total_batch=1792
python scripts/benchmark.py --config=configs/role_gmm.py --measure=roles --machines=28
python scripts/benchmark.py --config=configs/fleet.py --measure=speed
python scripts/benchmark.py --config=configs/fleet.py --measure=speed --sizes=smd:38,smap:25,msl:55 --hidden=150,300
"""

import json
from typing import Any

import benchmark_guard
import benchmark_roles
import benchmark_sizes
import benchmark_speed
import host
import run_flags
from absl import flags
from program import UsageError, run

from mtad_jax.config_choices import Attention, Detector
from mtad_jax.train import processes
from mtad_jax.train.run_file import written_by

FLAGS = flags.FLAGS
run_flags.define_config()
flags.DEFINE_multi_enum(
  "measure",
  ["guard", "checkpoints"],
  ["guard", "checkpoints", "sizes", "speed", "roles"],
  "what to measure; sizes: a machine's step in fleets of different sizes; speed: beside PyTorch; roles: mixtures",
)
flags.DEFINE_list(
  "machines", None, "machines of the fleet; sizes and speed take several, e.g. 1,28; default: 4, of speed 1"
)
flags.DEFINE_integer("metrics", 38, "all but speed: metrics of each machine; SMD has 38", lower_bound=1)
flags.DEFINE_integer("repeats", 7, "interleaved repeats; the median counts", lower_bound=1)
flags.DEFINE_float("seconds", 4.0, "how long one repeat of one side lasts, about", lower_bound=0.01)
flags.DEFINE_integer(
  "total_batch", 0, "sizes: windows of a step of the whole fleet; 0: the config's batch a machine", lower_bound=0
)
flags.DEFINE_string("folder", None, "where checkpoints are tried; default: a temporary folder")
flags.DEFINE_list("sizes", ["smd:38"], "speed: NAME:METRICS, e.g. smd:38,smap:25,msl:55")
flags.DEFINE_list("attention", ["static", "gatv2"], "speed: static, gatv2")
flags.DEFINE_list(
  "hidden", [], "speed: sizes of GRU, forecaster and decoder, e.g. 150,300; default: the config's"
)
flags.DEFINE_list(
  "sides", list(benchmark_speed.SIDES), f"speed: what is compared, of {', '.join(benchmark_speed.SIDES)}"
)
flags.DEFINE_enum(
  "matmul",
  "float32",
  ["float32", "tf32", "bfloat16"],
  "speed: products' precision on both sides; bfloat16 is autocast in PyTorch, in jax the lowest of float32 operands",
)
flags.DEFINE_string("torch_python", None, "speed: another interpreter, one that has PyTorch")


def words_of(name: str) -> list[str]:
  """Returns a list flag's words; none where it has no value."""
  value: Any = FLAGS[name].value
  return list(value or [])


def numbers(name: str) -> list[int]:
  """Returns a list flag's positive whole numbers."""
  words = words_of(name)
  for word in words:
    if not word.isdecimal() or int(word) < 1:
      raise UsageError(f"--{name}={word}: a whole number above 0 is wanted")
  return [int(word) for word in words]


def named_sizes() -> list[tuple[str, int]]:
  """Returns --sizes as (name, number of metrics)."""
  found = []
  for text in FLAGS.sizes:
    name, _, count = text.partition(":")
    if not name or not count.isdecimal() or int(count) < 1:
      raise UsageError(f"--sizes={text}: NAME:METRICS is wanted, e.g. smd:38")
    found.append((name, int(count)))
  return found


def chosen(name: str, allowed: list[str]) -> tuple[str, ...]:
  """Returns a list flag's words, each of which must be allowed."""
  words = words_of(name)
  for word in words:
    if word not in allowed:
      raise UsageError(f"--{name}={word}: choose of {', '.join(allowed)}")
  return tuple(words)


def speed() -> list[str]:
  """Measures the grid, prints a JSON line a side as it goes; returns the table."""
  grid = benchmark_speed.combinations(
    run_flags.frozen_config(),
    named_sizes(),
    chosen("attention", [attention.value for attention in Attention if attention is not Attention.NONE]),
    numbers("hidden"),
    numbers("machines") or [1],
  )
  measuring = benchmark_speed.Measuring(
    sides=chosen("sides", list(benchmark_speed.SIDES)),
    repeats=FLAGS.repeats,
    seconds=FLAGS.seconds,
    matmul=FLAGS.matmul,
    torch_python=FLAGS.torch_python or "",
  )
  rows: list[dict[str, Any]] = []
  for combination in grid:
    found = benchmark_speed.measure(combination, measuring)
    for row in found:
      print(json.dumps(row), flush=True)
    rows += found
  return list(benchmark_speed.describe(rows))


def costs(measures: list[str]) -> list[str]:
  """Measures what guard and checkpoints cost, prints a JSON line each; returns the table."""
  config = run_flags.frozen_config()
  machines = (numbers("machines") or [4])[0]
  extent = benchmark_guard.Extent(machines, FLAGS.metrics, FLAGS.repeats, FLAGS.seconds, FLAGS.folder)
  about = {
    "machines": machines,
    "metrics": FLAGS.metrics,
    "window": config.model.window_size,
    "hidden": config.model.hidden_size,
    "batch": config.train.batch_size,
    "repeats": FLAGS.repeats,
    **written_by(),
  }
  print(json.dumps(about))
  by_name = {"guard": benchmark_guard.measure_guard, "checkpoints": benchmark_guard.measure_checkpoints}
  results = []
  for name in measures:
    results.append(by_name[name](config, extent))
    print(json.dumps(results[-1]), flush=True)
  title = f"{machines} machines of {FLAGS.metrics} metrics on {processes.describe()}:"
  return [title, *benchmark_guard.table(results)]


def roles() -> list[str]:
  """Measures the role mixtures, prints a JSON line; returns the table."""
  extent = benchmark_roles.Extent((numbers("machines") or [4])[0], FLAGS.metrics, FLAGS.repeats)
  row = benchmark_roles.measure_roles(run_flags.frozen_config(), extent)
  print(json.dumps(row | written_by()), flush=True)
  return benchmark_roles.describe(row)


def sizes() -> list[str]:
  """Measures fleets of different sizes, prints a JSON line each; returns the table."""
  fleets = numbers("machines") or [4]
  extent = benchmark_sizes.Extent(fleets, FLAGS.metrics, FLAGS.total_batch, FLAGS.repeats, FLAGS.seconds)
  rows = benchmark_sizes.measure_sizes(run_flags.frozen_config(), extent)
  for row in rows:
    print(json.dumps(row | written_by()), flush=True)
  return benchmark_sizes.describe(rows)


def main() -> int:
  """Measures and prints; returns the exit code."""
  detector = run_flags.frozen_config().model.detector
  of_networks = [name for name in FLAGS.measure if name != "roles"]
  if of_networks and detector is not Detector.MTAD_GAT:
    raise UsageError(
      f"--measure={of_networks[0]} is of networks; config.model.detector is {detector.value}, mtad_gat is wanted"
    )
  lines = []
  if "speed" in FLAGS.measure:  # first: once this process holds a device, the sides may lack its memory
    lines += speed()
  host.prepare()
  if "sizes" in FLAGS.measure:
    lines += sizes()
  if "roles" in FLAGS.measure:
    lines += roles()
  others = [name for name in FLAGS.measure if name in ("guard", "checkpoints")]
  if others:
    lines += costs(others)
  print("\n".join(lines))
  return 0


if __name__ == "__main__":
  run(main)
