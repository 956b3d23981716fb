"""Exclusions: what they cover, and every way of writing them wrong."""

import numpy as np
import pytest

from mtad_jax.data.exclude import check_machines, excluded_rows, parse_exclusions

TIMES = np.datetime64("2024-01-01T00:00", "ms") + np.arange(48) * np.timedelta64(1, "h")


def test_rows_end_exclusive() -> None:
  exclusions = parse_exclusions(["machine-1-1:3-5", "other:0-9"])
  np.testing.assert_array_equal(np.flatnonzero(excluded_rows(exclusions, "machine-1-1", 10, None)), [3, 4])


def test_star_means_every_machine_and_may_exceed_a_short_one() -> None:
  exclusions = parse_exclusions(["*:8-20"])
  np.testing.assert_array_equal(np.flatnonzero(excluded_rows(exclusions, "any", 10, None)), [8, 9])


@pytest.mark.parametrize(
  ("span", "rows"),
  [
    ("2024-01-01T02:00/2024-01-01T04:00", [2, 3, 4]),
    ("2024-01-01T02:00Z/2024-01-01T02:00+00:00", [2]),
    ("2024-01-01T04:00+02:00/2024-01-01T02:30", [2]),
    ("2024-01-02/2024-01-02T01:00:00", [24, 25]),
  ],
)
def test_times_include_both_ends(span: str, rows: list[int]) -> None:
  exclusions = parse_exclusions([f"web:{span}"])
  np.testing.assert_array_equal(np.flatnonzero(excluded_rows(exclusions, "web", 48, TIMES)), rows)
  assert not excluded_rows(exclusions, "db", 48, TIMES).any()


def test_several_ranges_add_up() -> None:
  exclusions = parse_exclusions(["a:0-2", "*:5-6", "a:1-3"])
  np.testing.assert_array_equal(np.flatnonzero(excluded_rows(exclusions, "a", 8, None)), [0, 1, 2, 5])


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("web", "is not understood"),
    (":3-5", "is not understood"),
    ("web:", "is not understood"),
    ("web:five", "'five' is not a range"),
    ("web:-3-5", "is not a range"),
    ("web:5-5", "end row 5 must be above start row 5"),
    ("web:yesterday/2024-01-01", "'yesterday' is not an ISO 8601 time"),
    ("web:2024-01-02/2024-01-01", "lies before the start"),
  ],
)
def test_wrong_texts_are_refused(text: str, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    parse_exclusions([text])


def test_unknown_machine_is_refused_by_name() -> None:
  with pytest.raises(ValueError, match=r"no machine is called 'wbe'; known: db, web or \*"):
    check_machines(parse_exclusions(["wbe:0-5"]), ["web", "db"])
  check_machines(parse_exclusions(["*:0-5", "web:0-5"]), ["web", "db"])


def test_times_without_timestamps_are_refused() -> None:
  with pytest.raises(ValueError, match="machine web has no timestamps"):
    excluded_rows(parse_exclusions(["*:2024-01-01/2024-01-02"]), "web", 10, None)


def test_rows_beyond_the_split_are_refused() -> None:
  with pytest.raises(ValueError, match="machine web has only 10 training rows"):
    excluded_rows(parse_exclusions(["web:8-11"]), "web", 10, None)
