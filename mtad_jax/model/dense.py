"""The parameters of a dense layer, for products that are formed elsewhere: batch last, or inside a loop."""

import flax.linen as nn
import jax


class DenseKernel(nn.Module):
  """Kernel [D, size] alone, as `nn.Dense` without a bias has it."""

  size: int

  @nn.compact
  def __call__(self, num_inputs: int) -> jax.Array:
    """Returns the kernel for inputs of width D = num_inputs."""
    return self.param("kernel", nn.initializers.lecun_normal(), (num_inputs, self.size))


class DenseParameters(nn.Module):
  """Kernel [D, size] and bias [size], named and drawn as those of `nn.Dense`."""

  size: int

  @nn.compact
  def __call__(self, num_inputs: int) -> tuple[jax.Array, jax.Array]:
    """Returns kernel and bias for inputs of width D = num_inputs."""
    kernel = self.param("kernel", nn.initializers.lecun_normal(), (num_inputs, self.size))
    return kernel, self.param("bias", nn.initializers.zeros, (self.size,))
