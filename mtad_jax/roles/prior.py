"""What experts know of metrics, from a small TOML file, and what it means for one machine's scaled metrics.

    [[metric]]
    name = "disk_used"      # or a pattern: "disk_*"
    role = "database"       # a pattern; left out: every role
    varies = 0.05           # departures of 5% are nothing ...
    of = "level"            # ... of its mean in training; or "range", of its range in training (the default)

    [[metric]]
    name = "uptime"
    ignore = true           # neither scored nor named

    [[metric]]
    name = "latency_*"
    only = "up"             # or "down": departures the other way are nothing

A later entry goes before an earlier one of the same metric, field by field. The file is prior.toml in the work
directory; both detectors obey it.
"""

import fnmatch
import tomllib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from mtad_jax.data.scaling import Scaler
from mtad_jax.train.workdir import PRIOR

BOTH, UP, DOWN = 0, 1, -1  # which departures of a metric matter
_DIRECTIONS = {"up": UP, "down": DOWN}
_FIELDS = ("name", "role", "varies", "of", "ignore", "only")


class Entry(NamedTuple):
  """One [[metric]] of the file; None where it says nothing."""

  name: str
  role: str
  varies: float | None
  of: str
  ignore: bool | None
  only: str | None


class MetricPrior(NamedTuple):
  """What is known of one machine's metrics.

  floor: [F] smallest deviation to measure a departure in, the machine's scaled units, 0 where nothing is known.
  is_ignored: [F] bool. direction: [F] int, `BOTH`, `UP` or `DOWN`.
  """

  floor: np.ndarray
  is_ignored: np.ndarray
  direction: np.ndarray


def know_nothing(num_metrics: int) -> MetricPrior:
  """Returns the prior of a machine of which the file says nothing."""
  return MetricPrior(np.zeros(num_metrics), np.zeros(num_metrics, bool), np.full(num_metrics, BOTH))


def of_columns(prior: MetricPrior, columns: Sequence[int]) -> MetricPrior:
  """Returns what is known of some metrics."""
  chosen = np.array(columns, np.int64)
  return MetricPrior(prior.floor[chosen], prior.is_ignored[chosen], prior.direction[chosen])


def _refuse(where: str, field: str, value: Any, allowed: str) -> ValueError:
  return ValueError(f"{where}: {field} = {value!r}: {allowed}")


def _read_entry(values: Any, where: str) -> Entry:
  if not isinstance(values, dict):
    raise ValueError(f"{where}: {values!r} is no table of fields")
  for field in values:
    if field not in _FIELDS:
      raise ValueError(f"{where}: unknown field {field!r}; known: {', '.join(_FIELDS)}")
  name, role = values.get("name"), values.get("role", "*")
  for field, value in (("name", name), ("role", role)):
    if not isinstance(value, str) or not value:
      raise _refuse(where, field, value, "a name or a pattern is wanted")
  varies, of = values.get("varies"), values.get("of", "range")
  is_number = isinstance(varies, int | float) and not isinstance(varies, bool)
  if varies is not None and not (is_number and 0 < varies < 1e6):
    raise _refuse(where, "varies", varies, "a share above 0 is wanted, .05 for 5%")
  if of not in ("range", "level"):
    raise _refuse(where, "of", of, '"range" or "level" is wanted')
  if "of" in values and varies is None:
    raise _refuse(where, "of", of, "it says nothing without varies")
  ignore, only = values.get("ignore"), values.get("only")
  if ignore is not None and not isinstance(ignore, bool):
    raise _refuse(where, "ignore", ignore, "true or false is wanted")
  if only is not None and only not in _DIRECTIONS:
    raise _refuse(where, "only", only, '"up" or "down" is wanted')
  if varies is None and ignore is None and only is None:
    raise ValueError(f"{where}: one of varies, ignore and only is wanted")
  return Entry(str(name), str(role), None if varies is None else float(varies), of, ignore, only)


def parse_prior(text: str, place: epath.PathLike) -> tuple[Entry, ...]:
  """Returns the entries of a prior file's text; raises ValueError naming `place`, the entry and the field."""
  try:
    content = tomllib.loads(text)
  except tomllib.TOMLDecodeError as error:
    raise ValueError(f"{place}: {error}") from None
  for field in content:
    if field != "metric":
      raise ValueError(f"{place}: unknown table {field!r}; known: [[metric]]")
  entries = content.get("metric", [])
  if not isinstance(entries, list):
    raise ValueError(f"{place}: metric: a list of tables is wanted, [[metric]]")
  return tuple(_read_entry(entry, f"{place}: [[metric]] {number}") for number, entry in enumerate(entries, 1))


def read_prior_text(workdir: epath.PathLike) -> str:
  """Returns the text of a work directory's prior.toml, empty where there is none."""
  path = epath.Path(workdir) / PRIOR
  return read_text(path) if path.exists() else ""


def read_text(file: epath.PathLike) -> str:
  """Returns a prior file's text; raises ValueError where it is missing or no text."""
  path = epath.Path(file)
  try:
    return path.read_text()
  except (OSError, UnicodeDecodeError) as error:
    raise ValueError(f"{path}: cannot be read: {error}") from None


def resolve_prior(
  entries: Sequence[Entry], role: str, metrics: Sequence[str], scaler: Scaler, levels: np.ndarray
) -> MetricPrior:
  """Returns what the entries mean for one machine.

  Args:
    role: the machine's. metrics: F names. scaler: of the machine's fit part.
    levels: [F] means of the fit part, scaled.
  """
  floor, is_ignored, direction = know_nothing(len(metrics))
  own_level = np.abs(levels * scaler.scale + scaler.minimum)
  for entry in entries:
    if not fnmatch.fnmatchcase(role, entry.role):
      continue
    for i, metric in enumerate(metrics):
      if not fnmatch.fnmatchcase(metric, entry.name):
        continue
      if entry.varies is not None:
        own = own_level[i] if entry.of == "level" else scaler.maximum[i] - scaler.minimum[i]
        floor[i] = entry.varies * own / scaler.scale[i]
      if entry.ignore is not None:
        is_ignored[i] = entry.ignore
      if entry.only is not None:
        direction[i] = _DIRECTIONS[entry.only]
  return MetricPrior(floor, is_ignored, direction)


def check_known(
  entries: Sequence[Entry], roles: Sequence[str], metrics: Sequence[str], place: epath.PathLike
) -> None:
  """Raises ValueError where an entry names a role or a metric that no machine has: a slip of the pen."""
  for number, entry in enumerate(entries, 1):
    for field, pattern, known in (("name", entry.name, metrics), ("role", entry.role, roles)):
      if not fnmatch.filter(known, pattern):
        shown = ", ".join(sorted(set(known))[:20])
        raise ValueError(f"{place}: [[metric]] {number}: {field} = {pattern!r} is nobody's; known: {shown}")
