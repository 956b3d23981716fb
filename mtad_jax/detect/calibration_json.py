"""One machine's calibration as plain values, as calibration.json has it, and back, to the bit."""

import dataclasses
from typing import Any

import numpy as np

from mtad_jax.detect.calibration import Check, MachineCalibration, WarningLevel
from mtad_jax.detect.errors import model_from_json, model_to_json
from mtad_jax.detect.feature_attention import UsualAttention
from mtad_jax.detect.pot import PotFit
from mtad_jax.detect.spot import StreamSettings, stream_from_json, stream_to_json
from mtad_jax.detect.thresholds import Streaming
from mtad_jax.roles.prior import MetricPrior


def _plain(values: Any) -> dict[str, Any]:
  """Returns a NamedTuple's fields for JSON; NaN, not fitted, is null."""
  return {
    name: None if isinstance(value, float) and not np.isfinite(value) else value
    for name, value in values._asdict().items()
  }


def calibration_to_json(calibration: MachineCalibration) -> dict[str, Any]:
  """Returns one machine's entry of calibration.json; those of warning and attention only where there are any."""
  warning, streaming = calibration.warning, None
  fitted = {} if warning is None else {
    "warning": {"threshold": warning.threshold, "pot": _plain(warning.pot), "check": _plain(warning.check)}
  }
  if calibration.streaming is not None:
    start, settings = calibration.streaming
    streaming = {"start": stream_to_json(start), "settings": dataclasses.asdict(settings)}
  attention = calibration.attention
  attended = {} if attention is None else {
    "attention_mean": attention.mean.tolist(), "attention_deviation": attention.deviation.tolist()
  }
  return {
    "initial": calibration.initial,
    "threshold": calibration.threshold,
    **fitted,
    "num_rows": calibration.num_rows,
    "pooled": calibration.pooled,
    "pot": _plain(calibration.pot),
    "check": _plain(calibration.check),
    "centre": calibration.centre.tolist(),
    "prior": {name: values.tolist() for name, values in calibration.prior._asdict().items()},
    "usual": calibration.usual.tolist(),
    "errors": model_to_json(calibration.errors),
    "streaming": streaming,
    **attended,
  }


def _from_plain(values: dict[str, Any]) -> dict[str, Any]:
  return {name: float("nan") if value is None else value for name, value in values.items()}


def calibration_from_json(values: dict[str, Any]) -> MachineCalibration:
  """Returns what `calibration_to_json` wrote; null is NaN."""
  warning, streaming = None, None
  if "warning" in values:
    stored = values["warning"]
    fit, tried = PotFit(**_from_plain(stored["pot"])), Check(**_from_plain(stored["check"]))
    warning = WarningLevel(stored["threshold"], fit, tried)
  found = values.get("streaming")  # files of before it was there have none
  if found is not None:
    streaming = Streaming(stream_from_json(found["start"]), StreamSettings(**found["settings"]))
  attention = None
  if "attention_mean" in values or "attention_deviation" in values:
    moments = [np.array(values[f"attention_{name}"], np.float64) for name in UsualAttention._fields]
    attention = UsualAttention(*moments)
  return MachineCalibration(
    errors=model_from_json(values["errors"]),
    centre=np.array(values["centre"], np.float64),
    prior=MetricPrior(
      np.array(values["prior"]["floor"], np.float64),
      np.array(values["prior"]["is_ignored"], bool),
      np.array(values["prior"]["direction"], np.int64),
    ),
    usual=np.array(values["usual"], np.float64),
    initial=values["initial"],
    threshold=values["threshold"],
    pot=PotFit(**_from_plain(values["pot"])),
    num_rows=values["num_rows"],
    pooled=values["pooled"],
    check=Check(**_from_plain(values["check"])),
    warning=warning,
    streaming=streaming,
    attention=attention,
  )
