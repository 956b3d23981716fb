"""The settings tree: frozen dataclasses, every default once.

A config file builds a `Config`, hands it to ml_collections as a ConfigDict so that flags can override
fields, and `freeze` turns the result back into the tree, refusing unknown names, wrong types and values
out of range by one line. Everything after that reads the frozen tree.
"""

import dataclasses
import enum
import json
import typing
from typing import Any, get_args, get_origin, get_type_hints

from mtad_jax.config_choices import Attention, Covariance, Detector, MatmulPrecision, RunMode, ScoringRule
from mtad_jax.config_limits import check_limits


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Where series come from and how they are made fit for the network."""

  dataset: str = "folder"  # smd, smap, msl, folder, simulated
  machines: tuple[str, ...] = ()  # only these; empty: all
  target_metrics: tuple[str, ...] = ()  # names, or indices from 0 as text; empty: all
  exclude: tuple[str, ...] = ()  # MACHINE:START-END rows or MACHINE:TIME/TIME; MACHINE may be *
  train_from: tuple[str, ...] = ()  # first training ROW or TIME, of all machines, or MACHINE:ROW, MACHINE:TIME
  sampling_step_s: float = 0.0  # seconds; 0: the median step of the training timestamps
  max_filled_share: float = 0.5  # a window with a larger share of filled values is neither trained on nor scored
  accept_constant: bool = False  # a machine whose every metric is constant is trained on all the same
  counters: str = "auto"  # auto: ever-rising metrics are differenced; none: left as they are
  clean: bool = True  # spectral residual on the fit part
  clean_threshold: float = 3.0  # (S - mean S) / mean S (Zhao et al. 2020)
  scale_floor: float = 1e-3  # smallest divisor, as a share of the largest magnitude a metric had in training
  clip_margin: float = 4.0  # scaled values are clipped to [-margin, 1 + margin]
  fit_share: float = 0.70  # shares of the training split, in time order
  validation_share: float = 0.10
  calibration_share: float = 0.15
  check_share: float = 0.05


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Sizes of the network; those that follow from the data are not here. Defaults: the paper's."""

  detector: Detector = Detector.MTAD_GAT
  run_mode: RunMode = RunMode.BOTH
  attention: Attention = Attention.STATIC
  matmul: MatmulPrecision = MatmulPrecision.PLATFORM
  window_size: int = 100  # rows
  linear_rows: int = 8  # last rows that a linear forecast beside the network's is made from; 0: the paper, without;
  # detector linear: the whole window
  kernel_size: int = 7  # rows of the convolution, odd
  attention_size: int = 0  # width of GATv2's projections; 0: twice the node's own length
  leaky_slope: float = 0.2
  hidden_size: int = 300  # GRU
  forecast_size: int = 300  # each dense layer of the forecaster
  forecast_layers: int = 3
  latent_size: int = 300
  decoder_size: int = 300  # dense layer of the VAE's decoder
  log_variance_min: float = -10.0  # of the latent code, natural log
  log_variance_max: float = 10.0
  variance_floor: float = 1e-4  # of the reconstruction, scaled units squared: 1% of the range; 0: off, unsafe


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """Optimiser, length, and what is written when."""

  random_seed: int = 0
  num_train_steps: int = 10_000
  window_budget: int = 0  # when > 0, overrides num_train_steps: windows seen by the whole fleet
  batch_size: int = 256  # windows per machine and step
  machines_per_block: int = 0  # at most so many machines on the device at once; 0: all of equal metrics
  learning_rate: float = 1e-3
  final_learning_rate: float = 1e-3  # reached after the last step
  schedule: str = "linear"  # from learning_rate to final_learning_rate: linear, cosine, exponential
  warmup_steps: int = 0
  trimmed_share: float = 0.0  # of a step's windows: those of largest loss are left out of it, as anomalies in the
  # training data would be; 0: none
  clip_gradients: float = 1.0  # global norm, per machine; 0: off
  kl_weight: float = 1.0
  guard: bool = True  # off, for measuring what it costs: the first bad step stays in the parameters
  spike_factor: float = 30.0  # deviations above the running median loss that make a step a spike; 0: no such test
  spike_history: int = 64  # losses that the median and deviation are taken over
  max_skipped_in_a_row: int = 5  # bad steps that lead to a rollback
  max_rollbacks: int = 10  # the next one retires the machine
  snapshot_every_steps: int = 50  # good steps between the states that a rollback leads to
  rollback_rate_cut: float = 0.5  # factor of the learning rate at a rollback
  rate_recovery_steps: int = 200  # good steps that take one cut back; doubled by every further rollback
  validate_every_steps: int = 100
  validation_windows: int = 512  # evenly spaced over the validation part, per machine, at most
  patience: int = 0  # validations without a better one before a machine stops; 0: never
  log_every_steps: int = 20
  checkpoint_every_steps: int = 500
  checkpoints_to_keep: int = 3
  max_dispatch_s: float = 1.0  # a dispatch to the device lasts about this long
  progress_bar: bool = True
  tensorboard: bool = False


@dataclasses.dataclass(frozen=True)
class RolesConfig:
  """The role mixtures, where model.detector is role_mixture."""

  components: tuple[int, ...] = (1, 2, 4, 8, 16)  # numbers that are tried; BIC chooses
  covariance: Covariance = Covariance.FULL
  restarts: int = 2  # starts of each number of components
  concentration: float = 1.0  # Dirichlet's alpha of the weights; 1: no prior
  deviation_floor: float = 0.01  # what every metric may vary by given the others, as a share of its range in the role
  max_steps: int = 50  # of EM
  tolerance: float = 5e-3  # EM ends when a step gains less log posterior a row
  search_rows: int = 2000  # of a role, on which starts and numbers of components are tried
  batch_rows: int = 20_000  # a role with more rows climbs in batches of so many
  passes: int = 1  # over all rows, where there are batches


@dataclasses.dataclass(frozen=True)
class DetectConfig:
  """Scoring, thresholds and events."""

  rule: ScoringRule = ScoringRule.JOINT
  largest_metrics: int = 3  # rule joint: the metrics whose scores are summed, the largest of a row
  level_limit: float = 10.0  # rule joint: deviations that the level's departure counts for at most, so that a metric
  # whose level has moved for good does not drown what happens after; 0: the level does not count
  smoothed_minutes: tuple[int, ...] = (1, 4, 16, 64)  # rule joint: a row's score is the mean of the means over so
  # long, up to itself: the first sees a fault at once, the last holds on while it lasts; without a clock, rows
  gamma: float = 0.8  # the other rules: weight of the reconstruction beside the forecast (paper)
  error_floor: float = 0.01  # smallest deviation that a metric's error is measured in, scaled units
  min_calibration_rows: int = 500  # below, standardised errors are pooled over the role
  initial_quantile: float = 0.98  # where POT's tail begins
  threshold: str = "pot"  # pot: extreme values; conformal: a rank of the calibration scores; spot: POT's, fitted on
  # as the scores come; dspot: spot above the level that the scores have of late
  level_minutes: int = 2880  # dspot: the level is an exponential mean over so long; without a clock, rows
  learn_minutes: int = 1440  # dspot: an alarm that lasts longer moves the level, or it would last for ever
  pot_q: float = 1e-4  # promised share of alarm rows on normal data
  alarms_per_week: float = 0.0  # in place of pot_q: promised alarms of a machine in a week of normal data; 0: pot_q
  sensitivity: str = "given"  # of critical events: sensitive, normal, insensitive; given: alarms_per_week or pot_q
  warning: str = "off"  # a second level below it: sensitive, normal, insensitive
  critical_alarms_per_week: tuple[float, ...] = (1.0, 0.25, 0.05)  # of a machine: sensitive, normal, insensitive
  warning_alarms_per_week: tuple[float, ...] = (7.0, 2.0, 0.5)
  merge_gap_rows: int = 5  # alarms closer than this are one event
  min_event_rows: int = 1
  alarm_checks: int = 1  # an event begins where so many ...
  alarm_window_checks: int = 1  # ... of so many scored rows, the last one among them, are above the threshold
  release_ratio: float = 1.0  # an event goes on until the score falls to this share of the threshold
  cooldown_rows: int = 0  # what would begin within so many rows after an event's end goes on with that event
  event_margin_rows: int = 20  # rows around an event kept in metric_scores.parquet
  score_batch: int = 256  # windows per machine and dispatch


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
  """Tolerances of the evaluation; none of them changes a score."""

  early_hit_rows: int = 0  # an alarm this long before a segment counts for it
  delay_limit_rows: int = 0  # a hit later than this after a segment's start does not count; 0: no limit
  random_seed: int = 0  # of the random floor
  pca_variance: float = 0.9  # share kept by the PCA floor
  vus_buffer_rows: int = 100  # widest buffer around a true segment in VUS-PR and VUS-ROC


@dataclasses.dataclass(frozen=True)
class Config:
  """All settings of one run."""

  data: DataConfig = DataConfig()
  model: ModelConfig = ModelConfig()
  train: TrainConfig = TrainConfig()
  roles: RolesConfig = RolesConfig()
  detect: DetectConfig = DetectConfig()
  evaluate: EvaluateConfig = EvaluateConfig()


def to_dict(config: Any) -> dict[str, Any]:
  """Returns the tree as plain dicts, tuples, numbers and text, ready for JSON."""
  result: dict[str, Any] = {}
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      result[field.name] = to_dict(value)
    elif isinstance(value, enum.Enum):
      result[field.name] = value.value
    else:
      result[field.name] = value
  return result


def _convert(value: Any, wanted: Any, path: str) -> Any:
  """Returns `value` as the type `wanted`; raises ValueError naming the field otherwise."""
  if get_origin(wanted) is tuple:
    item_type = get_args(wanted)[0]
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
      raise ValueError(f"config.{path}: {value!r} is not a list of {item_type.__name__}")
    return tuple(_convert(item, item_type, f"{path}[{i}]") for i, item in enumerate(value))
  if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
    try:
      return wanted(value)
    except ValueError:
      allowed = ", ".join(member.value for member in wanted)
      raise ValueError(f"config.{path}: {value!r} is not allowed; choose one of {allowed}") from None
  if wanted is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if type(value) is not wanted:
    raise ValueError(f"config.{path}: {value!r} is a {type(value).__name__}; a {wanted.__name__} is wanted")
  return value


def _build(cls: type, values: Any, path: str) -> Any:
  if not isinstance(values, dict):
    raise ValueError(f"config.{path}: {values!r} is not a group of settings")
  hints = get_type_hints(cls)
  unknown = sorted(set(values) - set(hints))
  if unknown:
    name = ".".join(filter(None, [path, unknown[0]]))
    raise ValueError(f"config.{name}: unknown setting; known here: {', '.join(hints)}")
  built = {}
  for name, value in values.items():
    inner = ".".join(filter(None, [path, name]))
    wanted = hints[name]
    if dataclasses.is_dataclass(wanted):
      built[name] = _build(typing.cast(type, wanted), value, inner)
    else:
      built[name] = _convert(value, wanted, inner)
  return cls(**built)


def freeze(values: dict[str, Any]) -> Config:
  """Returns the checked, frozen tree from plain nested dicts (missing fields take their defaults).

  Raises:
    ValueError: an unknown name, a wrong type or a value out of range; the message names the field.
  """
  config = _build(Config, values, "")
  check_limits(config)
  return config


def dumps(config: Config) -> str:
  """Returns the tree as JSON text; `loads` is its inverse."""
  return json.dumps(to_dict(config), indent=2)


def loads(text: str) -> Config:
  """Returns the tree from `dumps`'s text; raises ValueError as `freeze` does."""
  return freeze(json.loads(text))


def differences(config: Any, reference: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
  """Returns {field path: (value here, value there)} for every field in which the two trees differ."""
  found: dict[str, tuple[Any, Any]] = {}
  for field in dataclasses.fields(config):
    here, there = getattr(config, field.name), getattr(reference, field.name)
    inner = ".".join(filter(None, [path, field.name]))
    if dataclasses.is_dataclass(here):
      found.update(differences(here, there, inner))
    elif here != there:
      found[inner] = (here, there)
  return found
