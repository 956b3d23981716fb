"""What the settings allow: a range or a choice for every field that is not free, and rules between fields.

A setting that is wrong stops the program before anything is read, in one line that names it.
"""

from typing import Any

# field path -> (smallest, largest) allowed, inclusive; None: no bound
RANGES: dict[str, tuple[float | None, float | None]] = {
  "data.sampling_step_s": (0, None),
  "data.max_filled_share": (0, 1),
  "data.clean_threshold": (0, None),
  "data.scale_floor": (1e-12, 1),
  "data.clip_margin": (0, 1e6),
  "data.fit_share": (0.01, 1),
  "data.validation_share": (0.01, 1),
  "data.calibration_share": (0.01, 1),
  "data.check_share": (0, 1),
  "model.window_size": (2, None),
  "model.linear_rows": (0, None),
  "model.kernel_size": (1, None),
  "model.attention_size": (0, None),
  "model.leaky_slope": (0, 1),
  "model.hidden_size": (1, None),
  "model.forecast_size": (1, None),
  "model.forecast_layers": (1, None),
  "model.latent_size": (1, None),
  "model.decoder_size": (1, None),
  "model.log_variance_min": (-80, -0.1),  # 0 would divide by it
  "model.log_variance_max": (0.1, 20),  # above, a drawn code squared leaves float32
  "model.variance_floor": (0, None),
  "train.random_seed": (0, 2**31 - 1),
  "train.num_train_steps": (1, 2**31 - 1),
  "train.window_budget": (0, None),
  "train.batch_size": (1, None),
  "train.machines_per_block": (0, None),
  "train.learning_rate": (0, None),
  "train.final_learning_rate": (0, None),
  "train.warmup_steps": (0, None),
  "train.trimmed_share": (0, 0.9),
  "train.clip_gradients": (0, None),
  "train.kl_weight": (0, None),
  "train.spike_factor": (0, None),
  "train.spike_history": (4, 4096),
  "train.max_skipped_in_a_row": (1, 2**31 - 1),
  "train.max_rollbacks": (0, 2**31 - 1),
  "train.snapshot_every_steps": (1, 2**31 - 1),
  "train.rollback_rate_cut": (1e-6, 1),
  "train.rate_recovery_steps": (1, 2**31 - 1),
  "train.validate_every_steps": (1, None),
  "train.validation_windows": (1, None),
  "train.patience": (0, 2**31 - 1),
  "train.log_every_steps": (1, None),
  "train.checkpoint_every_steps": (1, None),
  "train.checkpoints_to_keep": (1, None),
  "train.max_dispatch_s": (0.01, 2.0),
  "roles.restarts": (1, None),
  "roles.concentration": (1, None),
  "roles.deviation_floor": (1e-6, None),
  "roles.max_steps": (1, None),
  "roles.tolerance": (0, None),
  "roles.search_rows": (10, None),
  "roles.batch_rows": (10, None),
  "roles.passes": (1, None),
  "detect.largest_metrics": (1, None),
  "detect.level_limit": (0, None),
  "detect.gamma": (0, None),
  "detect.error_floor": (1e-12, None),
  "detect.min_calibration_rows": (1, None),
  "detect.initial_quantile": (0.5, 0.9999),
  "detect.level_minutes": (1, None),
  "detect.learn_minutes": (0, None),
  "detect.pot_q": (1e-12, 0.5),
  "detect.alarms_per_week": (0, None),
  "detect.merge_gap_rows": (0, None),
  "detect.min_event_rows": (1, None),
  "detect.alarm_checks": (1, None),
  "detect.alarm_window_checks": (1, 1_000_000),
  "detect.release_ratio": (0.01, 1),
  "detect.cooldown_rows": (0, None),
  "detect.event_margin_rows": (0, None),
  "detect.score_batch": (1, None),
  "evaluate.early_hit_rows": (0, None),
  "evaluate.delay_limit_rows": (0, None),
  "evaluate.random_seed": (0, 2**31 - 1),
  "evaluate.pca_variance": (0.01, 1),
  "evaluate.vus_buffer_rows": (0, 10_000),
}
SENSITIVITIES = ("sensitive", "normal", "insensitive")  # as settings of alarms a week have their numbers
CHOICES: dict[str, tuple[str, ...]] = {
  "data.dataset": ("smd", "smap", "msl", "folder", "simulated"),
  "data.counters": ("auto", "none"),
  "detect.threshold": ("pot", "conformal", "spot", "dspot"),
  "detect.sensitivity": ("given", *SENSITIVITIES),
  "detect.warning": ("off", *SENSITIVITIES),
  "train.schedule": ("linear", "cosine", "exponential"),
}


def _lookup(config: Any, path: str) -> Any:
  group, name = path.split(".")
  return getattr(getattr(config, group), name)


def _check_alarms(detect: Any) -> None:
  for name in ("critical_alarms_per_week", "warning_alarms_per_week"):
    rates = getattr(detect, name)
    if len(rates) != 3 or not rates[0] > rates[1] > rates[2] > 0:
      raise ValueError(
        f"config.detect.{name}: {rates!r}: three falling numbers above 0 are wanted, of {', '.join(SENSITIVITIES)}"
      )
  if detect.alarm_checks > detect.alarm_window_checks:
    raise ValueError(
      f"config.detect.alarm_checks: {detect.alarm_checks} of alarm_window_checks {detect.alarm_window_checks}"
      " can never be above; at most as many are allowed"
    )
  if detect.warning == "off" or detect.sensitivity == "given":
    return
  warnings = detect.warning_alarms_per_week[SENSITIVITIES.index(detect.warning)]
  criticals = detect.critical_alarms_per_week[SENSITIVITIES.index(detect.sensitivity)]
  if warnings <= criticals:
    raise ValueError(
      f"config.detect.warning: {detect.warning} is {warnings:g} alarms a week, critical {detect.sensitivity} is"
      f" {criticals:g}; warnings must come more often"
    )


def check_limits(config: Any) -> None:
  """Raises ValueError where a value is out of range or two settings contradict each other.

  Args:
    config: the frozen tree, of the right types already.
  """
  for path, (low, high) in RANGES.items():
    value = _lookup(config, path)
    # written so that NaN fails too
    if not ((low is None or value >= low) and (high is None or value <= high)):
      raise ValueError(f"config.{path}: {value!r} is out of range; allowed: {low} to {high}")
  for path, choices in CHOICES.items():
    value = _lookup(config, path)
    if value not in choices:
      raise ValueError(f"config.{path}: {value!r} is not allowed; choose one of {', '.join(choices)}")
  if config.detect.warning != "off" and config.detect.threshold in ("spot", "dspot"):
    raise ValueError(
      f"config.detect.warning: {config.detect.warning!r} needs a threshold that stays: pot or conformal, not"
      f" {config.detect.threshold}"
    )
  numbers = config.roles.components
  if not numbers or min(numbers) < 1:
    raise ValueError(f"config.roles.components: {numbers!r}: one number or more, each 1 and above, is wanted")
  lengths = config.detect.smoothed_minutes
  if not lengths or min(lengths) < 1:
    raise ValueError(f"config.detect.smoothed_minutes: {lengths!r}: one number or more, each 1 and above, is wanted")
  _check_alarms(config.detect)
  data = config.data
  total = data.fit_share + data.validation_share + data.calibration_share + data.check_share
  if abs(total - 1.0) > 1e-6:
    raise ValueError(f"config.data: fit, validation, calibration and check shares sum to {total:g}, not to 1")
  if config.model.detector == "linear" and config.model.run_mode != "FORECASTING":
    raise ValueError(
      f"config.model.run_mode: {config.model.run_mode.value}, which a linear detector cannot; FORECASTING is wanted"
    )
  if config.model.kernel_size % 2 == 0:
    raise ValueError(f"config.model.kernel_size: {config.model.kernel_size} is even; an odd number is wanted")
  if config.train.learning_rate <= 0 or config.train.final_learning_rate < 0:
    raise ValueError("config.train.learning_rate: a positive number is wanted")
  if config.train.schedule == "exponential" and config.train.final_learning_rate == 0:
    raise ValueError("config.train.final_learning_rate: 0 cannot be reached by schedule 'exponential'")
