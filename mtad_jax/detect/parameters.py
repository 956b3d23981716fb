"""What a run scores with: the networks of its checkpoints, or the mixtures of its roles."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from mtad_jax.config import Config
from mtad_jax.config_choices import Detector
from mtad_jax.roles.prior import MetricPrior
from mtad_jax.roles.role_models import read_role_models, stack_scorers
from mtad_jax.train.fleet_file import StoredGroup, best_params


def read_params(
  workdir: epath.PathLike,
  config: Config,
  group: StoredGroup,
  priors: Mapping[str, MetricPrior],
  step: int | None = None,
) -> tuple[Any, int, dict[str, str]]:
  """Returns (the stacked parameters of a group, the checkpoint's step, remarks by machine).

  Mixtures are of step 0 and have no remarks; the network knows nothing of the priors, by machine name.

  Raises:
    ValueError: as `best_params` and `stack_scorers`.
  """
  if config.model.detector is not Detector.ROLE_MIXTURE:
    return best_params(workdir, config, group, step)
  machines = [(machine.name, machine.role, machine.preparation.scaler) for machine in group.machines]
  return stack_scorers(read_role_models(workdir), group.number, machines, group.targets, priors), 0, {}
