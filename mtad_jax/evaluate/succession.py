"""Whether a newly trained run may take the place of the one in use: what both say of themselves, held side by side.

In: what is read of either work directory. Out: the reasons against, for a person; none: it may.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from scipy import stats

_CERTAINTY = 0.99  # alarms on the check part above this quantile of the promised number (Poisson) break the promise
_NAMED = 8  # machines of a reason


class RunFacts(NamedTuple):
  """What a run says of itself, by machine. losses: best validation loss, None where none was finite.

  retired: whether training gave the machine up. calibrations: calibration.json's entries.
  """

  losses: Mapping[str, float | None]
  retired: Mapping[str, bool]
  calibrations: Mapping[str, Mapping[str, Any]]


class Tolerance(NamedTuple):
  """loss_rise: by which a machine's validation loss may lie above the old one's. found_drop: share of all faults put
  into the check part that may be found less.
  """

  loss_rise: float = 0.5
  found_drop: float = 0.1


def _listed(items: list[str]) -> str:
  return ", ".join(items[:_NAMED]) + (f" and {len(items) - _NAMED} more" if len(items) > _NAMED else "")


def _sum(alive: Mapping[str, Any], field: str) -> int:
  return sum(alive.get(field, {}).values())


def _loss_reasons(old: RunFacts, new: RunFacts, rise: float) -> list[str]:
  reasons = []
  lost = [name for name, loss in new.losses.items() if loss is None and old.losses.get(name) is not None]
  if lost:
    reasons.append(f"no finite validation loss any more: {_listed(lost)}")
  worse = []
  for name, loss in new.losses.items():
    before = old.losses.get(name)
    if loss is not None and before is not None and not loss - before <= rise:
      worse.append(f"{name} {loss:.4g} (before {before:.4g})")
  if worse:
    reasons.append(f"validation loss more than {rise:g} higher: {_listed(worse)}")
  return reasons


def _fault_reasons(old: RunFacts, new: RunFacts, drop: float) -> list[str]:
  reasons, shares = [], []
  for facts in (old, new):
    alive = [entry.get("alive", {}) for entry in facts.calibrations.values()]
    injected = sum(_sum(one, "injected") for one in alive)
    shares.append(sum(_sum(one, "detected") for one in alive) / injected if injected else None)
  before, now = shares
  if before is not None and now is not None and now < before - drop:
    reasons.append(f"{now:.0%} of the faults put into the check part are found, before {before:.0%}")
  dead = []
  for name, entry in new.calibrations.items():
    known = old.calibrations.get(name, {}).get("alive")
    was_alive = known is None or _sum(known, "detected") > 0 or not _sum(known, "injected")
    alive = entry.get("alive", {})
    if was_alive and _sum(alive, "injected") and not _sum(alive, "detected"):
      dead.append(name)
  if dead:
    reasons.append(f"not one fault put into the check part is found: {_listed(dead)}")
  return reasons


def _promise_reasons(new: RunFacts) -> list[str]:
  checks = [entry["check"] for entry in new.calibrations.values()]
  promised = sum(float(check["promised_alarms"] or 0.0) for check in checks)
  alarms = sum(int(check["num_alarms"]) for check in checks)
  most = int(stats.poisson.ppf(_CERTAINTY, promised)) if promised > 0 else 0
  if alarms <= most:
    return []
  return [f"{alarms} alarms on the check parts, {promised:.3g} promised; up to {most} would keep the promise"]


def reasons_against(old: RunFacts, new: RunFacts, tolerance: Tolerance) -> list[str]:
  """Returns why the new run must not take the old one's place; none: it may.

  A machine is gone or newly retired; its validation loss rose; faults put into the check part are found less, or not
  at all on a machine where they were; the check parts raise more alarms than was promised. A machine that is new, or
  was in such a state before, is no reason.
  """
  reasons = []
  gone = [name for name in old.calibrations if name not in new.calibrations]
  if gone:
    reasons.append(f"no longer there: {_listed(gone)}")
  retired = [name for name, is_so in new.retired.items() if is_so and not old.retired.get(name, False)]
  if retired:
    reasons.append(f"newly retired in training: {_listed(retired)}")
  reasons += _loss_reasons(old, new, tolerance.loss_rise)
  reasons += _fault_reasons(old, new, tolerance.found_drop)
  return reasons + _promise_reasons(new)
