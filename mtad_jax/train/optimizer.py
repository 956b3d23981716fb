"""One machine's optimiser: clip by global norm, then Adam; the learning rate is applied by the step.

The rate is a function of the machine's step, not of the optimiser's count, and is multiplied by the guard's
own scale: a schedule inside the optimiser would overwrite a rate that was cut by hand.
"""

import jax
import jax.numpy as jnp
import optax

from mtad_jax.config import TrainConfig


def make_optimizer(settings: TrainConfig) -> optax.GradientTransformation:
  """Returns the transformation from gradients to unscaled descent directions (before the rate and sign).

  Under vmap the norm is each machine's own: on a stacked tree one exploding machine would cut the others'.
  """
  parts = [optax.clip_by_global_norm(settings.clip_gradients)] if settings.clip_gradients > 0 else []
  return optax.chain(*parts, optax.scale_by_adam())


def learning_rate(step: jax.Array, num_steps: jax.Array, settings: TrainConfig) -> jax.Array:
  """Returns the rate at `step`, from learning_rate at 0 to final_learning_rate at num_steps.

  Args:
    step: [] int32, from 0. num_steps: [] int32, steps of the whole run.
    settings: `schedule` linear, cosine or exponential; the first warmup_steps rise linearly from 0.
  """
  first, last = settings.learning_rate, settings.final_learning_rate
  progress = jnp.clip(step / jnp.maximum(num_steps, 1), 0.0, 1.0)
  if settings.schedule == "cosine":
    rate = last + (first - last) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
  elif settings.schedule == "exponential":
    rate = first * (last / first) ** progress
  else:
    rate = first + (last - first) * progress
  return rate * jnp.clip((step + 1) / max(settings.warmup_steps, 1), 0.0, 1.0)
