"""Either detector as PyOD's: the labels are of PyOD's `contamination`, not of the detector's own threshold.

    from mtad_jax.library.pyod_adapter import MTADGATOutlier
    MTADGATOutlier(contamination=0.05, detector=MTADGAT(window_size=20)).fit(X).decision_scores_

The rows are a series: their order counts, and they are not to be shuffled. Needs the extra `pyod`.
"""

from typing import Any, Self

import numpy as np
from pyod.models.base import BaseDetector as PyODDetector

from mtad_jax.library.base import BaseDetector
from mtad_jax.library.detectors import MTADGAT
from mtad_jax.library.fresh import fresh


class MTADGATOutlier(PyODDetector):
  """A detector under PyOD's protocol.

  Args:
    contamination: share of the training rows that get the label 1, above 0 and at most .5; or a PyThresh object.
    detector: an `MTADGAT`, a `LinearForecast` or a `RoleMixture`, which stays unfitted; None: MTADGAT().

  After `fit`: detector_, the one that was fitted; its `threshold_` is the calibrated one, and its `explain` names
  causes. decision_scores_, threshold_ and labels_ are PyOD's.
  """

  def __init__(self, contamination: Any = 0.1, detector: BaseDetector | None = None):
    super().__init__(contamination=contamination)
    self.detector = detector

  def fit(self, X: Any, y: Any = None) -> Self:
    """Returns the detector fitted on rows [T, F]; y is not looked at."""
    self._set_n_classes(y)
    self.detector_ = fresh(self.detector, MTADGAT).fit(X)
    self.decision_scores_ = self.detector_.decision_scores_
    self._process_decision_scores()
    return self

  def decision_function(self, X: Any) -> np.ndarray:
    """Returns the scores [T] of rows [T, F], the larger the stranger."""
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(self, ["decision_scores_", "threshold_", "labels_"])
    return self.detector_.decision_function(X)
