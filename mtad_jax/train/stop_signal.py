"""SIGTERM and SIGINT as a request: the dispatch in flight ends, the state is saved, the program leaves."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
  """Yields an event that SIGTERM and SIGINT set, in place of ending the process."""
  stop = threading.Event()
  if threading.current_thread() is not threading.main_thread():
    yield stop  # only the main thread may set handlers
    return
  before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
  for number in before:
    signal.signal(number, lambda *_: stop.set())
  try:
    yield stop
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
