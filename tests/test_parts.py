"""The cut in time: order, gaps, shares, short splits."""

import itertools

import pytest

from mtad_jax.config import DataConfig
from mtad_jax.data.parts import split_parts

SETTINGS = DataConfig()


@pytest.mark.parametrize("num_rows", [1000, 5000, 28479])
def test_gap_is_a_window_and_shares_hold(num_rows: int) -> None:
  parts, gap = split_parts(num_rows, 60, SETTINGS)
  assert gap == 60
  assert parts.fit[0] == 60
  assert parts.check[1] == num_rows
  for before, after in itertools.pairwise(parts):
    assert after[0] - before[1] == 60
  targets = num_rows - 60 - 3 * 60
  sizes = [end - start for start, end in parts]
  assert sum(sizes) == targets
  for size, share in zip(sizes, (0.7, 0.1, 0.15, 0.05), strict=True):
    assert abs(size - share * targets) <= 3


def test_no_window_of_one_part_holds_a_target_of_another() -> None:
  window = 37
  parts, _ = split_parts(2000, window, SETTINGS)
  for mine in parts:
    touched = set(range(mine[0] - window, mine[1]))
    for other in parts:
      if other is not mine:
        assert touched.isdisjoint(range(*other))


@pytest.mark.parametrize("num_rows", [108, 109, 150, 312, 439])
def test_short_splits_shrink_the_gap_and_keep_every_part(num_rows: int) -> None:
  parts, gap = split_parts(num_rows, 100, SETTINGS)
  assert 0 < gap < 100
  assert 3 * gap <= 0.2 * num_rows
  assert all(end > start for start, end in parts)
  assert [b[0] - a[1] for a, b in itertools.pairwise(parts)] == [gap] * 3
  assert parts.check[1] == num_rows


def test_no_check_part_when_its_share_is_zero() -> None:
  settings = DataConfig(fit_share=0.75, check_share=0.0)
  parts, gap = split_parts(1000, 50, settings)
  assert gap == 50
  assert parts.check == (1000, 1000)
  assert parts.calibration[1] == 1000


def test_too_short_says_how_many_rows_are_needed() -> None:
  with pytest.raises(ValueError, match=r"has 107 rows; window_size 100 needs at least 108 rows"):
    split_parts(107, 100, SETTINGS)
