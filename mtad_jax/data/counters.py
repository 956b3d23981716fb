"""Counters (bytes since start, requests served) become rates per step.

A counter rises for ever, so its training range says nothing about tomorrow; its increments do. Across a
stretch without values the growth is divided by the steps passed and stands at the next seen row; the rows
between stay missing and are filled like any other metric, with the last rate seen.
"""

import numpy as np

RISING_SHARE = 0.5  # of the steps, that a counter exceeds
FALLING_SHARE = 1e-3  # of the steps, that it may fall in
RESET_LEVEL = 0.1  # of the value before, that a fall must land below to be a reset
MIN_STEPS = 20  # seen steps, below which nothing is called a counter


def find_counters(values: np.ndarray) -> np.ndarray:
  """Returns which metrics are counters, [F] bool.

  A counter rises in more than half of its steps, falls in at most 0.1% of them (one fall is always let pass),
  and each fall lands below 10% of the value before: a reset.

  Args:
    values: [T, F] training values, NaN where missing; steps run between values seen.
  """
  is_counter = np.zeros(values.shape[1], bool)
  for index, column in enumerate(values.T):
    seen = column[~np.isnan(column)]
    if len(seen) <= MIN_STEPS:
      continue
    steps = np.diff(seen)
    is_fall = steps < 0
    is_reset = seen[1:] < RESET_LEVEL * seen[:-1]
    is_counter[index] = (
      seen.min() >= 0
      and np.mean(steps > 0) > RISING_SHARE
      and np.sum(is_fall) <= max(1.0, FALLING_SHARE * len(steps))
      and bool(np.all(is_reset[is_fall]))
    )
  return is_counter


def _rates(column: np.ndarray, previous: float) -> np.ndarray:
  """Returns one counter's growth per step [T], NaN where it is not seen or nothing came before it."""
  has_previous = not np.isnan(previous)
  extended = np.concatenate([[previous], column]) if has_previous else column
  seen = np.flatnonzero(~np.isnan(extended))
  rates = np.full(len(extended), np.nan)
  growth = np.diff(extended[seen])
  growth = np.where(growth < 0, extended[seen][1:], growth)  # after a reset all of the new value is growth
  rates[seen[1:]] = growth / np.diff(seen)
  if has_previous:
    return rates[1:]
  if len(seen) and seen[0] + 1 < len(rates):
    # nothing came before the first value; NaN stays where the next one was not seen either
    rates[seen[0]] = rates[seen[0] + 1]
  return rates


def difference(values: np.ndarray, is_counter: np.ndarray, previous: np.ndarray | None = None) -> np.ndarray:
  """Returns the values with every counter replaced by its growth per step.

  At a reset (a fall) the growth is the new value itself. The first row, which has no row before it, repeats
  the second's. A counter's missing rows stay NaN; the growth across them is divided by the steps passed.

  Args:
    values: [T, F], NaN where missing.
    is_counter: [F] bool.
    previous: [F] the row just before the first, where it is known; None otherwise.

  Returns:
    [T, F] float64.
  """
  result = values.astype(np.float64)
  for index in np.flatnonzero(is_counter):
    before = np.nan if previous is None else float(previous[index])
    result[:, index] = _rates(values[:, index], before)
  return result
