"""Checkpoints: what is read is what was written, damage is named, and nothing else is taken for a checkpoint."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtad_jax.train import checkpoints as module
from mtad_jax.train.checkpoints import Checkpoints, CorruptCheckpoint
from mtad_jax.train.checksums import content_checksum, lane_checksums, leaf_names, nest
from mtad_jax.train.mesh import make_mesh, to_mesh

NAMES = ("a", "b")


class Snapshot(NamedTuple):
  params: Any
  optimizer: Any


class State(NamedTuple):
  step: Any
  params: Any
  optimizer: Any
  best_params: Any
  best_loss: Any
  snapshot: Snapshot


def make_state(size: int = 400, seed: int = 0, num_machines: int = 2) -> State:
  """Returns a state like training's: nested dicts, optax's tuples, counters, flags, an infinite best loss."""
  rng = np.random.default_rng(seed)
  lanes = num_machines
  params = {
    "gru": {"recurrent": jnp.asarray(rng.normal(size=(lanes, size, 3)), jnp.float32)},
    "bias": jnp.asarray(rng.normal(size=(lanes, size)), jnp.float32),
    "half": jnp.asarray(rng.normal(size=(lanes, 4)), jnp.bfloat16),
  }
  optimizer = jax.vmap(optax.chain(optax.clip(1.0), optax.adam(0.1)).init)(params)
  return State(
    step=jnp.arange(lanes, dtype=jnp.int32),
    params=params,
    optimizer=optimizer,
    best_params=jax.tree.map(lambda x: x + 1, params),
    best_loss=jnp.full((lanes,), jnp.inf),
    snapshot=Snapshot(jax.tree.map(lambda x: x - 1, params), optimizer),
  )


def template_of(state: State) -> State:
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)


def at_step(state: State, step: int) -> State:
  return state._replace(step=jnp.full_like(state.step, step))


def assert_equal(found: Any, wanted: Any) -> None:
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    assert a.dtype == b.dtype
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def write(directory: Path, state: State, steps: tuple[int, ...]) -> Path:
  with Checkpoints(directory) as checkpoints:
    for step in steps:
      checkpoints.save(step, at_step(state, step), NAMES[: len(state.step)], {"note": step})
  return directory


@pytest.fixture(scope="module")
def state() -> State:
  return make_state()


@pytest.fixture(scope="module")
def written(tmp_path_factory, state) -> Path:
  return write(tmp_path_factory.mktemp("written") / "group-0", state, (1, 2, 3))


@pytest.fixture
def saved(tmp_path, written) -> Path:
  """Steps 1, 2 and 3, to be damaged at will."""
  return Path(shutil.copytree(written, tmp_path / "group-0"))


def array_files(step_folder: Path) -> list[Path]:
  """Returns the files that hold arrays: one or several, as the writing threads met; an index's node is smaller."""
  return [path for path in (step_folder / "state").glob("ocdbt.process_0/d/*") if path.stat().st_size > 1000]


def array_file(step_folder: Path) -> Path:
  """Returns the file that holds most of the arrays."""
  return max(array_files(step_folder), key=lambda path: path.stat().st_size)


def edit_about(step_folder: Path, **changes: Any) -> None:
  """Rewrites the JSON beside the arrays, its own checksum included; None takes a field out."""
  path = step_folder / "about" / "metadata"
  about = {**json.loads(path.read_text()), **changes}
  about = {name: value for name, value in about.items() if value is not None and name != "checksum"}
  if "checksum" not in changes:
    about["checksum"] = content_checksum(about)
  path.write_text(json.dumps(about))


# What is written comes back.


def test_round_trip_is_bit_equal(written, state):
  with Checkpoints(written, read_only=True) as checkpoints:
    assert checkpoints.steps() == [1, 2, 3]
    back = checkpoints.restore(3, template_of(state))
    about = checkpoints.about(3)
  assert_equal(back, at_step(state, 3))
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(back))
  assert about["machines"] == list(NAMES)
  assert about["note"] == 3
  assert about["format"] == 1
  assert about["tree"]["params.gru.recurrent"] == [[2, 400, 3], "float32"]
  assert about["checksums"]["params.bias"] == lane_checksums(np.asarray(state.params["bias"]))


def test_a_relative_directory_will_do(tmp_path, state, monkeypatch):
  monkeypatch.chdir(tmp_path)
  write(Path("runs/group-0"), state, (1,))
  with Checkpoints(tmp_path / "runs" / "group-0", read_only=True) as checkpoints:
    assert_equal(checkpoints.restore(1, template_of(state)), at_step(state, 1))


def test_the_latest_are_kept(tmp_path, state):
  with Checkpoints(tmp_path / "group-0", num_to_keep=2) as checkpoints:
    for step in (1, 2, 3, 10):
      checkpoints.save(step, at_step(state, step), NAMES, {})
    checkpoints.wait()
    assert checkpoints.steps() == [3, 10]
  assert sorted(path.name for path in (tmp_path / "group-0").iterdir()) == ["10", "3"]


def test_parts_and_machines_are_the_tree_s(written, state):
  with Checkpoints(written, read_only=True) as checkpoints:
    tree = checkpoints.read_tree(2)
    np.testing.assert_array_equal(tree["params"]["gru"]["recurrent"], state.params["gru"]["recurrent"])
    assert_equal(checkpoints.read_part(2, "best_params"), tree["best_params"])
    assert_equal(checkpoints.read_part(2, "snapshot.params"), tree["snapshot"]["params"])
    np.testing.assert_array_equal(checkpoints.read_part(2, "step"), [2, 2])
    for lane in range(2):
      assert_equal(checkpoints.read_machine(2, lane), jax.tree.map(lambda x, lane=lane: x[lane], tree))
    alone = checkpoints.read_machine(2, 1, "best_params")
    assert_equal(alone, jax.tree.map(lambda x: x[1], tree["best_params"]))
    with pytest.raises(ValueError, match=r"step 2: no branch 'worst'; there are step, params, optimizer"):
      checkpoints.read_part(2, "worst")
    with pytest.raises(ValueError, match="step 2: no machine number 2; there are 2"):
      checkpoints.read_machine(2, 2)


def test_reading_a_part_reads_only_that(saved, state):
  """With the files of the arrays gone bad, a branch kept elsewhere (a small one, inline) still reads."""
  for path in array_files(saved / "3"):
    path.write_bytes(bytes(path.stat().st_size))
  with Checkpoints(saved, read_only=True) as checkpoints:
    np.testing.assert_array_equal(checkpoints.read_part(3, "step"), [3, 3])
    with pytest.raises(CorruptCheckpoint, match="leaf best_params"):
      checkpoints.read_part(3, "best_params")


def test_restored_arrays_share_no_memory_with_the_device(written, state):
  with Checkpoints(written, read_only=True) as checkpoints:
    back = checkpoints.restore(3, template_of(state))
  placed = to_mesh(back, make_mesh())
  before = np.asarray(placed.params["bias"]).copy()
  back.params["bias"][...] = 7
  np.testing.assert_array_equal(np.asarray(placed.params["bias"]), before)


def test_what_changes_after_save_is_not_what_is_written(tmp_path, state):
  mutable = jax.tree.map(lambda x: np.array(x), state)
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, mutable, NAMES, {})
    for leaf in jax.tree.leaves(mutable):
      leaf[...] = 0
  with Checkpoints(tmp_path, read_only=True) as checkpoints:
    assert_equal(checkpoints.restore(1, template_of(state)), state)


def test_saving_does_not_wait_for_the_write(tmp_path, state, monkeypatch):
  gate = threading.Event()
  before = Checkpoints._write
  monkeypatch.setattr(Checkpoints, "_write", lambda *args: (gate.wait(30), before(*args)))
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, state, NAMES, {})
    assert checkpoints.steps() == []
    gate.set()
    checkpoints.wait()
    assert checkpoints.steps() == [1]


# What must not be written.


@pytest.mark.parametrize("branch", ["params", "optimizer", "best_params", "snapshot"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_refused_by_machine(tmp_path, state, branch, bad):
  def poison(x):
    return x.at[1].set(bad) if jnp.issubdtype(x.dtype, jnp.inexact) else x

  poisoned = state._replace(**{branch: jax.tree.map(poison, getattr(state, branch))})
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(5, poisoned, NAMES, {})
  with pytest.raises(ValueError, match="step 5: the state of b is not finite and is not written"):
    checkpoints.wait()
  assert list(tmp_path.iterdir()) == []
  checkpoints.save(6, state, NAMES, {})  # one that failed does not stop the next
  checkpoints.close()
  assert checkpoints.steps() == [6]


def test_a_step_that_is_not_newer_is_an_error_not_a_shrug(tmp_path, state):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(5, state, NAMES, {})
    for step in (4, 5):
      with pytest.raises(ValueError, match=f"step {step} was not written; the latest there is 5"):
        checkpoints.save(step, state, NAMES, {})


def test_leaves_without_the_machine_axis_are_refused(tmp_path, state):
  with Checkpoints(tmp_path) as checkpoints:
    with pytest.raises(ValueError, match=r"leaf step is \[\]; its first axis must be 2 machines"):
      checkpoints.save(1, state._replace(step=jnp.zeros(())), NAMES, {})
    with pytest.raises(ValueError, match=r"the key 'params.x.y' holds a dot"):
      checkpoints.save(1, state._replace(params={"x.y": jnp.zeros(2)}), NAMES, {})


def test_another_network_is_refused_by_leaf_and_no_older_step_is_taken(written):
  with Checkpoints(written, read_only=True) as checkpoints:
    told = r"group-0/3: leaf best_params.bias is \[\[2, 400\], 'float32'\], this config needs \[\[2, 8\], 'float32'\]"
    with pytest.raises(ValueError, match=told):
      checkpoints.restore(3, template_of(make_state(8)))
    with pytest.raises(ValueError, match=told) as caught:
      checkpoints.restore_newest(template_of(make_state(8)), pytest.fail)
    assert not isinstance(caught.value, CorruptCheckpoint)


def test_another_type_is_refused_rather_than_cast(written, state):
  def halved(x):
    return jax.ShapeDtypeStruct(x.shape, np.float16 if x.dtype == np.float32 else x.dtype)

  template = jax.tree.map(halved, template_of(state))
  with (
    Checkpoints(written, read_only=True) as checkpoints,
    pytest.raises(ValueError, match=r"'float32'.*needs.*'float16'"),
  ):
    checkpoints.restore(3, template)


def test_other_versions_are_refused_and_no_older_step_is_taken(saved, state):
  edit_about(saved / "3", format=2)
  newer = r"step 3: written by a newer version \(format 2, this reads 1\): update mtad_jax"
  with Checkpoints(saved) as checkpoints:
    with pytest.raises(ValueError, match=newer) as caught:
      checkpoints.restore_newest(template_of(state), pytest.fail)
    assert not isinstance(caught.value, CorruptCheckpoint)
    edit_about(saved / "3", format=None, checksums=None, checksum=None)
    with pytest.raises(ValueError, match="step 3: written by an older version, without checksums") as caught:
      checkpoints.restore_newest(template_of(state), pytest.fail)
    assert not isinstance(caught.value, CorruptCheckpoint)
    assert checkpoints.steps() == [1, 2, 3]


# Damage.


def truncate(folder: Path) -> None:
  path = array_file(folder)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(folder: Path) -> None:
  path = array_file(folder)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 16
  path.write_bytes(content)


def other_content(folder: Path) -> None:
  """As when the disk gives back other numbers that read well."""
  checksums = json.loads((folder / "about" / "metadata").read_text())["checksums"]
  checksums["params.bias"][1] = checksums["params.bias"][0]
  edit_about(folder, checksums=checksums)


def damaged_about(folder: Path) -> None:
  path = folder / "about" / "metadata"
  path.write_text(path.read_text().replace('"note": 3', '"note": 4').replace('"note":3', '"note":4'))


def empty_folder(folder: Path) -> None:
  shutil.rmtree(folder)
  folder.mkdir()


# the flipped byte is a number's or the store's own: how the arrays lie in their files is not the same in every write
FLIPPED = r"leaf [\w.]+ (of [ab]: checksum differs from the one written|cannot be read)"
DAMAGE = {
  "truncated": (truncate, r"step 3: leaf [\w.]+ cannot be read: OUT_OF_RANGE"),
  "flipped": (flip, f"step 3: {FLIPPED}"),
  "other content": (other_content, r"step 3: leaf params\.bias of b: checksum differs from the one written"),
  "no arrays": (lambda folder: array_file(folder).unlink(), r"step 3: leaf [\w.]+ cannot be read"),
  "no _METADATA": (lambda folder: (folder / "state" / "_METADATA").unlink(), "state/_METADATA is missing"),
  "no step metadata": (
    lambda folder: (folder / "_CHECKPOINT_METADATA").unlink(),
    "step 3: _CHECKPOINT_METADATA is missing",
  ),
  "no manifest": (
    lambda folder: (folder / "state" / "manifest.ocdbt").unlink(),
    "state/manifest.ocdbt is missing",
  ),
  "no about": (lambda folder: shutil.rmtree(folder / "about"), "step 3: about/metadata is missing"),
  "no state": (lambda folder: shutil.rmtree(folder / "state"), "step 3: state/_METADATA is missing"),
  "half a JSON": (
    lambda folder: (folder / "about" / "metadata").write_text('{"format": 1, "mach'),
    "step 3: about/metadata is not valid JSON",
  ),
  "no text": (
    lambda folder: (folder / "about" / "metadata").write_bytes(b"\xff\x00"),
    "step 3: about/metadata is not valid JSON",
  ),
  "no object": (
    lambda folder: (folder / "about" / "metadata").write_text("[1]"),
    "step 3: about/metadata is not a JSON object",
  ),
  "changed about": (damaged_about, "step 3: about/metadata: checksum differs from the one written"),
  "empty folder": (empty_folder, "step 3 is an empty folder"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_the_step_before_is_used(saved, state, kind):
  do, told = DAMAGE[kind]
  do(saved / "3")
  if kind != "empty folder":
    with Checkpoints(saved, read_only=True) as reader, pytest.raises(CorruptCheckpoint, match=told) as caught:
      reader.restore(3, template_of(state))
    assert str(caught.value).startswith(str(saved))
    assert "\n" not in str(caught.value)

  lines: list[str] = []
  with Checkpoints(saved, read_only=True) as reader:
    step, back = reader.restore_newest(template_of(state), lines.append)
  assert step == 2
  assert_equal(back, at_step(state, 2))
  assert len(lines) == 1
  assert lines[0].startswith(f"{saved}: step 3")
  assert lines[0].endswith("passed over, step 2 is used")
  assert (saved / "3").exists()  # a reader changes nothing

  lines.clear()
  with Checkpoints(saved) as writer:
    assert writer.restore_newest(template_of(state), lines.append)[0] == 2
    assert lines[0].endswith("set aside as 3.damaged, step 2 is used")
    assert writer.steps() == [1, 2]
    writer.save(3, at_step(state, 3), NAMES, {})
  with Checkpoints(saved) as writer:
    assert writer.restore_newest(template_of(state), pytest.fail)[0] == 3


def test_two_damaged_steps_are_both_named(saved, state):
  truncate(saved / "2")
  flip(saved / "3")
  lines: list[str] = []
  with Checkpoints(saved) as checkpoints:
    assert checkpoints.restore_newest(template_of(state), lines.append)[0] == 1
  assert [line.split(": ")[1] for line in lines] == ["step 3", "step 2"]


def test_when_all_are_damaged_nothing_is_started_over(saved, state):
  for step in (1, 2, 3):
    flip(saved / str(step))
  with Checkpoints(saved) as checkpoints:
    for _ in range(2):  # and a second try finds the same
      with pytest.raises(ValueError, match=r"no step is intact: .*step 3.*step 2.*step 1.*to start over"):
        checkpoints.restore_newest(template_of(state), pytest.fail)
    assert checkpoints.steps() == [1, 2, 3]


def test_where_nothing_was_written_there_is_nothing(tmp_path, state):
  with Checkpoints(tmp_path / "none", read_only=True) as checkpoints:
    assert checkpoints.steps() == []
    assert checkpoints.restore_newest(template_of(state), pytest.fail) is None
  assert not (tmp_path / "none").exists()


def test_every_flipped_byte_is_found_or_harmless(saved, state):
  """All files of the arrays, at many places each."""
  folder = saved / "3"
  template, wanted = template_of(state), at_step(state, 3)
  num_found = num_harmless = 0
  with Checkpoints(saved, read_only=True) as checkpoints:
    for path in sorted(p for p in (folder / "state").rglob("*") if p.is_file()):
      content = path.read_bytes()
      for place in range(0, len(content), max(1, len(content) // 25)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        try:
          assert_equal(checkpoints.restore(3, template), wanted)
          num_harmless += 1
        except CorruptCheckpoint:
          num_found += 1
      path.write_bytes(content)
    assert_equal(checkpoints.restore(3, template), wanted)
  assert num_found > 50
  assert num_found + num_harmless > 150


def test_an_empty_folder_named_like_a_step_is_no_checkpoint(saved):
  (saved / "9").mkdir()
  with Checkpoints(saved, read_only=True) as checkpoints:
    assert checkpoints.steps() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"no step 9; there are \[1, 2, 3\]"):
      checkpoints.read_tree(9)


def test_what_a_killed_writer_leaves_never_counts(saved, state):
  shutil.copytree(saved / "3", saved / "4.orbax-checkpoint-tmp")
  shutil.copytree(saved / "1", saved / ".0.removed")
  (saved / ".4.space").write_bytes(b"x")
  with Checkpoints(saved, read_only=True) as checkpoints:
    assert checkpoints.steps() == [1, 2, 3]
  assert (saved / "4.orbax-checkpoint-tmp").exists()
  assert (saved / ".0.removed").exists()
  assert (saved / ".4.space").exists()
  with Checkpoints(saved) as checkpoints:
    assert checkpoints.steps() == [1, 2, 3]
    checkpoints.save(4, state, NAMES, {})
  assert sorted(path.name for path in saved.iterdir()) == ["1", "2", "3", "4"]


def test_a_step_that_does_not_read_back_is_not_kept(saved, state, monkeypatch):
  """The disk takes the write and gives something else back."""
  flush = module._flush

  def bad_disk(folder: Path) -> None:
    flush(folder)
    flip(folder)

  monkeypatch.setattr(module, "_flush", bad_disk)
  checkpoints = Checkpoints(saved, num_to_keep=1)
  checkpoints.save(4, state, NAMES, {})
  told = f"group-0: step 4 was not written: .*{FLIPPED}.*; step 3 stays the newest"
  with pytest.raises(OSError, match=told):
    checkpoints.close()
  assert sorted(path.name for path in saved.iterdir()) == ["1", "2", "3"]  # nothing old was given up for it


# Disks that do not take it.


def test_a_write_that_breaks_off_leaves_no_litter(saved, state, monkeypatch):
  checkpoints = Checkpoints(saved, num_to_keep=1)

  def break_off(folder: Path, args: Any) -> None:
    Path(f"{folder}.orbax-checkpoint-tmp").mkdir()
    raise ValueError("UNKNOWN: Failed to write: Input/output error [source locations='a.cc:1']")

  with monkeypatch.context() as patch:
    patch.setattr(checkpoints._writer, "save", break_off)
    checkpoints.save(4, state, NAMES, {})
    with pytest.raises(
      OSError, match=r"step 4 was not written: [^\[]*Input/output error; step 3 stays the newest$"
    ):
      checkpoints.wait()
  assert sorted(path.name for path in saved.iterdir()) == ["1", "2", "3"]
  checkpoints.save(4, state, NAMES, {})
  checkpoints.close()
  assert checkpoints.steps() == [4]


def test_a_reader_does_not_write(written, state):
  with (
    Checkpoints(written, read_only=True) as checkpoints,
    pytest.raises(ValueError, match="opened for reading only; step 9 is not written"),
  ):
    checkpoints.save(9, state, NAMES, {})


@contextlib.contextmanager
def small_disk(folder: Path, size: str):
  folder.mkdir()
  mounted = subprocess.run(
    ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
  )
  if mounted.returncode:
    pytest.skip("needs the right to mount a small tmpfs")
  try:
    yield
  finally:
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_costs_no_earlier_step(tmp_path):
  """At whatever point of the write the space ends."""
  state = make_state(size=4000)
  num_failed = 0
  with small_disk(tmp_path / "disk", "3m"):
    directory, other = tmp_path / "disk" / "group-0", tmp_path / "disk" / "other"
    checkpoints = Checkpoints(directory, num_to_keep=1)
    checkpoints.save(1, at_step(state, 1), NAMES, {})
    checkpoints.wait()
    for free in (0, 4, 8, 16, 40, 100, 200, 300, 400):  # kB
      room = os.statvfs(directory)
      other.write_bytes(bytes(room.f_bavail * room.f_frsize - free * 1024))
      checkpoints.save(2, at_step(state, 2), NAMES, {})
      try:
        checkpoints.wait()
      except OSError as error:
        num_failed += 1
        why = "no space left on device; step 1 stays the newest"
        assert str(error) == f"{directory}: step 2 was not written: {why}"  # noqa: PT017
      else:
        break
      assert [path.name for path in directory.iterdir()] == ["1"]
      assert_equal(checkpoints.restore(1, template_of(state)), at_step(state, 1))
      other.unlink()
    assert num_failed > 4
    other.unlink(missing_ok=True)
    checkpoints.save(3, at_step(state, 3), NAMES, {})  # with room again, it goes on
    checkpoints.close()
    assert [path.name for path in directory.iterdir()] == ["3"]


def test_a_read_only_disk_is_one_line_and_still_reads(tmp_path, state):
  with small_disk(tmp_path / "disk", "2m"):
    directory = tmp_path / "disk" / "group-0"
    checkpoints = Checkpoints(directory, num_to_keep=1)
    checkpoints.save(1, at_step(state, 1), NAMES, {})
    checkpoints.wait()
    subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
    checkpoints.save(2, state, NAMES, {})
    with pytest.raises(OSError, match="read-only") as caught:
      checkpoints.close()
    told = f"{directory}: step 2 was not written: read-only file system; step 1 stays the newest"
    assert str(caught.value) == told
    with Checkpoints(directory, read_only=True) as reader:
      assert_equal(reader.restore(1, template_of(state)), at_step(state, 1))
    with pytest.raises(OSError, match="new: cannot be written to: Read-only file system"):
      Checkpoints(tmp_path / "disk" / "new")


def test_the_block_s_own_error_is_the_one_to_tell(tmp_path, state):
  poisoned = state._replace(params=jax.tree.map(lambda x: x.at[0].set(np.nan), state.params))
  with pytest.raises(KeyError) as caught, Checkpoints(tmp_path) as checkpoints:  # noqa: PT012
    checkpoints.save(1, poisoned, NAMES, {})
    raise KeyError("inside")
  assert caught.value.__notes__ == ["step 1: the state of a is not finite and is not written"]


# Checksums and names.


def test_checksums_are_by_lane_and_in_c_order():
  values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
  sums = lane_checksums(values)
  assert lane_checksums(np.asfortranarray(values)) == sums
  assert lane_checksums(values[1:]) == sums[1:]
  changed = values.copy()
  changed[1, 2, 3] = np.nextafter(changed[1, 2, 3], np.float32(99))
  assert lane_checksums(changed)[0] == sums[0]
  assert lane_checksums(changed)[1] != sums[1]
  assert lane_checksums(np.array([1, 2], np.uint8)) == ["a505df1b", "3c0c8ea1"]  # zlib's crc32 of one byte


def test_names_and_nesting_are_inverse():
  tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
  assert leaf_names(tree) == {"a.b": 1, "a.c.d": 2, "e": 3}
  assert nest(leaf_names(tree)) == tree


TWO_PROCESSES = """
import sys
import jax
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
import numpy as np
from jax.experimental import multihost_utils
from mtad_jax.train.checkpoints import Checkpoints
state = {"params": {"k": np.arange(60, dtype=np.float32).reshape(2, 30)}}
template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
assert jax.process_count() == 2
first = jax.process_index() == 0
checkpoints = Checkpoints(sys.argv[3], num_to_keep=1, read_only=not first)
if first:  # the other one neither calls anything nor waits
  for step in (1, 2):
    checkpoints.save(step, state, ("a", "b"), {})
  checkpoints.wait()
multihost_utils.sync_global_devices("written")
if not first:
  for _ in range(3):  # reads as often as it likes, by itself
    checkpoints.restore_newest(template, print)
step, back = checkpoints.restore_newest(template, print)
assert step == 2 and checkpoints.steps() == [2]
np.testing.assert_array_equal(back["params"]["k"], state["params"]["k"])
checkpoints.close()
multihost_utils.sync_global_devices("read")
print("done")
"""


def test_one_process_of_two_writes_and_both_read(tmp_path):
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    address = f"localhost:{probe.getsockname()[1]}"
  command = [sys.executable, "-c", TWO_PROCESSES, address]
  started = [
    subprocess.Popen(
      [*command, str(i), str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for i in range(2)
  ]
  try:
    outputs = [process.communicate(timeout=60)[0] for process in started]
  finally:
    for process in started:
      process.kill()
      process.wait()
  for process, output in zip(started, outputs, strict=True):
    assert process.returncode == 0, output
    assert output.rstrip().endswith("done"), output
