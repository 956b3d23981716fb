"""One side of a comparison in a process of its own: requests and answers, one line of JSON each.

The parent sends `{"do": "train", "steps": 3}` to the child's stdin and reads one answer from its stdout, so that it
can let the sides take turns. The first line is the settings. Needs nothing but Python.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

LEAVING_S = 20.0  # how long a side that was told to leave may take


class Process:
  """A running side; `ask` sends one request and returns the answer."""

  def __init__(self, name: str, command: Sequence[str], settings: Mapping[str, Any]):
    self.name = name
    with contextlib.ExitStack() as stack:  # a pipe for stderr that nobody reads would stop the child
      self._stderr: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
      self._child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, text=True, bufsize=1
      )
      stack.pop_all()
    try:
      self.about = self._exchange(settings)
    except BaseException:
      self.close(wait_s=0)
      raise

  def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
    """Returns the answer to {"do": do, **arguments}; raises ValueError where the side failed or is gone."""
    return self._exchange({"do": do, **arguments})

  def _exchange(self, line: Mapping[str, Any]) -> dict[str, Any]:
    assert self._child.stdin is not None
    assert self._child.stdout is not None
    try:
      self._child.stdin.write(json.dumps(line) + "\n")
      self._child.stdin.flush()
      text = self._child.stdout.readline()
    except BrokenPipeError:
      text = ""
    if not text:
      raise ValueError(
        f"the side {self.name} ended with exit code {self._child.wait()}: {self._last_words()}"
      )
    answer = json.loads(text)
    if "error" in answer:
      raise ValueError(answer["error"])
    return answer

  def _last_words(self) -> str:
    self._stderr.seek(0)
    lines = self._stderr.read().decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing; was memory used up?")

  def close(self, wait_s: float = LEAVING_S) -> None:
    """Ends the side: it leaves at the end of its input, or is killed where it does not in time."""
    assert self._child.stdin is not None
    assert self._child.stdout is not None
    with contextlib.suppress(BrokenPipeError):
      self._child.stdin.close()
    try:
      self._child.wait(wait_s)
    except subprocess.TimeoutExpired:
      self._child.kill()
      self._child.wait()
    self._child.stdout.close()
    self._stderr.close()

  def __enter__(self) -> "Process":
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    self.close(0 if kind else LEAVING_S)


def serve(start: Callable[[dict[str, Any]], Any]) -> None:
  """Answers requests until the input ends: the settings first, then methods of what `start` makes of them.

  Args:
    start: called with the settings; the object's `about()` is the first answer. A ValueError or an ImportError
      becomes an answer {"error": one line}, everything else ends the process.
  """
  answers = os.fdopen(os.dup(1), "w", buffering=1)
  os.dup2(2, 1)  # what a library prints must not look like an answer
  side = None
  for line in sys.stdin:
    request = json.loads(line)
    try:
      if side is None:
        side = start(request)
        answer = side.about()
      else:
        answer = getattr(side, request.pop("do"))(**request)
    except (ImportError, ValueError) as error:
      answer = {"error": " ".join(str(error).split())}
    answers.write(json.dumps(answer) + "\n")
