"""The role mixture as scikit-learn's outlier detector: every row judged by itself, whatever its neighbours.

    from mtad_jax.library.sklearn_adapter import RoleMixtureOutlier
    RoleMixtureOutlier(contamination=0.05).fit(X).predict(X)      # -1 outlier, 1 inlier

No order of time is taken from the rows: nothing is averaged over them, no counter is differenced, nothing is cleaned.
Only where the rows are cut into a part to fit on and one to calibrate on does their order count. Needs the extra
`sklearn`.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from mtad_jax.library.detectors import RoleMixture

ROW_BY_ROW = {
  "data": {"counters": "none", "clean": False, "accept_constant": True},
  "detect": {"smoothed_minutes": (1,)},
}
_BEFORE = 2  # rows before the first that is scored: the smallest window there is, looked at by nothing


class RoleMixtureOutlier(OutlierMixin, BaseEstimator):
  """A `RoleMixture` under scikit-learn's protocol.

  Args:
    contamination: share of the training rows that are outliers, above 0 and at most .5; "auto": the threshold that
      POT finds on rows held out from the fit.
    components: numbers of components that are tried, or one. covariance: full, diagonal or tied.
    random_state: a whole number from 0.

  After `fit`: detector_, the `RoleMixture`. offset_: decision_function(X) = score_samples(X) - offset_, below 0 for
  outliers. n_features_in_, feature_names_in_ as scikit-learn has them.
  """

  def __init__(
    self,
    contamination: float | str = 0.1,
    components: int | Sequence[int] | None = None,
    covariance: str | None = None,
    random_state: int = 0,
  ):
    self.contamination = contamination
    self.components = components
    self.covariance = covariance
    self.random_state = random_state

  def fit(self, X: Any, y: Any = None) -> Self:
    """Returns the estimator fitted on rows [N, F]; y is not looked at.

    Raises:
      ValueError: a contamination out of range, or fewer than 10 rows.
    """
    is_share = isinstance(self.contamination, (int, float)) and 0 < self.contamination <= 0.5
    if self.contamination != "auto" and not is_share:
      raise ValueError(f"contamination: {self.contamination!r} is out of range; above 0 and at most .5, or 'auto'")
    rows = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
    detector = RoleMixture(
      components=self.components, covariance=self.covariance, random_seed=self.random_state, settings=ROW_BY_ROW
    )
    self.detector_ = detector.fit(rows)
    self.offset_ = -float(detector.threshold_)
    if is_share:
      self.offset_ = float(np.percentile(-self._scores(rows), 100.0 * float(self.contamination)))
    return self

  def _scores(self, rows: np.ndarray) -> np.ndarray:
    before = np.repeat(rows[:1], _BEFORE, axis=0)
    return self.detector_.decision_function(np.concatenate([before, rows]))[_BEFORE:]

  def score_samples(self, X: Any) -> np.ndarray:
    """Returns [N] the detector's scores with the sign turned: the smaller the stranger."""
    check_is_fitted(self)
    return -self._scores(validate_data(self, X, dtype=np.float64, reset=False))

  def decision_function(self, X: Any) -> np.ndarray:
    """Returns [N], below 0 for outliers."""
    return self.score_samples(X) - self.offset_

  def predict(self, X: Any) -> np.ndarray:
    """Returns [N] int: -1 for outliers, 1 for inliers."""
    return np.where(self.decision_function(X) < 0, -1, 1)
