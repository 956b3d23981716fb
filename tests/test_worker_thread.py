"""Work handed to a thread: order, room, errors, and what an error leaves undone."""

import threading
import time
from collections.abc import Callable

import pytest
from worker_thread import WorkerThread


def wait_until(condition: Callable[[], bool]) -> None:
  end = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < end, "waited for a minute"
    time.sleep(0.01)


def test_results_come_in_the_order_given_from_one_thread() -> None:
  threads = set()

  def work(number: int) -> int:
    threads.add(threading.current_thread().name)
    return number * number

  with WorkerThread[int]() as worker:
    for number in range(20):
      worker.do(work, number)
    assert worker.results() == [number * number for number in range(20)]
  assert len(threads) == 1
  assert threading.current_thread().name not in threads


def test_the_caller_goes_on_but_not_further_than_there_is_room() -> None:
  may_go_on, given = threading.Event(), []
  gave_all = threading.Event()

  with WorkerThread[bool](most_waiting=2) as worker:

    def give() -> None:
      for number in range(4):
        worker.do(may_go_on.wait, 60)
        given.append(number)
      gave_all.set()

    giver = threading.Thread(target=give)
    giver.start()
    wait_until(lambda: len(given) == 2)
    assert not gave_all.wait(0.2)
    assert given == [0, 1], "two are begun or waiting, the third waits for room"
    may_go_on.set()
    assert gave_all.wait(60)
    giver.join()
    assert worker.results() == [True] * 4


def test_an_error_reaches_the_caller_and_ends_the_rest() -> None:
  done = []

  def work(number: int) -> None:
    if number == 1:
      raise OSError("disk full")
    done.append(number)

  def give_all() -> None:
    with WorkerThread[None]() as worker:
      for number in range(100):
        worker.do(work, number)
      worker.results()

  with pytest.raises(OSError, match="disk full"):
    give_all()
  assert set(done) <= {0, 2, 3}, "what had room beside the failed piece, and nothing after"


def test_what_waits_is_dropped_when_the_caller_fails() -> None:
  begun, done = threading.Event(), []
  worker = WorkerThread[None]()

  def work(number: int) -> None:
    begun.set()
    wait_until(
      lambda: [each.cancelled() for each in worker._futures] == [False, True]
    )  # the block is left while the first piece is at work
    done.append(number)

  def fail() -> None:
    with worker:
      worker.do(work, 0)
      worker.do(work, 1)
      assert begun.wait(60)
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    fail()
  assert done == [0], "what was begun is ended, the rest dropped"
