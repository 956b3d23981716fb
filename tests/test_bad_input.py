"""Bad input to the commands: one clear line, exit code 1 or 2, nothing half-made and nothing lost."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import fleets
import numpy as np
import pytest
from fleets import CONFIG, TINY, WEB, WINDOW, files_of, refused, run_here, run_process, succeeded


@pytest.fixture(scope="module")
def good_fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
  return fleets.write_fleet(tmp_path_factory.mktemp("good") / "fleet")


@pytest.fixture(scope="module")
def good_run(good_fleet: Path) -> Path:
  """A trained work directory; tests that harm it take a copy."""
  workdir = good_fleet.parent / "run"
  succeeded(run_here("train.py", *TINY, f"--source={good_fleet}", f"--workdir={workdir}"))
  return workdir


@pytest.fixture
def fleet(good_fleet: Path, tmp_path: Path) -> Path:
  """A copy of the fleet to spoil."""
  return Path(shutil.copytree(good_fleet, tmp_path / "fleet"))


@pytest.fixture
def run_copy(good_run: Path, tmp_path: Path) -> Path:
  """A copy of the trained work directory to spoil."""
  return Path(shutil.copytree(good_run, tmp_path / "copy"))


def change_line(path: Path, number: int, change: Callable[[str], str]) -> None:
  """Changes line `number`, from 1."""
  lines = path.read_text().split("\n")
  lines[number - 1] = change(lines[number - 1])
  path.write_text("\n".join(lines))


def ragged(fleet: Path) -> None:
  change_line(fleet / "train" / "web-1.csv", 40, lambda line: line + ",1")


def text(fleet: Path) -> None:
  change_line(fleet / "test" / "web-2.csv", 12, lambda line: line.replace("512", "many"))


def wrong_time(fleet: Path) -> None:
  change_line(fleet / "train" / "db-1.csv", 9, lambda line: "2020-01-01T00:00:00" + line[line.index(",") :])


def truncated(fleet: Path) -> None:
  path = fleet / "train" / "old.npy"
  np.save(path, fleets.series(WEB, fleets.NUM_TRAIN, seed=0))
  path.write_bytes(path.read_bytes()[:-100])
  (fleet / "roles.csv").unlink()


def short_labels(fleet: Path) -> None:
  (fleet / "test_label").mkdir()
  (fleet / "test_label" / "web-1.txt").write_text("0\n" * (fleets.NUM_TEST - 1))


def only_tested(fleet: Path) -> None:
  shutil.copy(fleet / "test" / "web-1.csv", fleet / "test" / "web-3.csv")
  (fleet / "roles.csv").unlink()


def constant(fleet: Path) -> None:
  values = np.ones((fleets.NUM_TRAIN, len(WEB)))
  fleets.write_csv(fleet / "train" / "web-2.csv", WEB, values, fleets.minutes(fleets.NUM_TRAIN))


def no_bytes(fleet: Path) -> None:
  (fleet / "train" / "web-1.csv").write_text("")


def no_rows(fleet: Path) -> None:
  fleets.write_csv(fleet / "train" / "web-1.csv", WEB, np.zeros((0, len(WEB))), fleets.minutes(0))


def shorter_than_a_window(fleet: Path) -> None:
  values = fleets.series(WEB, WINDOW - 1, seed=0)
  fleets.write_csv(fleet / "train" / "web-2.csv", WEB, values, fleets.minutes(WINDOW - 1, late=False))


def unknown_in_roles(fleet: Path) -> None:
  (fleet / "roles.csv").write_text((fleet / "roles.csv").read_text() + "web-7,web\n")


def renamed_in_test(fleet: Path) -> None:
  change_line(fleet / "test" / "web-1.csv", 1, lambda line: line.replace("latency", "delay"))


def no_folder(fleet: Path) -> None:
  shutil.rmtree(fleet)


BAD_FLEETS: list[tuple[Callable[[Path], None], tuple[str, ...]]] = [
  (ragged, ("train/web-1.csv: row 40: 7 fields; 6 are wanted",)),
  (text, ("test/web-2.csv: row 12, column 'disk_size': 'many' is not a number",)),
  (wrong_time, ("train/db-1.csv: row 9, column 'timestamp'", "timestamps must rise")),
  (truncated, ("train/old.npy: truncated",)),
  (short_labels, ("test_label/web-1.txt: 239 labels", "test/web-1.csv has 240 rows")),
  (only_tested, ("test/web-3.csv: machine 'web-3' is in test/ but not in train/",)),
  (constant, ("machine web-2, train: all 5 metrics are constant", "at least one must move")),
  (no_bytes, ("train/web-1.csv: empty; at least one row is wanted",)),
  (no_rows, ("train/web-1.csv: no rows; at least one is wanted",)),
  (
    shorter_than_a_window,
    ("machine web-2, train: training split has 7 rows; window_size 8 needs at least 16",),
  ),
  (unknown_in_roles, ("roles.csv: row 5: no machine 'web-7'; known: db-1, web-1, web-2",)),
  (renamed_in_test, ("test/web-1.csv: metric 2 is 'delay'; the training file has 'latency' in its place",)),
  (no_folder, ("fleet: no such folder",)),
]


@pytest.mark.parametrize(("spoil", "parts"), BAD_FLEETS, ids=[spoil.__name__ for spoil, _ in BAD_FLEETS])
def test_a_bad_fleet_makes_no_work_directory(
  fleet: Path, spoil: Callable[[Path], None], parts: tuple[str, ...]
) -> None:
  spoil(fleet)
  workdir = fleet.parent / "run"
  refused(run_here("train.py", *TINY, f"--source={fleet}", f"--workdir={workdir}"), 1, *parts)
  assert not workdir.exists()


def test_a_bad_file_through_a_real_process(fleet: Path) -> None:
  """The same line and code as above, with nothing else on stderr."""
  ragged(fleet)
  done = run_process("train.py", *TINY, f"--source={fleet}", f"--workdir={fleet.parent / 'run'}")
  refused(done, 1, "train/web-1.csv: row 40: 7 fields; 6 are wanted")
  assert done.stdout == ""
  assert not (fleet.parent / "run").exists()


@pytest.mark.parametrize(
  ("arguments", "code", "parts"),
  [
    ((CONFIG, "--no_such_flag=1"), 2, ("no_such_flag",)),
    ((CONFIG, "--config.model.windowsize=3"), 2, ("windowsize",)),
    ((CONFIG, "--config.model.window_size=abc"), 2, ("window_size", "abc")),
    ((CONFIG, "--config.model.window_size=1"), 2, ("config.model.window_size: 1 is out of range",)),
    ((CONFIG, "--config.model.run_mode=GUESSING"), 2, ("run_mode", "GUESSING", "FORECASTING")),
    (("--config=configs/none_such.py",), 2, ("none_such.py",)),
    ((f"{CONFIG}x",), 2, ("'cpux' is no size",)),
    ((), 2, ("--config",)),
    ((CONFIG, "web-1"), 2, ("unexpected argument 'web-1'",)),
    ((CONFIG, "--data_dir=elsewhere"), 2, ("exactly one of --data_dir and --source",)),
    ((CONFIG, "--exclude=web-1:9-5"), 1, ("web-1:9-5",)),
    ((CONFIG, "--exclude=web-9:0-5"), 1, ("web-9",)),
    ((CONFIG, "--config.data.target_metrics=('speed',)"), 1, ("target_metrics", "'speed'", "latency")),
  ],
)
def test_wrong_usage_of_train(
  good_fleet: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, parts: tuple[str, ...]
) -> None:
  workdir = tmp_path / "run"
  refused(run_here("train.py", *arguments, f"--source={good_fleet}", f"--workdir={workdir}"), code, *parts)
  assert not workdir.exists()


def test_missing_flags() -> None:
  refused(run_here("train.py", CONFIG), 2, "--workdir")
  refused(run_here("score.py"), 2, "--workdir")


def test_wrong_usage_through_a_real_process(good_fleet: Path, tmp_path: Path) -> None:
  arguments = (
    CONFIG,
    "--config.model.windowsize=3",
    f"--source={good_fleet}",
    f"--workdir={tmp_path / 'run'}",
  )
  refused(run_process("train.py", *arguments), 2, "windowsize")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "command", ["score.py", "evaluate.py", "calibrate.py", "report.py", "inspect_checkpoint.py"]
)
def test_no_work_directory(command: str, tmp_path: Path) -> None:
  workdir = tmp_path / "nowhere"
  refused(run_here(command, f"--workdir={workdir}"), 1, str(workdir))
  assert not workdir.exists()


def unchanged(folder: Path) -> contextlib.AbstractContextManager[None]:
  """Asserts on leaving that every file under `folder` is as it was."""

  @contextlib.contextmanager
  def check() -> Iterator[None]:
    before = files_of(folder)
    yield
    after = files_of(folder)
    assert list(after) == list(before)
    assert [name for name in before if before[name] != after[name]] == []

  return check()


def test_a_work_directory_of_another_config(good_fleet: Path, good_run: Path) -> None:
  arguments = (*TINY, f"--source={good_fleet}", f"--workdir={good_run}")
  with unchanged(good_run):
    line = refused(run_here("train.py", *arguments, "--config.model.hidden_size=9"), 1, str(good_run))
    assert "another config: model.hidden_size is 9, there 8." in line
    refused(
      run_process("train.py", *arguments, "--config.train.random_seed=4"),
      1,
      "train.random_seed is 4, there 0",
    )


def test_a_work_directory_of_other_data(fleet: Path, good_run: Path) -> None:
  change_line(fleet / "train" / "web-1.csv", 60, lambda line: line[: line.rindex(",")] + ",40")
  arguments = (f"--source={fleet}", f"--workdir={good_run}")
  with unchanged(good_run):
    refused(run_here("train.py", *TINY, *arguments), 1, "fleet.json: the training data differ", "changed: web-1")
    refused(run_here("calibrate.py", *arguments), 1, "fleet.json: the training data differ")


@pytest.mark.parametrize("name", ["config.json", "run.json", "fleet.json", "calibration.json"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "another"])
def test_a_damaged_work_directory(name: str, damage: str, run_copy: Path) -> None:
  path = run_copy / name
  path.write_text({"cut": path.read_text()[:-40], "emptied": "", "another": '{"a": 1}'}[damage])
  with unchanged(run_copy):
    refused(run_here("score.py", f"--workdir={run_copy}"), 1, str(path))


def test_a_lost_checkpoint(run_copy: Path) -> None:
  shutil.rmtree(run_copy / "checkpoints" / "group-0" / str(fleets.NUM_STEPS))
  refused(run_here("score.py", f"--workdir={run_copy}"), 1, f"no step {fleets.NUM_STEPS}")
  shutil.rmtree(run_copy / "checkpoints")
  refused(run_here("score.py", f"--workdir={run_copy}"), 1, "group-0: no checkpoint")
  assert not (run_copy / "scores.parquet").exists()


def new_data(
  tmp_path: Path, name: str, metrics: tuple[str, ...], values: np.ndarray, step_s: int = 60
) -> Path:
  timestamps = np.datetime64(fleets.START, "ms") + (1000 * step_s * np.arange(len(values))).astype(
    "timedelta64[ms]"
  )
  fleets.write_csv(tmp_path / "new" / "test" / f"{name}.csv", metrics, values, timestamps)
  return tmp_path / "new"


def test_data_that_break_the_contract(good_run: Path, tmp_path: Path) -> None:
  values = fleets.series(WEB, 40, seed=3)
  common = (f"--workdir={good_run}", f"--output={tmp_path / 'out'}")
  renamed = ("cpu", "delay", *WEB[2:])
  missing = np.where(np.arange(40)[:, None] % 4 > 0, np.nan, values)
  with unchanged(good_run):
    for name, metrics, rows, step_s, parts in (
      ("web-9", WEB, values, 60, ("machine 'web-9' has no model; trained: db-1, web-1, web-2",)),
      (
        "web-1",
        renamed,
        values,
        60,
        ("machine web-1: metrics missing", "latency (is delay the same, renamed?)"),
      ),
      ("web-1", WEB[1:], values[:, 1:], 60, ("machine web-1: metrics missing that training had: cpu",)),
      ("web-1", (*WEB, "swap"), np.c_[values, values[:, 0]], 60, ("training did not have: swap",)),
      ("web-1", WEB, values, 300, ("machine web-1: sampling step is 300 s, in training it was 60 s",)),
      ("web-1", WEB, missing, 60, ("machine web-1: 75.0% of the values are missing",)),
    ):
      source = new_data(tmp_path, name, metrics, rows, step_s)
      refused(run_here("score.py", *common, f"--source={source}"), 1, *parts)
      shutil.rmtree(source)
      assert not list((tmp_path / "out").glob("*"))  # neither a table nor a half of one


def test_a_mode_that_the_model_does_not_have(good_run: Path, tmp_path: Path) -> None:
  arguments = (f"--workdir={good_run}", f"--output={tmp_path / 'out'}")
  with unchanged(good_run):
    done = run_process("score.py", *arguments, "--run_mode=FORECASTING")
    refused(done, 2, "--run_mode=FORECASTING", "trained BOTH")
    refused(run_here("score.py", *arguments, "--run_mode=GUESSING"), 2, "run_mode", "GUESSING")
    refused(run_here("score.py", *arguments, "--split=validation"), 2, "split", "validation")
  assert not (tmp_path / "out").exists()


def test_calibrate_refuses_a_wrong_quantile(good_run: Path) -> None:
  with unchanged(good_run):
    refused(run_here("calibrate.py", f"--workdir={good_run}", "--pot_q=2"), 2, "config.detect.pot_q: 2.0")
    refused(run_here("calibrate.py", f"--workdir={good_run}", "--rule=best"), 2, "config.detect.rule: 'best'")


def test_evaluate_before_score(run_copy: Path) -> None:
  for path in run_copy.glob("*.parquet"):
    path.unlink()
  with unchanged(run_copy):
    refused(run_here("evaluate.py", f"--workdir={run_copy}"), 1, "scores.parquet")


def test_a_work_directory_that_cannot_be_written(good_fleet: Path, tmp_path: Path) -> None:
  (tmp_path / "file").write_text("mine")
  arguments = (*TINY, f"--source={good_fleet}", f"--workdir={tmp_path / 'file' / 'run'}")
  refused(run_here("train.py", *arguments), 1, "file")
  assert os.listdir(tmp_path) == ["file"]
  assert (tmp_path / "file").read_text() == "mine"


def test_a_run_is_not_a_configuration(good_run: Path) -> None:
  """What a work directory holds is the resolved config: reading it back gives the flags' values."""
  stored = json.loads((good_run / "config.json").read_text())
  assert (stored["model"]["window_size"], stored["train"]["num_train_steps"]) == (WINDOW, fleets.NUM_STEPS)
