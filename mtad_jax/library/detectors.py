"""The detectors as objects: a network or a linear forecast per machine, and a Gaussian mixture per role."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mtad_jax.config_choices import Detector
from mtad_jax.config_presets import linear_settings, mixture_settings, network_settings
from mtad_jax.library.base import BaseDetector
from mtad_jax.train.workdir import read_config


class MTADGAT(BaseDetector):
  """A network per machine, all trained at once; see `BaseDetector` for what it does.

  Args:
    size: "cpu", a network that two cores train in minutes, or "", one for an accelerator. None elsewhere takes what
      configs/fleet.py has for that size; mtad_jax/config.py explains the fields.
    window_size: rows; cut to a quarter of the shortest training series, with a warning.
    run_mode: FORECASTING, RECONSTRUCTING or BOTH. attention: none, static or gatv2.
    window_budget: windows that training sees, of all machines; 0: settings' train.num_train_steps decides.
    learning_rate: the first; settings' train.final_learning_rate is the last.
    threshold: pot, conformal, spot or dspot. pot_q: promised share of alarm rows on normal data.
    roles: {machine: role}; machines of one role are pooled where they have little data of their own.
    prior: what experts know of metrics: a TOML file, or its text.
    settings: any other fields of mtad_jax/config.py, {"detect": {"rule": "density"}}.
    workdir: where the run is kept, one of the same settings and rows taken up again; None: a folder that goes with
      the detector.
    verbose: tells what train.py tells, with a progress bar on a terminal.
  """

  SETTINGS: ClassVar[Mapping[str, str]] = {
    "window_size": "model.window_size",
    "run_mode": "model.run_mode",
    "attention": "model.attention",
    "window_budget": "train.window_budget",
    "learning_rate": "train.learning_rate",
    **BaseDetector.SETTINGS,
  }

  def __init__(
    self,
    size: str = "cpu",
    window_size: int | None = None,
    run_mode: str | None = None,
    attention: str | None = None,
    window_budget: int | None = None,
    learning_rate: float | None = None,
    threshold: str | None = None,
    pot_q: float | None = None,
    random_seed: int = 0,
    roles: Mapping[str, str] | None = None,
    prior: str | os.PathLike | None = None,
    settings: Mapping[str, Any] | None = None,
    workdir: str | os.PathLike | None = None,
    verbose: bool = False,
  ):
    self.size = size
    self.window_size = window_size
    self.run_mode = run_mode
    self.attention = attention
    self.window_budget = window_budget
    self.learning_rate = learning_rate
    super().__init__(threshold, pot_q, random_seed, roles, prior, settings, workdir, verbose)

  @classmethod
  def _preset(cls, size: str) -> dict[str, Any]:
    return network_settings(size)


class LinearForecast(BaseDetector):
  """A linear autoregression per machine, fitted in closed form; see `BaseDetector` for what it does.

  Args:
    window_size: rows that a row is forecast from.
    threshold, pot_q, random_seed, roles, prior, settings, workdir, verbose: as `MTADGAT`'s; None takes what
      configs/fleet.py has for the size linear.
  """

  SETTINGS: ClassVar[Mapping[str, str]] = {"window_size": "model.window_size", **BaseDetector.SETTINGS}

  def __init__(
    self,
    window_size: int | None = None,
    threshold: str | None = None,
    pot_q: float | None = None,
    random_seed: int = 0,
    roles: Mapping[str, str] | None = None,
    prior: str | os.PathLike | None = None,
    settings: Mapping[str, Any] | None = None,
    workdir: str | os.PathLike | None = None,
    verbose: bool = False,
  ):
    self.window_size = window_size
    super().__init__(threshold, pot_q, random_seed, roles, prior, settings, workdir, verbose)

  @classmethod
  def _preset(cls, size: str) -> dict[str, Any]:
    return linear_settings()


class RoleMixture(BaseDetector):
  """One Gaussian mixture per role of machines, light and soon fitted; see `BaseDetector` for what it does.

  It scores machines that it was not fitted on too, by the mixture of the role that `roles` gives them.

  Args:
    components: numbers of components that are tried, or one; BIC chooses. covariance: full, diagonal or tied.
    threshold, pot_q, random_seed, roles, prior, settings, workdir, verbose: as `MTADGAT`'s; None takes what
      configs/role_gmm.py has.
  """

  SETTINGS: ClassVar[Mapping[str, str]] = {
    "components": "roles.components",
    "covariance": "roles.covariance",
    **BaseDetector.SETTINGS,
  }

  def __init__(
    self,
    components: int | Sequence[int] | None = None,
    covariance: str | None = None,
    threshold: str | None = None,
    pot_q: float | None = None,
    random_seed: int = 0,
    roles: Mapping[str, str] | None = None,
    prior: str | os.PathLike | None = None,
    settings: Mapping[str, Any] | None = None,
    workdir: str | os.PathLike | None = None,
    verbose: bool = False,
  ):
    self.components = components
    self.covariance = covariance
    super().__init__(threshold, pot_q, random_seed, roles, prior, settings, workdir, verbose)

  @classmethod
  def _preset(cls, size: str) -> dict[str, Any]:
    return mixture_settings(size)

  def _arguments(self) -> dict[str, Any]:
    given = super()._arguments()
    if isinstance(self.components, int):
      given["roles.components"] = (self.components,)
    return given


_KINDS: dict[Detector, type[MTADGAT | LinearForecast | RoleMixture]] = {
  Detector.MTAD_GAT: MTADGAT,
  Detector.LINEAR: LinearForecast,
  Detector.ROLE_MIXTURE: RoleMixture,
}


def load(path: str | os.PathLike) -> MTADGAT | LinearForecast | RoleMixture:
  """Returns the detector of a work directory, which stays where it is: made by `save`, by `workdir=`, or by train.py.

  Its arguments are the settings that differ from the class's own; `decision_scores_` and `labels_` are there where
  the training rows' scores are.

  Raises:
    ValueError: no work directory, or one that is damaged or not calibrated, in one line.
  """
  return _KINDS[read_config(path).model.detector].from_workdir(path)
