"""Either detector as aeon's: a series in, its scores out.

    from mtad_jax.library.aeon_adapter import MTADGATAnomalyDetector
    MTADGATAnomalyDetector(MTADGAT(window_size=20)).fit(train, axis=0).predict(test, axis=0)

aeon takes series as [channels, time] unless axis=0 says otherwise. Needs the extra `aeon`.
"""

from typing import Any, ClassVar, Self

import numpy as np
from aeon.anomaly_detection.series.base import BaseSeriesAnomalyDetector

from mtad_jax.library.base import BaseDetector
from mtad_jax.library.detectors import MTADGAT
from mtad_jax.library.fresh import fresh, small_network


class MTADGATAnomalyDetector(BaseSeriesAnomalyDetector):
  """A detector under aeon's protocol; `predict` gives scores.

  Args:
    detector: an `MTADGAT`, a `LinearForecast` or a `RoleMixture`, which stays unfitted; None: MTADGAT().

  After `fit`: detector_, the one that was fitted, with its threshold, labels and causes.
  """

  _tags: ClassVar[dict[str, Any]] = {
    "anomaly_output_type": "anomaly_scores",
    "learning_type:unsupervised": True,
    "learning_type:semi_supervised": True,
    "capability:univariate": True,
    "capability:multivariate": True,
    "capability:missing_values": True,
    "fit_is_empty": False,
    "X_inner_type": "np.ndarray",
    "non_deterministic": False,
    "python_dependencies": "jax",
  }

  def __init__(self, detector: BaseDetector | None = None):
    self.detector = detector
    super().__init__(axis=0)

  def _fit(self, X: np.ndarray, y: Any = None) -> Self:
    self.detector_ = fresh(self.detector, MTADGAT).fit(X)
    return self

  def _predict(self, X: np.ndarray) -> np.ndarray:
    return self.detector_.decision_function(X)

  @classmethod
  def _get_test_params(cls, parameter_set: str = "default") -> dict[str, Any]:
    """Returns arguments for aeon's checks: a network that fits in seconds."""
    return {"detector": small_network()}
