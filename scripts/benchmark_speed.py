"""Speed and memory beside a plain PyTorch network of the same sizes: sides that take turns, each its own process.

For every combination of sizes the sides train and score in turn, and the median of the interleaved ratios counts:
what else the machine does falls on all of them alike. A fleet's rate stands against that of PyTorch with one
machine, which is what a loop over the machines gives.
"""

import contextlib
import dataclasses
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmark_protocol import Process

from mtad_jax.config import Config, to_dict
from mtad_jax.config_choices import Attention

SIDES = ("jax", "torch", "torch_factored")
SCRIPTS = Path(__file__).resolve().parent
MIB = 2**20


class Combination(NamedTuple):
  """One row of the grid. name: of the data whose number of metrics this is. config: with the sizes set."""

  name: str
  num_metrics: int
  num_machines: int
  config: Config


@dataclasses.dataclass(frozen=True)
class Measuring:
  """How the sides are run. seconds: of one repeat of one side, about."""

  sides: tuple[str, ...]
  repeats: int
  seconds: float
  matmul: str
  torch_python: str


def combinations(
  config: Config,
  sizes: Sequence[tuple[str, int]],
  attentions: Sequence[str],
  hidden_sizes: Sequence[int],
  fleets: Sequence[int],
) -> list[Combination]:
  """Returns the grid; a hidden size sets the GRU, the forecaster and the decoder, none leaves the config's."""
  found = []
  for name, num_metrics in sizes:
    for num_machines in fleets:
      for hidden in hidden_sizes or (0,):
        for attention in attentions:
          # the paper's network, as the yardsticks': without the linear skip
          changes: dict[str, Any] = {"attention": Attention(attention), "linear_rows": 0}
          if hidden:
            changes |= dict.fromkeys(("hidden_size", "forecast_size", "decoder_size"), hidden)
          model = dataclasses.replace(config.model, **changes)
          changed = dataclasses.replace(config, model=model)
          found.append(Combination(name, num_metrics, num_machines, changed))
  return found


def measure(combination: Combination, measuring: Measuring) -> list[dict[str, Any]]:
  """Returns one row a side, jax first; the others' hold how many times as fast jax is.

  Raises:
    ValueError: a side failed, in one line.
  """
  load = os.getloadavg()[0]  # before the sides start: what else keeps the cores busy
  first: dict[str, Any] = {}
  if "jax" in measuring.sides:
    # as in every run but a program's first; the memory of a process that compiles is the compiler's too
    with _start("jax", combination, measuring) as process:
      first = process.ask("warm_up")
  with contextlib.ExitStack() as stack:
    sides = {side: stack.enter_context(_start(side, combination, measuring)) for side in measuring.sides}
    warm = {side: process.ask("warm_up") for side, process in sides.items()}
    train, score, ceilings, peaks = _take_turns(sides, warm, measuring)
    rows = []
    for side, process in sides.items():
      machines = _machines(side, combination)
      config = combination.config
      row = {
        "measure": "speed",
        "side": side,
        "attention": config.model.attention.value,
        "data": combination.name,
        "metrics": combination.num_metrics,
        "hidden": config.model.hidden_size,
        "window": config.model.window_size,
        "batch": config.train.batch_size,
        "score_batch": config.detect.score_batch,
        "machines": machines,
        "run_mode": config.model.run_mode.value,
        "matmul": measuring.matmul,
        **process.about,
        "repeats": measuring.repeats,
        "load_average": load,
        "train_windows_s": statistics.median(_rates(train[side], machines * config.train.batch_size)),
        "score_windows_s": statistics.median(_rates(score[side], machines * config.detect.score_batch)),
        "train_step_s": statistics.median(train[side]),
        **peaks[side],
      }
      if side == "jax":
        work = process.ask("work")
        rows.append(
          row | _compiling(first, warm[side]) | work | _reached(work, row["train_step_s"], ceilings)
        )
      else:
        rows.append(row | process.ask("breakdown"))
    if "jax" in sides:
      for side, row in zip(sides, rows, strict=True):
        if side != "jax":
          row |= _ratios("train", train["jax"], train[side], combination.num_machines)
          row |= _ratios("score", score["jax"], score[side], combination.num_machines)
          row["peak_ratio"] = peaks["jax"]["peak_bytes"] / peaks[side]["peak_bytes"]
  return rows


def _start(side: str, combination: Combination, measuring: Measuring) -> Process:
  python, module = sys.executable, "benchmark_side_jax"
  if side != "jax":
    python, module = measuring.torch_python or sys.executable, "benchmark_side_torch"
  settings = {
    "config": to_dict(combination.config),
    "metrics": combination.num_metrics,
    "machines": _machines(side, combination),
    "matmul": measuring.matmul,
    "factored": side == "torch_factored",
  }
  start = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import {module}; {module}.main()"
  return Process(side, [python, "-c", start], settings)


def _machines(side: str, combination: Combination) -> int:
  """Returns how many machines a side runs: PyTorch loops over them, so one tells its rate."""
  return combination.num_machines if side == "jax" else 1


def _take_turns(
  sides: Mapping[str, Process], warm: Mapping[str, dict[str, float]], measuring: Measuring
) -> tuple[dict, dict, list[dict], dict]:
  """Returns seconds per training step and per scoring batch by side and repeat, the ceilings, the peaks."""
  names = list(sides)
  times: dict[str, dict[str, list[float]]] = {do: {side: [] for side in names} for do in ("train", "score")}
  ceilings: list[dict] = []
  peaks: dict[str, dict] = {}
  for repeat in range(measuring.repeats):
    order = names[repeat % len(names) :] + names[: repeat % len(names)]  # none is always the first
    for do, by_side in times.items():
      for side in order:
        steps = max(1, round(measuring.seconds / warm[side][f"{do}_s"]))
        by_side[side].append(sides[side].ask(do, steps=steps)["seconds"] / steps)
    if not peaks:  # before the ceilings' own arrays
      peaks = {side: process.ask("peak") for side, process in sides.items()}
    if "jax" in sides:
      ceilings.append(sides["jax"].ask("ceilings"))
  return times["train"], times["score"], ceilings, peaks


def _rates(seconds: Sequence[float], num_windows: int) -> list[float]:
  return [num_windows / each for each in seconds]


def _ratios(do: str, jax_s: Sequence[float], other_s: Sequence[float], num_machines: int) -> dict[str, float]:
  """Returns how many times as many windows a second jax does: median, low and high of the repeats.

  The ratio of each side's best repeat stands beside them: on a machine that others use, which slows the sides
  unequally, it is the nearer to that of a quiet one.
  """
  ratios = [num_machines * other / ours for ours, other in zip(jax_s, other_s, strict=True)]
  return {
    f"{do}_ratio": statistics.median(ratios),
    f"{do}_ratio_low": min(ratios),
    f"{do}_ratio_high": max(ratios),
    f"{do}_ratio_of_best": num_machines * min(other_s) / min(jax_s),
  }


def _compiling(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what of jax's first calls was compiling, in two processes one after the other.

  That is a first call's time less that of a later one. again: in the second process, the one that is measured.
  """

  def seconds(warm: Mapping[str, Any], call: str, do: str) -> float:
    return max(0.0, warm[call] - warm[do])

  return {
    "compile_s": seconds(first, "first_call_s", "train_s"),
    "compile_again_s": seconds(second, "first_call_s", "train_s"),
    "score_compile_s": seconds(first, "score_first_call_s", "score_s"),
    "score_compile_again_s": seconds(second, "score_first_call_s", "score_s"),
    "compile_cache": second["compile_cache"],
  }


def _reached(
  work: Mapping[str, Any], step_s: float, ceilings: Sequence[Mapping[str, float]]
) -> dict[str, float]:
  """Returns this machine's rates and the shares of them that a training step's products reach."""
  multiply = statistics.median(each["matmul_flops_s"] for each in ceilings)
  copy = statistics.median(each["copy_bytes_s"] for each in ceilings)
  return {
    "matmul_gflop_s": multiply / 1e9,
    "copy_gb_s": copy / 1e9,
    "matmul_share": work["flops"] / step_s / multiply,
    "copy_share": work["product_bytes"] / step_s / copy,
  }


def describe(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
  """Yields the aligned table of all combinations, then what was found beside the rates."""
  for side in dict.fromkeys(row["side"] for row in rows):
    one = next(row for row in rows if row["side"] == side)
    set_there = " ".join(f"{name}={value}" for name, value in one["environment"].items()) or "nothing"
    yield (
      f"{side}: {one['framework']} on {one['device']}, {one['matmul']} products; allocators and threads: {set_there}"
    )
  header = ["attention", "data", "metrics", "hidden", "machines", "side", "train/s", "score/s"]
  header += ["jax trains", "jax scores", "peak MiB", "jax's share"]
  cells = [header]
  for row in rows:
    same = [row["attention"], row["data"], row["metrics"], row["hidden"], row["machines"], row["side"]]
    figures = [f"{row['train_windows_s']:.1f}", f"{row['score_windows_s']:.1f}"]
    figures += [_spread(row, "train"), _spread(row, "score"), f"{row['peak_bytes'] / MIB:.0f}"]
    figures += [f"{row['peak_ratio']:.2f}" if "peak_ratio" in row else ""]
    cells.append([*map(str, same), *figures])
  widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
  for line in cells:
    yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
  for row in rows:
    about = f"{row['attention']} {row['data']} hidden {row['hidden']} {row['side']}:"
    if "compile_s" in row:
      yield (
        f"{about} compiled in {row['compile_s']:.1f} s, scoring in {row['score_compile_s']:.1f} s, in the next"
        f" process in {row['compile_again_s']:.1f} and {row['score_compile_again_s']:.1f} s (cache"
        f" {row['compile_cache']}); a step has {row['flops'] / 1e9:.1f} GFLOP of products,"
        f" {row['matmul_share']:.0%} of {row['matmul_gflop_s']:.0f} GFLOP/s, and moves"
        f" {row['product_bytes'] / 1e9:.2f} GB for them, {row['copy_share']:.0%} of {row['copy_gb_s']:.1f} GB/s;"
        f" the program holds {row['program_bytes'] / MIB:.0f} MiB"
      )
    else:
      yield (
        f"{about} step {row['step_s']:.3f} s: GRU {row['gru_s']:.3f}, attention {row['attention_s']:.3f}, rest"
        f" {row['rest_s']:.3f} ({row['how']}){_of_best(row)}"
      )


def _of_best(row: Mapping[str, Any]) -> str:
  if "train_ratio_of_best" not in row:
    return ""
  return f"; best repeats: jax trains {row['train_ratio_of_best']:.2f}x, scores {row['score_ratio_of_best']:.2f}x"


def _spread(row: Mapping[str, Any], do: str) -> str:
  if f"{do}_ratio" not in row:
    return ""
  return f"{row[f'{do}_ratio']:.2f}x ({row[f'{do}_ratio_low']:.2f}-{row[f'{do}_ratio_high']:.2f})"
