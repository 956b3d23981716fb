"""Work handed to a thread: order, room, errors, and what an error leaves undone."""

import threading

import pytest
from behind import Behind


def test_results_come_in_the_order_given_from_one_thread() -> None:
  threads = set()

  def work(number: int) -> int:
    threads.add(threading.current_thread().name)
    return number * number

  with Behind[int]() as behind:
    for number in range(20):
      behind.do(work, number)
    assert behind.results() == [number * number for number in range(20)]
  assert len(threads) == 1
  assert threading.current_thread().name not in threads


def test_the_caller_goes_on_but_not_further_than_there_is_room() -> None:
  may_go_on, given = threading.Event(), []
  gave_all = threading.Event()

  with Behind[bool](most_waiting=2) as behind:

    def give() -> None:
      for number in range(4):
        behind.do(may_go_on.wait, 60)
        given.append(number)
      gave_all.set()

    giver = threading.Thread(target=give)
    giver.start()
    assert not gave_all.wait(0.2)
    assert given == [0, 1], "two are begun or waiting, the third waits for room"
    may_go_on.set()
    assert gave_all.wait(60)
    giver.join()
    assert behind.results() == [True] * 4


def test_an_error_reaches_the_caller_and_ends_the_rest() -> None:
  done = []

  def work(number: int) -> None:
    if number == 1:
      raise OSError("disk full")
    done.append(number)

  def give_all() -> None:
    with Behind[None]() as behind:
      for number in range(100):
        behind.do(work, number)
      behind.results()

  with pytest.raises(OSError, match="disk full"):
    give_all()
  assert done[0] == 0
  assert len(done) < 10, "soon after the error nothing more is done"


def test_what_waits_is_dropped_when_the_caller_fails() -> None:
  begun, may_go_on, done = threading.Event(), threading.Event(), []

  def work(number: int) -> None:
    begun.set()
    may_go_on.wait(60)
    done.append(number)

  def fail() -> None:
    with Behind[None]() as behind:
      behind.do(work, 0)
      behind.do(work, 1)
      assert begun.wait(60)
      threading.Timer(0.1, may_go_on.set).start()
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    fail()
  assert done == [0], "what was begun is ended, the rest dropped"
