"""Where training begins: every form, the laws of leaving rows out, and every way of writing it wrong."""

import dataclasses
from pathlib import Path

import fleets
import numpy as np
import pytest
import tiny
from fleets import TINY, refused, run_here

from mtad_jax.data.fleet import part_rows, prepare_groups
from mtad_jax.data.machine import Machine, Series
from mtad_jax.data.preparation import fit_preparation
from mtad_jax.data.train_from import check_machines, first_training_row, parse_beginnings
from mtad_jax.evaluate.floors import floor_scores
from mtad_jax.train.export import _own_config

TIMES = np.datetime64("2024-01-01T00:00", "ms") + np.arange(48) * np.timedelta64(1, "h")


@pytest.mark.parametrize(
  ("texts", "row"),
  [
    ([], 0),
    (["5"], 5),
    (["web:7"], 7),
    (["*:7"], 7),
    (["db:9"], 0),
    (["5", "web:3"], 3),  # its own goes before that of all, in any order
    (["web:3", "5"], 3),
    (["2024-01-01T02:00"], 2),
    (["2024-01-01T01:30"], 2),
    (["web:2024-01-02"], 24),
    (["2024-01-01T04:00+02:00"], 2),
    (["web:2023-06-01"], 0),
  ],
)
def test_the_first_row(texts: list[str], row: int) -> None:
  assert first_training_row(parse_beginnings(texts), "web", 48, TIMES) == row


@pytest.mark.parametrize(
  ("texts", "message"),
  [
    (["soon"], "train_from 'soon' is not understood; wanted ROW, TIME"),
    ([":5"], "train_from ':5' is not understood"),
    (["web:"], "is not understood"),
    (["web:-3"], "is not understood"),
    (["5", "*:6"], r"train_from '\*:6': all machines has '5' already"),
    (["web:5", "web:6"], "train_from 'web:6': machine web has 'web:5' already; one is wanted"),
  ],
)
def test_wrong_texts_are_refused(texts: list[str], message: str) -> None:
  with pytest.raises(ValueError, match=message):
    parse_beginnings(texts)


def test_beginnings_that_do_not_fit_a_machine_are_refused() -> None:
  with pytest.raises(ValueError, match=r"no machine is called 'wbe'; known: db, web or \*"):
    check_machines(parse_beginnings(["wbe:5"]), ["web", "db"])
  with pytest.raises(ValueError, match=r"machine web has no timestamps; give a row, web:ROW"):
    first_training_row(parse_beginnings(["2024-01-01"]), "web", 48, None)
  with pytest.raises(ValueError, match="train_from '48': none of the 48 training rows of machine web comes so late"):
    first_training_row(parse_beginnings(["48"]), "web", 48, None)
  config = tiny.make_config(data={"train_from": ["machine-9:3"]})
  with pytest.raises(ValueError, match="no machine is called 'machine-9'"):
    prepare_groups([tiny.make_machine("machine-0", 200, seed=0)], config)
  config = tiny.make_config(data={"train_from": ["190"]})
  with pytest.raises(ValueError, match="machine machine-0, train: training split has 10 rows; window_size 8 needs"):
    prepare_groups([tiny.make_machine("machine-0", 200, seed=0)], config)


@pytest.mark.parametrize("timed", [False, True])
def test_leaving_rows_out_equals_a_file_that_begins_later(timed: bool) -> None:
  """The same statistics, values and parts, moved by the rows left out; no window reaches across."""
  raw, first = tiny.make_machine("machine-0", 400, seed=3), 130
  times = np.datetime64("2024-01-01", "ms") + np.arange(400) * np.timedelta64(5, "m") if timed else None
  raw.train.values[:first] *= 40  # another regime
  whole = raw._replace(train=Series(raw.train.values, times))
  cut = raw._replace(train=Series(raw.train.values[first:], None if times is None else times[first:]))
  settings = tiny.make_config().data
  text = str(times[first]) if timed else str(first)
  begun = dataclasses.replace(settings, train_from=(text,), exclude=("machine-0:250-260",))
  found, split, parts, notes = fit_preparation(whole, 8, begun)
  wanted = fit_preparation(cut, 8, dataclasses.replace(settings, exclude=("machine-0:120-130",)))
  np.testing.assert_array_equal(found.scaler.scale, wanted[0].scaler.scale)
  np.testing.assert_array_equal(split.values[first:], wanted[1].values)
  np.testing.assert_array_equal(split.usable, np.concatenate([np.zeros(first, bool), wanted[1].usable]))
  assert parts == tuple((a + first, b + first) for a, b in wanted[2])
  assert (notes["first_row"], notes["excluded_rows"], notes["gap_rows"]) == (first, 10, wanted[3]["gap_rows"])
  group = prepare_groups([whole], tiny.make_config(data={"train_from": [text]}))[0]
  rows = part_rows(group.machines[0], "fit", 8, settings)
  assert rows[0] == first + 8


def test_the_floors_leave_the_same_rows_out() -> None:
  raw = tiny.make_machine("machine-0", 300, seed=1)
  raw.train.values[:100] *= 40
  config = tiny.make_config(data={"train_from": ["machine-0:100"]})
  cut = Machine(raw.name, raw.role, raw.metrics, Series(raw.train.values[100:]), raw.test)
  names = ("training_range", "pca_error")
  found, wanted = floor_scores(raw, config, 0, names), floor_scores(cut, tiny.make_config(), 0, names)
  for name in names:
    np.testing.assert_array_equal(found[name], wanted[name])


def test_a_machine_exported_alone_keeps_its_own_beginning() -> None:
  config = tiny.make_config(data={"train_from": ["machine-0:3", "machine-1:5", "2"]})
  assert _own_config(config, "machine-1", 2).data.train_from == ("machine-1:5", "2")


@pytest.mark.slow
def test_the_flag_is_told_kept_and_part_of_the_run(tmp_path: Path) -> None:
  fleet = fleets.write_fleet(tmp_path / "fleet", ("web-1",))
  arguments = (*TINY, "--config.train.num_train_steps=2", f"--source={fleet}", f"--workdir={tmp_path / 'run'}")
  done = run_here("train.py", *arguments, "--train_from=web-1:90")
  assert done.code == 0, done.stderr
  assert "web-1 (web): 400 rows; 412 on the grid" in done.stdout
  assert "trained from row 90 on" in done.stdout
  again = run_here("train.py", *arguments)
  refused(again, 1, "data.train_from is (), there ('web-1:90',)", "Choose another --workdir")
