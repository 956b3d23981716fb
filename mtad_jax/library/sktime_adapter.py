"""Either detector as sktime's: a series in, the rows that are anomalies out.

    from mtad_jax.library.sktime_adapter import MTADGATDetector
    MTADGATDetector(MTADGAT(window_size=20)).fit(train).predict(test)          # ilocs of rows above their threshold
    MTADGATDetector(MTADGAT(window_size=20)).fit(train).transform_scores(test)  # a score for every row

Needs the extra `sktime`.
"""

from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from sktime.detection.base import BaseDetector as SktimeDetector

from mtad_jax.library.base import BaseDetector
from mtad_jax.library.detectors import MTADGAT, RoleMixture
from mtad_jax.library.fresh import fresh, small_network


class MTADGATDetector(SktimeDetector):
  """A detector under sktime's protocol, of points.

  Args:
    detector: an `MTADGAT`, a `LinearForecast` or a `RoleMixture`, which stays unfitted; None: MTADGAT().

  After `fit`: detector_, the one that was fitted, with its threshold, labels and causes.

  Examples
  --------
  >>> import numpy as np
  >>> import pandas as pd
  >>> from mtad_jax import RoleMixture
  >>> from mtad_jax.library.sktime_adapter import MTADGATDetector
  >>> rng = np.random.default_rng(0)
  >>> train = pd.DataFrame(rng.normal(size=(200, 2)), columns=["cpu", "disk"])
  >>> test = pd.DataFrame(rng.normal(size=(50, 2)), columns=["cpu", "disk"])
  >>> test.loc[30, "cpu"] = 40.0
  >>> detector = MTADGATDetector(RoleMixture(components=1)).fit(train)
  >>> 30 in detector.predict(test)["ilocs"].tolist()
  True
  """

  _tags: ClassVar[dict[str, Any]] = {
    "authors": "the developers of mtad_jax",
    "maintainers": "the developers of mtad_jax",
    "python_dependencies": "jax",
    "task": "anomaly_detection",
    "learning_type": "unsupervised",
    "capability:multivariate": True,
    "capability:missing_values": True,
    "capability:update": False,
    "fit_is_empty": False,
    "X_inner_mtype": "pd.DataFrame",
  }

  def __init__(self, detector: BaseDetector | None = None):
    self.detector = detector
    super().__init__()

  def _fit(self, X: pd.DataFrame, y: Any = None) -> Self:
    self.detector_ = fresh(self.detector, MTADGAT).fit(X)
    return self

  def _predict(self, X: pd.DataFrame) -> pd.Series:
    return pd.Series(np.flatnonzero(self.detector_.predict(X)), dtype="int64")

  def _predict_scores(self, X: pd.DataFrame) -> pd.Series:
    rows = self.detector_.score_rows(X)
    return pd.Series(rows.score[rows.is_anomaly])

  def _transform_scores(self, X: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"scores": self.detector_.decision_function(X)}, index=X.index)

  @classmethod
  def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
    """Returns arguments for sktime's checks: a network that fits in seconds, and a mixture."""
    return [{"detector": small_network()}, {"detector": RoleMixture(components=1)}]
