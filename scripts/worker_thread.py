"""A thread that works in the order given while the caller goes on: tables are written while the device computes."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, ParamSpec, TypeVar

MOST_WAITING = 2  # pieces of work begun or waiting; a machine's scored rows are held until it is done

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class WorkerThread(Generic[Result]):
  """Does what it is given in a thread; leaving the block ends the thread, with an error without what still waits."""

  def __init__(self, most_waiting: int = MOST_WAITING):
    self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="worker")
    self._room = threading.Semaphore(most_waiting)
    self._futures: list[Future[Result]] = []
    self._num_seen = 0  # those known to have ended well

  def __enter__(self) -> "WorkerThread[Result]":
    return self

  def do(self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
    """Has the thread do it after all before; waits for room, and raises what an earlier piece has raised."""
    self._room.acquire()
    self._raise_failed()
    future = self._pool.submit(work, *args, **kwargs)
    future.add_done_callback(lambda _: self._room.release())
    self._futures.append(future)

  def results(self) -> list[Result]:
    """Waits for all that was given; returns the results in order, or raises what the first failed one raised."""
    return [future.result() for future in self._futures]

  def _raise_failed(self) -> None:
    while self._num_seen < len(self._futures) and self._futures[self._num_seen].done():
      self._futures[self._num_seen].result()
      self._num_seen += 1

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
  ) -> None:
    self._pool.shutdown(wait=True, cancel_futures=kind is not None)
