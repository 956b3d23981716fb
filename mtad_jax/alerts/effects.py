"""What each change did on the same annotated rows: which true and false ranges its version still raises."""

from collections.abc import Sequence
from typing import NamedTuple

from mtad_jax.alerts.ranges import Range, find_overlaps, index_ranges
from mtad_jax.alerts.records import Book
from mtad_jax.alerts.verdicts import standing


class Raised(NamedTuple):
  """Of annotated ranges that a version scored: how many there are, and how many it raises an event in."""

  num_true: int
  num_true_raised: int
  num_false: int
  num_false_raised: int


class Effect(NamedTuple):
  """A change beside the one before it, on the ranges that both scored. own: all ranges that it scored.

  before_id: the change before, None for the first, which has no `before` and `after`.
  """

  change_id: int
  own: Raised
  before_id: int | None
  before: Raised | None
  after: Raised | None


def effects(book: Book) -> list[Effect]:
  """Returns the effect of each change that scored rows, in the order of recording.

  Ranges marked true by a person who saw no alarm there count too: what a version misses is then seen.
  """
  marked = [found for found in standing(book.annotations) if found.verdict in ("true", "false")]
  ranges, is_true = [found.range for found in marked], [found.verdict == "true" for found in marked]
  scored = {
    change.id: _touched(ranges, [span.range for span in book.spans if span.change_id == change.id])
    for change in book.changes
  }
  raised = {
    change.id: _touched(ranges, [event.range for event in book.events if event.change_id == change.id])
    for change in book.changes
  }

  def count(change_id: int, of: set[int]) -> Raised:
    true = {place for place in of if is_true[place]}
    both = raised[change_id]
    return Raised(len(true), len(true & both), len(of - true), len((of - true) & both))

  result, before = [], None
  has_spans = {span.change_id for span in book.spans}
  for change in book.changes:
    if change.id not in has_spans:
      continue  # kept by a refit that was never scored with
    own = count(change.id, scored[change.id])
    if before is None:
      result.append(Effect(change.id, own, None, None, None))
    else:
      common = scored[before] & scored[change.id]
      result.append(Effect(change.id, own, before, count(before, common), count(change.id, common)))
    before = change.id
  return result


def _touched(ranges: Sequence[Range], by: Sequence[Range]) -> set[int]:
  """Returns the places of the ranges that share a row with one of `by`."""
  index = index_ranges(by)
  return {place for place, found in enumerate(ranges) if find_overlaps(index, found)}
