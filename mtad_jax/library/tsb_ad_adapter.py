"""The detectors in TSB-AD's runner, fitted on the series' training part and scoring all of it.

    from TSB_AD.model_wrapper import run_Semisupervise_AD
    from mtad_jax.library import tsb_ad_adapter
    tsb_ad_adapter.register()
    run_Semisupervise_AD("MTADGAT", data_train, data, window_size=50)

TSB-AD pins versions that do not go with ours: `pip install --no-deps TSB-AD` beside the extra `tsbad`.
"""

from typing import Any

import numpy as np
from TSB_AD import model_wrapper

from mtad_jax.library.detectors import MTADGAT, LinearForecast, RoleMixture


def register() -> None:
  """Adds those of `RUNNERS` to TSB-AD's pool of semi-supervised detectors; a second call does nothing."""
  for name, run in RUNNERS.items():
    setattr(model_wrapper, f"run_{name}", run)
    if name not in model_wrapper.Semisupervise_AD_Pool:
      model_wrapper.Semisupervise_AD_Pool.append(name)


def run_MTADGAT(data_train: np.ndarray, data_test: np.ndarray, **arguments: Any) -> np.ndarray:
  """Returns the scores [T] of `data_test` [T, F] by a network fitted on `data_train`; arguments: `MTADGAT`'s."""
  return MTADGAT(**arguments).fit(data_train).decision_function(data_test)


def run_LinearForecast(data_train: np.ndarray, data_test: np.ndarray, **arguments: Any) -> np.ndarray:
  """Returns the scores [T] of `data_test` [T, F] by forecasts fitted on `data_train`; arguments: its own."""
  return LinearForecast(**arguments).fit(data_train).decision_function(data_test)


def run_RoleMixture(data_train: np.ndarray, data_test: np.ndarray, **arguments: Any) -> np.ndarray:
  """Returns the scores [T] of `data_test` [T, F] by a mixture fitted on `data_train`; arguments: `RoleMixture`'s."""
  return RoleMixture(**arguments).fit(data_train).decision_function(data_test)


RUNNERS = {"MTADGAT": run_MTADGAT, "LinearForecast": run_LinearForecast, "RoleMixture": run_RoleMixture}
