"""How long dispatches to the device last: short enough that a signal is obeyed in time."""


class Pace:
  """How many steps a dispatch may hold so that it lasts about `max_s`; learnt from those before."""

  def __init__(self, max_s: float):
    self._max_s = max_s
    self._step_s: float | None = None
    self._num_seen = 0

  def num_steps(self) -> int:
    """Returns how many the next one may hold."""
    return 1 if self._step_s is None else max(1, int(self._max_s / self._step_s))

  def saw(self, num_steps: int, duration_s: float) -> None:
    """Takes how long a dispatch took."""
    self._num_seen += 1
    if self._num_seen > 1:  # the first dispatch holds the compilation
      self._step_s = max(duration_s / num_steps, 1e-6)
