"""How a long stage tells how far it is: its loop runs over what a caller's `Track` gives back.

The stage itself prints nothing. In: the items of a loop and what is done with them. Out: the same items in the same
order; a caller at the edge shows a progress bar as they are taken.
"""

from collections.abc import Collection, Iterable
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Track(Protocol):
  """Returns the items as they are; what: is done with them, e.g. "reading"."""

  def __call__(self, items: Collection[Item], what: str) -> Iterable[Item]: ...


def untracked(items: Collection[Item], what: str) -> Iterable[Item]:
  """Returns the items; nobody watches."""
  return items
