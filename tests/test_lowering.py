"""Every program of the device lowers for TPU and GPU from any machine, in every precision; kernels are XLA's own."""

import re

import jax
import numpy as np
import pytest
import tiny

from mtad_jax.config_choices import Attention, MatmulPrecision
from mtad_jax.data.fleet import training_arrays
from mtad_jax.detect.feature_attention import make_shares
from mtad_jax.detect.row_outputs import make_forward
from mtad_jax.train.fleet_step import make_programs, state_template
from mtad_jax.train.mesh import make_mesh
from mtad_jax.train.step import MachineArrays

NUM_METRICS = 3


LINEAR_SIZE = 7 * NUM_METRICS  # of the skip's input: a width that nothing else has


def lowered(platform: str, **model: str | int) -> dict[str, str]:
  """Returns the text of each program by name, as that platform's compiler would get it."""
  config = tiny.make_config(model=model)
  group = tiny.make_group(config)
  mesh = make_mesh(devices=jax.devices()[:1])
  num_machines = len(group.names)
  state = state_template(config, num_machines, NUM_METRICS, group.targets)
  arrays = MachineArrays(*(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in training_arrays(group, config)))
  programs = make_programs(config, NUM_METRICS, group.targets, mesh)
  count = jax.ShapeDtypeStruct((), np.int32)
  rows = jax.ShapeDtypeStruct((config.detect.score_batch,), np.int32)
  each = jax.ShapeDtypeStruct((num_machines, *rows.shape), rows.dtype)
  calls = {
    "init": (programs.init, (jax.ShapeDtypeStruct((num_machines,), np.uint32),)),
    "with_params": (programs.with_params, (state, state.params)),
    "run": (programs.run, (state, arrays, count, count)),
    "validate": (programs.validate, (state, arrays)),
    "clear_report": (programs.clear_report, (state,)),
    "score": (make_forward(config, NUM_METRICS, mesh), (state.params, arrays.values, rows)),
    "shares": (make_shares(config, NUM_METRICS, mesh), (state.params, arrays.values, each)),
  }
  exported = {}
  for name, (program, shapes) in calls.items():
    exported[name] = jax.export.export(program, platforms=[platform])(*shapes)
    assert exported[name].platforms == (platform,)
  return {name: found.mlir_module() for name, found in exported.items()}


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("attention", [Attention.STATIC, Attention.GATV2])
def test_every_program_lowers(platform: str, attention: Attention) -> None:
  for name, text in lowered(platform, attention=attention.value).items():
    assert "custom_call" not in re.sub(r"@(Sharding|SPMD\w+|shape_assertion)", "", text) or name == "init", name


PRECISE = {
  MatmulPrecision.PLATFORM: "precision = [DEFAULT, DEFAULT]",
  MatmulPrecision.FLOAT32: "precision = [HIGHEST, HIGHEST]",
  MatmulPrecision.TENSORFLOAT32: "precision = [HIGH, HIGH]",
  MatmulPrecision.BFLOAT16: "lhs_precision_type = bf16, rhs_precision_type = bf16, accumulation_type = f32",
}


@pytest.mark.parametrize(
  "matmul",
  [
    MatmulPrecision.FLOAT32,
    MatmulPrecision.BFLOAT16,
    pytest.param(MatmulPrecision.PLATFORM, marks=pytest.mark.slow),
    pytest.param(MatmulPrecision.TENSORFLOAT32, marks=pytest.mark.slow),
  ],
)
def test_the_precision_asked_for_reaches_every_product_those_of_the_gradient_too(matmul: MatmulPrecision) -> None:
  for name, text in lowered("tpu", matmul=matmul.value, attention="gatv2", linear_rows=7).items():
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    if name in ("init", "with_params", "clear_report"):
      continue
    # the linear skip's product alone is exact whatever is asked for; its input is the window's last rows
    skip = f"x{LINEAR_SIZE}xf32>"
    exact = [line for line in products if skip in line and PRECISE[MatmulPrecision.FLOAT32] in line]
    if name == "shares":  # of it the convolution and GATv2's two projections are left, traced as it is
      assert (len(products), exact) == (3, []), name
      assert all(PRECISE[matmul] in line or matmul is MatmulPrecision.PLATFORM for line in products)
      continue
    assert exact, name
    products = [line for line in products if line not in exact]
    assert len(products) > 10, name
    for line in products:
      assert PRECISE[matmul] in line or ("precision" not in line and matmul is MatmulPrecision.PLATFORM), line
