"""MTAD-GAT for whole fleets: one program trains, scores and explains every machine at once.

The packages stand in the order of the flow, and import only what stands before them:
config    the settings
data      raw files -> a fleet in memory, cleaned, cut and scaled
model     one machine's network: convolution, two graph attentions, GRU, forecaster, VAE
train     one machine's step, mapped over the fleet; checkpoints
roles     one Gaussian mixture per role of machines
detect    scores, calibration, thresholds, events
explain   which metrics caused an event
evaluate  scores against labels, always beside their floors
alerts    the ledger of events and of what people said of them; report draws what came of it
library   `MTADGAT`, `LinearForecast`, `RoleMixture` and `load`: all of this as objects, for a program of your own
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from mtad_jax.library.detectors import MTADGAT, LinearForecast, RoleMixture, load

__all__ = ["MTADGAT", "LinearForecast", "RoleMixture", "load"]


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f"module 'mtad_jax' has no attribute {name!r}")
  from mtad_jax.library import detectors  # brings JAX, which reports and evaluations do without

  return getattr(detectors, name)


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])
