"""The comparison of speeds: its protocol, its counts, its table; one run end to end at tiny sizes."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import benchmark_speed
import jax
import jax.numpy as jnp
import pytest
from benchmark_products import count_products
from benchmark_protocol import Process
from fleets import SCRIPTS, TINY, refused, run_here, succeeded
from resources import resident_peak

from mtad_jax.config import Config
from mtad_jax.config_choices import Attention

SPEED = (
  *TINY,
  "--config.detect.score_batch=16",
  "--measure=speed",
  "--sizes=tiny:3",
  "--attention=static",
  "--repeats=1",
  "--seconds=0.02",
)
CHILD = """
import sys
sys.path.insert(0, {scripts!r})
from benchmark_protocol import serve

class Counter:
  def __init__(self, settings):
    self.total = settings["start"]
  def about(self):
    print("a library's chatter")
    return {{"start": self.total}}
  def add(self, number):
    if number < 0:
      raise ValueError("negative:\\nnot allowed")
    self.total += number
    return {{"total": self.total}}
  def fall(self):
    raise RuntimeError("the sky fell")

serve(Counter)
"""


def start(tmp_path: Path) -> Process:
  """Returns a child that counts from 5."""
  script = tmp_path / "child.py"
  script.write_text(CHILD.format(scripts=str(SCRIPTS)))
  return Process("counter", [sys.executable, str(script)], {"start": 5})


def test_a_side_keeps_its_state_and_answers_in_turn(tmp_path: Path) -> None:
  with start(tmp_path) as child:
    assert child.about == {"start": 5}
    assert child.ask("add", number=2) == {"total": 7}
    with pytest.raises(ValueError, match="negative: not allowed"):
      child.ask("add", number=-1)
    assert child.ask("add", number=1) == {"total": 8}


def test_a_side_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
  with (
    start(tmp_path) as child,
    pytest.raises(ValueError, match=r"side counter ended with exit code 1: RuntimeError: the sky fell"),
  ):
    child.ask("fall")


def test_the_peak_is_that_of_this_process() -> None:
  assert 10 * 2**20 < resident_peak() < 2**40


def test_products_inside_a_loop_count_as_often_as_it_runs() -> None:
  left, right = jnp.ones((2, 3)), jnp.ones((3, 3))

  def loop(a: jax.Array, b: jax.Array) -> jax.Array:
    last, _ = jax.lax.scan(lambda state, _: (state @ b, None), a, None, length=7)
    return jnp.sum(last, axis=(0, 1))

  one = 2 * 2 * 3 * 3
  moved = 4 * (6 + 9 + 6)
  assert count_products(jax.make_jaxpr(jnp.matmul)(left, right).jaxpr) == (one, moved)
  assert count_products(jax.make_jaxpr(jax.jit(loop))(left, right).jaxpr) == (7 * one, 7 * moved)
  both = jax.make_jaxpr(jax.grad(loop, argnums=(0, 1)))(left, right)
  assert count_products(both.jaxpr).flops == 3 * 7 * one  # forward, and one product backward for each factor


def test_of_branches_the_dearest_counts_and_a_batch_multiplies() -> None:
  matrix = jnp.ones((5, 3, 3))

  def branch(flag: jax.Array, x: jax.Array) -> jax.Array:
    return jax.lax.cond(flag, lambda y: y @ y @ y, lambda y: y @ y, x)

  assert count_products(jax.make_jaxpr(branch)(jnp.array(True), matrix).jaxpr).flops == 2 * 5 * 2 * 27


def test_the_grid_has_every_combination_and_a_hidden_size_sets_three() -> None:
  grid = benchmark_speed.combinations(
    Config(), [("smd", 38), ("smap", 25)], ["static", "gatv2"], [150, 300], [1, 28]
  )
  assert len(grid) == len(set(grid)) == 16
  found = [one for one in grid if one[:3] == ("smap", 25, 28)]
  models = [one.config.model for one in found]
  assert {(m.hidden_size, m.forecast_size, m.decoder_size) for m in models} == {(150,) * 3, (300,) * 3}
  assert {m.attention for m in models} == {Attention.STATIC, Attention.GATV2}
  (kept,) = benchmark_speed.combinations(Config(), [("smd", 38)], ["static"], [], [1])
  network = dataclasses.replace(Config().model, linear_rows=0)  # the yardsticks have no skip
  assert kept.config == dataclasses.replace(Config(), model=network)


class FakeSide:
  """A side whose steps take a known time: a tenth of a second in repeat 0, two tenths in repeat 1 and so on."""

  def __init__(self, pace: float, order: list[tuple[str, str]], name: str):
    self._pace, self._order, self._name = pace, order, name
    self._count = {"train": 0, "score": 0}

  def ask(self, do: str, steps: int = 0) -> dict[str, Any]:
    self._order.append((do, self._name))
    if do == "peak":
      return {"peak_bytes": 4}
    if do == "ceilings":
      return {"matmul_flops_s": 1e9, "copy_bytes_s": 1e9}
    self._count[do] += 1
    return {"seconds": self._pace * self._count[do] * steps}


def test_the_sides_take_turns_and_the_ratio_is_that_of_each_repeat() -> None:
  order: list[tuple[str, str]] = []
  sides: Any = {"jax": FakeSide(0.1, order, "jax"), "torch": FakeSide(0.4, order, "torch")}
  measuring = benchmark_speed.Measuring(("jax", "torch"), 3, 1.0, "float32", "")
  warm = {name: {"train_s": 0.1, "score_s": 0.1} for name in sides}
  train, score, ceilings, peaks = benchmark_speed._take_turns(sides, warm, measuring)
  assert [name for do, name in order if do == "train"] == ["jax", "torch", "torch", "jax", "jax", "torch"]
  assert train["torch"] == pytest.approx([0.4, 0.8, 1.2])
  assert train == score
  assert len(ceilings) == 3
  assert order.index(("peak", "jax")) < order.index(("ceilings", "jax"))
  assert peaks["torch"] == {"peak_bytes": 4}
  ratios = benchmark_speed._ratios("train", train["jax"], train["torch"], 2)  # two machines to torch's one
  names = ("train_ratio", "train_ratio_low", "train_ratio_high", "train_ratio_of_best")
  assert ratios == pytest.approx(dict.fromkeys(names, 8.0))


def test_compile_times_are_those_of_two_processes() -> None:
  first = {"first_call_s": 9.0, "train_s": 2.0, "score_first_call_s": 4.0, "score_s": 1.0, "compile_cache": "filled"}
  second = {"first_call_s": 3.5, "train_s": 3.0, "score_first_call_s": 0.5, "score_s": 0.75, "compile_cache": "hit"}
  assert benchmark_speed._compiling(first, second) == {
    "compile_s": 7.0,
    "compile_again_s": 0.5,
    "score_compile_s": 3.0,
    "score_compile_again_s": 0.0,
    "compile_cache": "hit",
  }


def test_the_jax_side_is_measured_end_to_end() -> None:
  done = succeeded(run_here("benchmark.py", *SPEED, "--sides=jax", "--machines=2"))
  row, *table = done.stdout.splitlines()
  row = json.loads(row)
  assert (row["side"], row["data"], row["metrics"], row["machines"]) == ("jax", "tiny", 3, 2)
  assert (row["attention"], row["hidden"], row["window"], row["batch"]) == ("static", 8, 8, 16)
  assert row["device"].startswith("cpu, ")
  assert row["train_windows_s"] == pytest.approx(2 * 16 / row["train_step_s"], rel=0.5)
  assert row["compile_cache"] == "hit", "a process before has compiled"
  assert {"compile_again_s", "score_compile_again_s"} < set(row)
  assert 0 < row["base_bytes"] < row["peak_bytes"]
  # the forward pass of the GRU alone: 2 machines, 16 windows, 8 rows, state 8 to 3 gates of 8
  assert row["flops"] > 3 * 2 * 16 * 8 * 2 * 8 * 24
  assert 0 < row["matmul_share"] < 1
  about, header, line, detail = table
  assert about.startswith(f"jax: jax {jax.__version__} on cpu, ")
  assert [header.index(name) for name in ("data", "side")] == [line.index(name) for name in ("tiny", "jax")]
  assert f"{row['train_windows_s']:.1f}" in line
  assert detail.startswith("static tiny hidden 8 jax: compiled in ")


def test_torch_that_is_missing_is_told_in_one_line(tmp_path: Path) -> None:
  bare = tmp_path / "python"  # without site-packages it has no torch, whatever is installed
  bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
  bare.chmod(0o755)
  done = run_here("benchmark.py", *SPEED, "--sides=torch", f"--torch_python={bare}")
  refused(done, 1, "the yardstick needs PyTorch: pip install -e .[torch]")


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is an optional extra: torch")
def test_both_yardsticks_are_compared_with_jax() -> None:
  done = succeeded(run_here("benchmark.py", *SPEED))
  rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
  assert [row["side"] for row in rows] == ["jax", "torch", "torch_factored"]
  for row in rows[1:]:
    assert row["framework"].startswith("torch 2.")
    assert row["train_ratio_low"] <= row["train_ratio"] <= row["train_ratio_high"]
    assert row["score_ratio_low"] <= row["score_ratio"] <= row["score_ratio_high"]
    assert row["peak_ratio"] == pytest.approx(rows[0]["peak_bytes"] / row["peak_bytes"])
    assert row["step_s"] == pytest.approx(row["gru_s"] + row["attention_s"] + row["rest_s"])
