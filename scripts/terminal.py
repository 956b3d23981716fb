"""What the commands show a person: progress bars with the time left, and tables that fit on a screen.

Bars are for a terminal alone: a pipe or a log gets none. Colour likewise, and never with NO_COLOR. --quiet shows
nothing of either, --verbose every row of every table.
"""

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from program import QUIET, VERBOSE
from tqdm import tqdm

from mtad_jax.data.track import Item

MOST_ROWS = 14  # of a table; with its head, its sums and the prompt, a screen of 20 lines
BOLD, RED, DIM = "1", "31", "2"
_DELAY_S = 1.0  # what is done sooner shows no bar
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
_FIGURE = re.compile(r"[-+±]?[\d.,]+(e[-+]\d+)?[%x]?|-|not finite|from 0")


class Row(NamedTuple):
  """One line of a table. is_bad: what a person should look at first."""

  cells: tuple[str, ...]
  is_bad: bool = False


def is_watched() -> bool:
  """Returns whether progress bars have somebody to look at them."""
  return sys.stderr.isatty() and not QUIET.value


def _bar() -> dict[str, Any]:
  return {"bar_format": _BAR, "delay": _DELAY_S, "leave": False, "dynamic_ncols": True, "file": sys.stderr}


def track(items: Collection[Item], what: str) -> Iterable[Item]:
  """Returns the items, with a progress bar beside them as they are taken; a `mtad_jax.data.track.Track`."""
  if not is_watched():
    return items
  return tqdm(items, desc=what, **_bar())


@contextlib.contextmanager
def meter(what: str) -> Iterator[Callable[[int, int], None]]:
  """Yields what takes (steps done, steps in all) of a long step whose loop is elsewhere; with a bar, as `track`."""
  with tqdm(total=1, desc=what, disable=not is_watched(), **_bar()) as bar:

    def tell(done: int, total: int) -> None:
      bar.total = total
      bar.update(done - bar.n)

    yield tell


def say(line: str) -> None:
  """Prints a line at once, above a progress bar where one stands."""
  if is_watched():
    tqdm.write(line, file=sys.stdout)
  else:
    print(line)
  sys.stdout.flush()


def notice(line: str) -> None:
  """Prints a line that must be seen: like any other, and with --quiet on stderr."""
  if QUIET.value:
    print(f"warning: {line}", file=sys.stderr, flush=True)
  else:
    say(line)


def has_colour() -> bool:
  """Returns whether stdout is a terminal on which colour is wanted (no-color.org)."""
  return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, code: str) -> str:
  """Returns the text in a colour or weight (BOLD, RED, DIM), plain where there is no colour."""
  return f"\x1b[{code}m{text}\x1b[0m" if has_colour() and text else text


def _fit(line: str) -> str:
  """Returns a line that is no longer than the terminal is wide; whole where it goes elsewhere."""
  width = shutil.get_terminal_size().columns
  return line if not sys.stdout.isatty() or len(line) <= width else line[: width - 1] + "…"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
  """Returns the rows as lines, columns of figures to the right, of text to the left.

  Args:
    rows: of one length, the head first.
  """
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  right = [len(rows) > 1 and all(_FIGURE.fullmatch(row[i]) for row in rows[1:]) for i in range(len(widths))]
  return [
    "  ".join(
      cell.rjust(width) if is_right else cell.ljust(width)
      for cell, width, is_right in zip(row, widths, right, strict=True)
    ).rstrip()
    for row in rows
  ]


def table_lines(head: Sequence[str], rows: Sequence[Row], rest: str, most: int = MOST_ROWS) -> list[str]:
  """Returns a table for a person; of more than `most` rows the first, and where the others are.

  Args:
    rows: the worst first. rest: what has all of them, e.g. a file; empty: nothing has.
  """
  shown = rows if VERBOSE.value else rows[:most]
  first, *lines = aligned([head, *(row.cells for row in shown)])
  told = [paint(_fit(first), BOLD)]
  told += [paint(_fit(line), RED) if row.is_bad else _fit(line) for line, row in zip(lines, shown, strict=True)]
  return told + _more(len(rows) - len(shown), rest)


def first_lines(lines: Sequence[str], rest: str, most: int = MOST_ROWS) -> list[str]:
  """Returns the first lines, and where the others are; with --verbose all."""
  shown = list(lines) if VERBOSE.value else list(lines[:most])
  return shown + _more(len(lines) - len(shown), rest)


def _more(num: int, rest: str) -> list[str]:
  where = f"; {rest} has them all" if rest else ""
  return [paint(f"and {num} more{where} (--verbose prints them)", DIM)] if num else []
