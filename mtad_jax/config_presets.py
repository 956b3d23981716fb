"""Settings that the detectors begin from, for any data: a network or a linear forecast a machine, a mixture a role.

configs/fleet.py and configs/role_gmm.py hand them to the commands, mtad_jax/library to a program of your own.
"""

from typing import Any

from mtad_jax.config import Config, to_dict
from mtad_jax.config_choices import Detector, RunMode

SIZES = ("", "cpu")
CPU: dict[str, dict[str, Any]] = {  # a network that two cores train in minutes
  "model": {
    "window_size": 50,
    "hidden_size": 64,
    "forecast_size": 64,
    "decoder_size": 64,
    "latent_size": 16,
  },
  "train": {
    "batch_size": 64,
    "learning_rate": 2e-3,
    "final_learning_rate": 1e-4,
    "schedule": "cosine",
    "validate_every_steps": 100,
    "checkpoint_every_steps": 200,
    "log_every_steps": 20,
  },
}


def _check(size: str) -> None:
  if size not in SIZES:
    raise ValueError(f"config: {size!r} is no size; leave it out or write :cpu")


def network_settings(size: str = "") -> dict[str, Any]:
  """Returns the settings tree, as `freeze` takes it, of a network per machine.

  Args:
    size: empty (sizes for an accelerator) or "cpu".
  """
  _check(size)
  tree = to_dict(Config())
  tree["model"] |= {"hidden_size": 150, "forecast_size": 150, "decoder_size": 150, "latent_size": 18}
  if size == "cpu":
    tree["model"] |= CPU["model"]
    tree["train"] |= CPU["train"]
    tree["train"]["window_budget"] = 500_000
  return tree


def linear_settings() -> dict[str, Any]:
  """Returns the settings tree of a linear forecast per machine, fitted in closed form: the network's skip alone."""
  tree = to_dict(Config())
  tree["model"]["detector"] = Detector.LINEAR.value
  tree["model"]["run_mode"] = RunMode.FORECASTING.value
  tree["model"]["window_size"] = tree["model"]["linear_rows"]
  tree["detect"]["score_batch"] = 4096
  return tree


def mixture_settings(size: str = "") -> dict[str, Any]:
  """Returns the settings tree of a mixture per role; size: empty or "cpu", which is the same here."""
  _check(size)
  tree = to_dict(Config())
  tree["model"]["detector"] = Detector.ROLE_MIXTURE.value
  tree["model"]["run_mode"] = RunMode.RECONSTRUCTING.value  # of each metric given the others; nothing is forecast
  tree["model"]["window_size"] = 2  # a row is judged by itself; the smallest window there is
  tree["detect"]["level_limit"] = 1e9  # none: without a forecast the level is half of what is known of a fault
  tree["detect"]["score_batch"] = 1024
  return tree
