"""The edge that every command shares: flags in, one clear line and an exit code out.

0 fine, 1 a failure told in one line, 2 wrong usage, 3 every machine retired, 75 stopped by SIGTERM or SIGINT and
to be run again. MTAD_TRACEBACK=1 in the environment shows the traceback behind a failure's line.

Every command has --help, --quiet and --verbose from here.
"""

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import help_text
from absl import app, flags, logging

_MISSING = re.compile(r"flag --(\w+)=None: Flag --\1 must have a value other than None\.")  # absl's words
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_ALL_RETIRED = 3
EXIT_STOPPED = 75

QUIET = flags.DEFINE_bool("quiet", False, "nothing on stdout, no progress: errors and warnings alone, on stderr")
VERBOSE = flags.DEFINE_bool("verbose", False, "every machine and line, where else the worst are shown")


class UsageError(Exception):
  """Wrong flags or settings; ends the program with exit code 2."""


def fail(message: str, code: int = EXIT_FAILURE) -> NoReturn:
  """Prints one line to stderr and leaves with `code`."""
  print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
  sys.exit(code)


def _last_line(error: Exception) -> str:
  """Returns an error's message; of one that carries a traceback, as ml_collections' do, the line that tells."""
  text = str(error).strip("'\" \n")
  text = text.splitlines()[-1] if "Traceback (most recent call last)" in text else text
  return _MISSING.sub(r"--\1 is needed;", text).rstrip(".;")


def _parse(arguments: Sequence[str], docstring: str) -> list[str]:
  if help_text.is_wanted(arguments):
    print(help_text.help_text(docstring, arguments[0]))
    sys.exit(0)
  try:
    return flags.FLAGS(arguments)
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    fail(f"{_last_line(error)}; --help shows examples", EXIT_USAGE)


def _check_voice() -> None:
  """Raises UsageError where --quiet is given beside what asks for words."""
  for name in ("verbose", "json"):
    if QUIET.value and name in flags.FLAGS and flags.FLAGS[name].value:
      raise UsageError(f"--quiet and --{name}: one of them, not both")


@contextlib.contextmanager
def _voice() -> Iterator[None]:
  """With --quiet, what is printed goes nowhere; stderr stays."""
  if not QUIET.value:
    yield
    return
  with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
    yield


@contextlib.contextmanager
def _signals_as_interrupts() -> Iterator[None]:
  """SIGTERM and SIGINT end the block alike, so that what is half-written is taken away. Training has its own way."""

  def interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt

  before: dict[signal.Signals, Any] = {}
  if threading.current_thread() is threading.main_thread():  # only there may handlers be set
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
  try:
    yield
  except KeyboardInterrupt:
    for number in before:
      signal.signal(number, signal.SIG_IGN)  # a second one must not cut the leaving short
    raise
  finally:
    for number, handler in before.items():
      if signal.getsignal(number) is interrupt:
        signal.signal(number, handler)


def run(main: Callable[..., int | None], *, takes_words: bool = False) -> None:
  """Parses the flags, runs `main` and leaves with its exit code; a failure is one line, never a traceback.

  Args:
    takes_words: `main` is given the words of the command line that are no flags, wherever they stand among them.
  """
  flags.FLAGS.set_gnu_getopt(True)  # a stray word must not hide the flags behind it

  def guarded(arguments: Sequence[str]) -> int:
    if len(arguments) > 1 and not takes_words:
      fail(f"unexpected argument {arguments[1]!r}; every option is a flag: --name=value", EXIT_USAGE)
    logging.set_verbosity(logging.WARNING)
    try:
      _check_voice()
      with _signals_as_interrupts(), _voice():
        return (main(*arguments[1:]) if takes_words else main()) or 0
    except UsageError as error:
      fail(str(error), EXIT_USAGE)
    except (ValueError, OSError) as error:
      if os.environ.get("MTAD_TRACEBACK"):
        raise
      fail(str(error), EXIT_FAILURE)
    except RuntimeError as error:
      # jax's own: memory of the device used up, another process of the run gone
      if os.environ.get("MTAD_TRACEBACK") or not type(error).__module__.startswith("jax"):
        raise
      fail(f"the device or another process of the run failed: {error}", EXIT_FAILURE)
    except KeyboardInterrupt:
      fail("interrupted; run the same command again", EXIT_STOPPED)

  docstring = main.__globals__["__doc__"] or ""
  app.run(guarded, flags_parser=lambda arguments: _parse(arguments, docstring))
