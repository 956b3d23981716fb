"""How exactly the network's products are formed, for the code that is traced inside, gradients included."""

import contextlib

import jax

from mtad_jax.config import ModelConfig
from mtad_jax.config_choices import MatmulPrecision

# JAX's names. The last is an algorithm, so that a GPU too multiplies bfloat16 and adds in float32.
PRECISIONS = {
  MatmulPrecision.FLOAT32: "float32",
  MatmulPrecision.TENSORFLOAT32: "tensorfloat32",
  MatmulPrecision.BFLOAT16: "BF16_BF16_F32",
}


def matmul_precision(settings: ModelConfig) -> contextlib.AbstractContextManager[None]:
  """Returns the context to trace a program of this network in: a gradient must be traced inside it as well."""
  if settings.matmul is MatmulPrecision.PLATFORM:
    return contextlib.nullcontext()
  return jax.default_matmul_precision(PRECISIONS[settings.matmul])
