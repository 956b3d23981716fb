"""Figures of reviewed alarms: precision with its interval, false alarms by week, the causes that cover them.

precision = true / (true + false). An alarm marked expected (a real change that was planned) is neither; one that
nobody has reviewed is counted beside, and never guessed. All functions are pure.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from scipy import special

from mtad_jax.alerts.alarms import Alarm

CONFIDENCE = 0.95
MAIN_SHARE = 0.5  # an event's main causes: the fewest, best first, whose contributions come to this
MOST = 0.8  # the share of the false alarms that the covering causes are to come to


class Precision(NamedTuple):
  """Reviewed alarms. value: NaN where none is true or false; low, high: the interval, then 0 and 1."""

  num_true: int
  num_false: int
  num_expected: int
  num_open: int
  value: float
  low: float
  high: float


class Cover(NamedTuple):
  """A cause of false alarms. num_covered: false alarms that no cause before it covers; share: covered so far.

  num_true: alarms marked true that it is a main cause of, too.
  """

  role: str
  metric: str
  num_covered: int
  share: float
  num_true: int


def interval(num_true: int, num_false: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
  """Returns (low, high), the exact interval of Clopper and Pearson (1934): it covers at least as often as it says.

  low = Beta^-1(a/2; k, n - k + 1), high = Beta^-1(1 - a/2; k + 1, n - k), a = 1 - confidence, k true of n.
  """
  tail = (1 - confidence) / 2
  low = float(special.betaincinv(num_true, num_false + 1, tail)) if num_true else 0.0
  high = float(special.betaincinv(num_true + 1, num_false, 1 - tail)) if num_false else 1.0
  return low, high


def precision(verdicts: Iterable[str | None]) -> Precision:
  """Returns the figures of alarms with these verdicts; None is open."""
  counts = Counter(verdicts)
  num_true, num_false = counts["true"], counts["false"]
  value = num_true / (num_true + num_false) if num_true + num_false else float("nan")
  return Precision(
    num_true, num_false, counts["expected"], counts[None], value, *interval(num_true, num_false)
  )


def precision_by(alarms: Iterable[Alarm], key: Callable[[Alarm], str]) -> dict[str, Precision]:
  """Returns the figures of each group of alarms, by name."""
  groups: dict[str, list[str | None]] = {}
  for alarm in alarms:
    groups.setdefault(key(alarm), []).append(alarm.verdict)
  return {name: precision(groups[name]) for name in sorted(groups)}


def main_causes(alarm: Alarm) -> list[str]:
  """Returns the alarm's main causes, best first; none where the event has none."""
  causes, total = [], 0.0
  for metric, share in alarm.event.causes:
    if total >= MAIN_SHARE:
      break
    causes.append(metric)
    total += share
  return causes


def covering_causes(alarms: Sequence[Alarm], most: float = MOST) -> list[Cover]:
  """Returns the causes, of a role each, that cover `most` of the false alarms, each covering most of those left.

  Greedy set cover (Johnson 1974); ties by role and metric. False alarms without a cause are covered by none.
  """
  false = [alarm for alarm in alarms if alarm.verdict == "false"]
  left = [{(alarm.event.role, metric) for metric in main_causes(alarm)} for alarm in false]
  in_true = Counter(
    (alarm.event.role, metric) for alarm in alarms if alarm.verdict == "true" for metric in main_causes(alarm)
  )
  total, found = len(left), []
  covered = 0
  while covered < most * total:
    counts = Counter(cause for causes in left for cause in causes)
    if not counts:
      break
    best = min(counts, key=lambda cause: (-counts[cause], cause))
    left = [causes for causes in left if best not in causes]
    covered += counts[best]
    found.append(Cover(*best, counts[best], covered / total, in_true[best]))
  return found
