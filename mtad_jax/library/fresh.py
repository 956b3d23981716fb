"""Unfitted detectors for the adapters: like the one that was given, which stays as it is, or small, for checks."""

from mtad_jax.library.base import BaseDetector
from mtad_jax.library.detectors import MTADGAT


def fresh(detector: BaseDetector | None, kind: type[BaseDetector]) -> BaseDetector:
  """Returns an unfitted detector with the arguments of the one given; None: `kind` as it is by default.

  Raises:
    ValueError: what was given is no detector of this package.
  """
  if detector is None:
    return kind()
  if not isinstance(detector, BaseDetector):
    raise ValueError(
      f"detector: {detector!r} is not allowed; an MTADGAT, a LinearForecast or a RoleMixture is wanted"
    )
  return type(detector)(**detector.get_params())


def small_network() -> MTADGAT:
  """Returns an unfitted network that fits in seconds: for other projects' checks of their protocol, not for use."""
  sizes = {"hidden_size": 4, "forecast_size": 4, "decoder_size": 4, "latent_size": 2, "kernel_size": 3}
  return MTADGAT(window_size=4, window_budget=640, settings={"model": sizes, "train": {"batch_size": 16}})
