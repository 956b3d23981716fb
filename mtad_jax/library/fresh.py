"""A detector that an adapter was given, unfitted and of its own, so that the one given stays as it is."""

from mtad_jax.library.base import BaseDetector


def fresh(detector: BaseDetector | None, kind: type[BaseDetector]) -> BaseDetector:
  """Returns an unfitted detector with the arguments of the one given; None: `kind` as it is by default.

  Raises:
    ValueError: what was given is no detector of this package.
  """
  if detector is None:
    return kind()
  if not isinstance(detector, BaseDetector):
    raise ValueError(f"detector: {detector!r} is not allowed; an MTADGAT or a RoleMixture is wanted")
  return type(detector)(**detector.get_params())
