"""Laws of the settings tree, and every file in configs/ loads."""

import dataclasses
import enum
import importlib
import json
from pathlib import Path
from typing import Any, get_type_hints

import ml_collections
import pytest

from mtad_jax import config as settings
from mtad_jax import config_limits as limits

CONFIG_FOLDER = Path(__file__).resolve().parent.parent / "configs"
CONFIG_NAMES = sorted(path.stem for path in CONFIG_FOLDER.glob("*.py") if path.stem != "__init__")
# Any value of the right type is allowed here: lists of names, and switches.
FREE = {
  "data.machines",
  "data.target_metrics",
  "data.exclude",
  "data.train_from",
  "data.accept_constant",
  "data.clean",
  "train.guard",
  "train.progress_bar",
  "train.tensorboard",
  "roles.components",  # a list; `check_limits` looks at its numbers
  "detect.smoothed_minutes",  # a list; `check_limits` looks at its numbers
  "detect.critical_alarms_per_week",
  "detect.warning_alarms_per_week",
}


def leaves(node: Any, path: str = "") -> dict[str, Any]:
  """Returns {path: value} of every setting."""
  found: dict[str, Any] = {}
  for field in dataclasses.fields(node):
    inner = f"{path}.{field.name}".strip(".")
    value = getattr(node, field.name)
    found.update(leaves(value, inner) if dataclasses.is_dataclass(value) else {inner: value})
  return found


def nested(path: str, value: Any) -> dict[str, Any]:
  group, name = path.split(".")
  return {group: {name: value}}


DEFAULTS = leaves(settings.Config())


def test_round_trip_of_the_defaults() -> None:
  config = settings.Config()
  assert settings.loads(settings.dumps(config)) == config
  assert settings.freeze({}) == config
  assert settings.freeze(settings.to_dict(config)) == config


def test_round_trip_of_changed_values() -> None:
  config = settings.freeze(
    {
      "data": {"machines": ["a", "b,c"], "exclude": ["*:0-10"], "clip_margin": 2},
      "model": {"run_mode": "FORECASTING", "attention": "gatv2"},
      "detect": {"rule": "gamma"},
    }
  )
  assert config.data.machines == ("a", "b,c")
  assert config.data.clip_margin == 2.0
  assert isinstance(config.data.clip_margin, float)
  assert config.model.run_mode is settings.RunMode.FORECASTING
  assert settings.loads(settings.dumps(config)) == config


def test_dumps_is_plain_json() -> None:
  tree = json.loads(settings.dumps(settings.Config()))
  assert tree["model"]["run_mode"] == "BOTH"
  assert {f"{group}.{name}" for group in tree for name in tree[group]} == set(DEFAULTS)


def test_tree_is_frozen_and_hashable() -> None:
  config = settings.Config()
  assert hash(config) == hash(settings.Config())
  with pytest.raises(dataclasses.FrozenInstanceError):
    config.data.dataset = "smd"  # type: ignore[misc]


def test_every_setting_has_a_range_a_choice_or_is_free() -> None:
  """A new setting must say what it allows, or be named free above."""
  hints = {
    f"{group}.{name}": hint
    for group, cls in get_type_hints(settings.Config).items()
    for name, hint in get_type_hints(cls).items()
  }
  enums = {path for path, hint in hints.items() if isinstance(hint, type) and issubclass(hint, enum.Enum)}
  said = [set(limits.RANGES), set(limits.CHOICES), enums, FREE]
  assert set().union(*said) == set(DEFAULTS)
  assert sum(map(len, said)) == len(DEFAULTS), "a setting is named twice"


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ({"trian": {}}, r"^config\.trian: unknown setting; known here: data, model, train, roles, detect, evaluate$"),
    ({"train": {"num_steps": 3}}, r"^config\.train\.num_steps: unknown setting; .*num_train_steps"),
    ({"train": 3}, r"^config\.train: 3 is not a group of settings$"),
    ({"train": {"batch_size": "3"}}, r"^config\.train\.batch_size: '3' is a str; a int is wanted$"),
    ({"train": {"batch_size": 3.0}}, r"^config\.train\.batch_size: 3\.0 is a float"),
    ({"train": {"batch_size": True}}, r"^config\.train\.batch_size: True is a bool"),
    ({"train": {"learning_rate": True}}, r"^config\.train\.learning_rate: True is a bool; a float is"),
    ({"data": {"clean": 1}}, r"^config\.data\.clean: 1 is a int; a bool is wanted$"),
    ({"data": {"machines": "machine-1-1"}}, r"^config\.data\.machines: 'machine-1-1' is not a list of str$"),
    ({"data": {"machines": ["a", 3]}}, r"^config\.data\.machines\[1\]: 3 is a int; a str is wanted$"),
    ({"model": {"run_mode": "forecasting"}}, r"run_mode: 'forecasting' is not allowed; choose one of FORE"),
    ({"data": {"dataset": "swat"}}, r"^config\.data\.dataset: 'swat' is not allowed; choose one of smd"),
    ({"train": {"batch_size": 0}}, r"^config\.train\.batch_size: 0 is out of range; allowed: 1 to None$"),
    ({"train": {"learning_rate": float("nan")}}, r"^config\.train\.learning_rate: nan is out of range"),
    ({"train": {"learning_rate": 0.0}}, r"^config\.train\.learning_rate: a positive number is wanted$"),
    ({"model": {"detector": "linear"}}, r"^config\.model\.run_mode: BOTH, which a linear detector cannot"),
    ({"model": {"kernel_size": 4}}, r"^config\.model\.kernel_size: 4 is even"),
    ({"detect": {"smoothed_minutes": ()}}, r"^config\.detect\.smoothed_minutes: \(\): one number or more, each 1"),
    ({"detect": {"smoothed_minutes": (4, 0)}}, r"^config\.detect\.smoothed_minutes: \(4, 0\): one number or more"),
    ({"detect": {"warning_alarms_per_week": (7.0, 2.0)}}, r"^config\.detect\.warning_alarms_per_week: \(7\.0"),
    ({"detect": {"critical_alarms_per_week": (1, 2, 0)}}, r"^config\.detect\.critical_alarms_per_week: .* falling"),
    ({"detect": {"alarm_checks": 3, "alarm_window_checks": 2}}, r"^config\.detect\.alarm_checks: 3 of .* 2 can"),
    (
      {"detect": {"warning": "insensitive", "sensitivity": "sensitive"}},
      r"^config\.detect\.warning: insensitive is 0\.5 alarms a week, critical sensitive is 1; warnings must come",
    ),
    ({"data": {"fit_share": 0.9}}, r"^config\.data: fit, validation, .* shares sum to 1\.2, not to 1$"),
    (
      {"train": {"schedule": "exponential", "final_learning_rate": 0.0}},
      r"^config\.train\.final_learning_rate: 0 cannot be reached",
    ),
  ],
)
def test_refused_by_one_line_that_names_the_field(values: dict[str, Any], message: str) -> None:
  with pytest.raises(ValueError, match=message) as caught:
    settings.freeze(values)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted(limits.RANGES))
def test_bounds_of_every_range_are_inclusive_and_held(path: str) -> None:
  low, high = limits.RANGES[path]
  kind = type(DEFAULTS[path])
  assert low is None or DEFAULTS[path] >= low
  assert high is None or DEFAULTS[path] <= high
  for bound, outwards in ((low, -1), (high, 1)):
    if bound is None:
      continue
    beyond = kind(bound + outwards * (1 if kind is int else max(abs(bound), 1) * 1e-6))
    with pytest.raises(ValueError, match=rf"^config\.{path}: .* is out of range"):
      settings.freeze(nested(path, beyond))


@pytest.mark.parametrize("path", sorted(limits.CHOICES))
def test_every_choice_is_allowed(path: str) -> None:
  for choice in limits.CHOICES[path]:
    assert leaves(settings.freeze(nested(path, choice)))[path] == choice


def test_differences_name_every_changed_field_and_no_other() -> None:
  config = settings.freeze({"train": {"batch_size": 7}, "model": {"run_mode": "FORECASTING"}})
  assert settings.differences(config, settings.Config()) == {
    "train.batch_size": (7, 256),
    "model.run_mode": (settings.RunMode.FORECASTING, settings.RunMode.BOTH),
  }
  assert settings.differences(config, config) == {}


@pytest.mark.parametrize("size", ["", "cpu"])
@pytest.mark.parametrize("name", CONFIG_NAMES)
def test_every_config_file_loads(name: str, size: str) -> None:
  module = importlib.import_module(f"configs.{name}")
  values = module.get_config(size)
  assert isinstance(values, ml_collections.ConfigDict)
  config = settings.freeze(values.to_dict())
  assert settings.loads(settings.dumps(config)) == config
  assert "--config=" in (module.__doc__ or ""), "a config file's docstring has the command that runs it"


@pytest.mark.parametrize("name", CONFIG_NAMES)
def test_every_config_file_refuses_an_unknown_size(name: str) -> None:
  with pytest.raises(ValueError, match="gigantic"):
    importlib.import_module(f"configs.{name}").get_config("gigantic")


def test_a_config_without_argument_is_the_full_size() -> None:
  for name in CONFIG_NAMES:
    module = importlib.import_module(f"configs.{name}")
    assert module.get_config().to_dict() == module.get_config("").to_dict()
