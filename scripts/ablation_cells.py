"""The ablation's rows: what each differs in from the default, and the machines that they are tried on."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

TUNING_MACHINES = ("machine-1-1", "machine-1-5", "machine-2-1", "machine-3-2")
UNTRAINED = {"train.num_train_steps": 1, "train.window_budget": 0, "train.warmup_steps": 1_000_000}
LINEAR = {"model.detector": "linear", "model.run_mode": "FORECASTING", "model.window_size": 8}  # as :linear
MIXTURE = {  # of configs/role_gmm.py, where it differs
  "model.detector": "role_mixture",
  "model.run_mode": "RECONSTRUCTING",
  "model.window_size": 2,
  "detect.level_limit": 1e9,
  "detect.score_batch": 1024,
}


class Cell(NamedTuple):
  """One row of the table.

  settings: config fields that differ. calibrate: flags of calibrate.py, for a copy of the default's run; None: a run
  of its own. begun_by: machines of the same roles, whose networks, trained first, the cell's begin with.
  """

  settings: Mapping[str, Any] = MappingProxyType({})
  calibrate: Mapping[str, Any] | None = None
  begun_by: tuple[str, ...] = ()


CELLS: dict[str, Cell] = {
  "default": Cell(),
  "skip_and_calibration_alone": Cell(LINEAR),
  "untrained_network": Cell(UNTRAINED),
  "no_attention": Cell({"model.attention": "none"}),
  "gatv2": Cell({"model.attention": "gatv2"}),
  "no_skip": Cell({"model.linear_rows": 0}),
  "forecasting_only": Cell({"model.run_mode": "FORECASTING"}),
  "reconstructing_only": Cell({"model.run_mode": "RECONSTRUCTING"}),
  "window_25": Cell({"model.window_size": 25}),
  "window_100": Cell({"model.window_size": 100}),
  "hidden_32": Cell({f"model.{name}_size": 32 for name in ("hidden", "forecast", "decoder")}),
  "hidden_128": Cell({f"model.{name}_size": 128 for name in ("hidden", "forecast", "decoder")}),
  "latent_4": Cell({"model.latent_size": 4}),
  "latent_64": Cell({"model.latent_size": 64}),
  "no_cleaning": Cell({"data.clean": False}),
  "trimmed_5_percent": Cell({"train.trimmed_share": 0.05}),
  "half_the_learning_rate": Cell({"train.learning_rate": 1e-3}),
  "warm_started": Cell(begun_by=("machine-1-2", "machine-2-2", "machine-3-3")),
  "role_mixture": Cell(MIXTURE),
  "error_floor_0_1_percent": Cell(calibrate={"error_floor": 0.001}),
  "error_floor_3_percent": Cell(calibrate={"error_floor": 0.03}),
  "standardised": Cell(calibrate={"rule": "standardised"}),
  "surprise": Cell(calibrate={"rule": "surprise"}),
  "largest_1": Cell(calibrate={"largest_metrics": 1}),
  "all_metrics": Cell(calibrate={"largest_metrics": 10_000}),
  "no_level": Cell(calibrate={"level_limit": 0}),
  "level_without_limit": Cell(calibrate={"level_limit": 1e9}),
  "one_minute": Cell(calibrate={"smoothed_minutes": 1}),
  "mean_of_10_minutes": Cell(calibrate={"smoothed_minutes": 10}),
  "up_to_256_minutes": Cell(calibrate={"smoothed_minutes": "1,4,16,64,256"}),
  "pot": Cell(calibrate={"threshold": "pot", "pot_q": 1e-4}),
}
FIGURES = (  # (head, path in evaluation.json's mean or root_cause)
  ("AP", ("mean", "detector", "average_precision")),
  ("VUS-PR", ("mean", "detector", "vus_pr")),
  ("best F1", ("mean", "detector", "oracle", "f1")),
  ("F1 pot", ("mean", "detector", "at_threshold", "pot", "f1")),
  ("HitRate@100", ("root_cause", "all_true_segments", "hit_rate_100")),
)
