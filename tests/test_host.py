"""Where compiled programs are kept: the user's cache, another place by environment, or nowhere, which is told."""

from collections.abc import Iterator
from pathlib import Path

import host
import jax
import pytest

SETTING = "jax_compilation_cache_dir"


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
  before = jax.config.values[SETTING]
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
  jax.config.update(SETTING, None)
  yield
  jax.config.update(SETTING, before)


def test_in_the_users_cache_by_kind_of_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  host.keep_programs()
  (folder,) = (tmp_path / "mtad_jax").iterdir()
  assert jax.config.values[SETTING] == str(folder)
  assert folder.name == f"programs-{host._processor()}"
  assert list(folder.iterdir()) == []  # no trace of having tried to write


def test_the_environment_goes_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
  host.keep_programs()
  assert jax.config.values[SETTING] is None  # JAX reads the variable itself
  assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told_and_nothing_is_kept(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
  (tmp_path / "mtad_jax").write_text("a file where the folder should be")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  host.keep_programs()
  assert jax.config.values[SETTING] is None
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(f"warning: compiled programs are not kept: {tmp_path}/mtad_jax/programs-")
  assert line.endswith("JAX_COMPILATION_CACHE_DIR may name another folder")
