"""Downloads against a server on loopback: fetched, recorded, verified, refused, cut short and gone on."""

import functools
import http.server
import io
import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pytest

from mtad_jax.data import download as download_module
from mtad_jax.data.download import RECORD, download
from mtad_jax.data.publishers import PUBLISHERS, Pin, Publisher, RemoteFile
from mtad_jax.data.smd import MACHINES
from mtad_jax.data.telemanom import read_telemanom


class Server(NamedTuple):
  """A server of the folder `root`; `asked` lists the paths asked for, `cut` those that break off halfway."""

  url: str
  root: Path
  asked: list[str]
  cut: set[str]


class _Handler(http.server.SimpleHTTPRequestHandler):
  asked: ClassVar[list[str]]
  cut: ClassVar[set[str]]

  def do_GET(self) -> None:
    self.asked.append(self.path)
    if self.path in self.cut:
      content = Path(self.translate_path(self.path)).read_bytes()
      self.send_response(200)
      self.send_header("Content-Length", str(len(content)))
      self.end_headers()
      self.wfile.write(content[: len(content) // 2])
      return
    super().do_GET()

  def log_message(self, format: str, *args: object) -> None:
    """Says nothing: the test's output is for the test."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
  root = tmp_path / "published"
  root.mkdir()

  class Handler(_Handler):
    asked: ClassVar[list[str]] = []
    cut: ClassVar[set[str]] = set()

  listening = http.server.ThreadingHTTPServer(
    ("127.0.0.1", 0),
    functools.partial(Handler, directory=str(root)),
  )
  thread = threading.Thread(target=listening.serve_forever)
  thread.start()
  yield Server(f"http://127.0.0.1:{listening.server_address[1]}", root, Handler.asked, Handler.cut)
  listening.shutdown()
  thread.join()
  listening.server_close()


def publish_smd(server: Server, monkeypatch: pytest.MonkeyPatch, pin: Pin | None = None) -> list[str]:
  """Publishes the files of one machine, and cuts the table down to them."""
  files = []
  for split in ("train", "test", "test_label", "interpretation_label"):
    path = f"ServerMachineDataset/{split}/machine-1-1.txt"
    (server.root / path).parent.mkdir(parents=True)
    (server.root / path).write_text(f"{split},1\n" * 2000)
    files.append(RemoteFile(path, server.url + "/", pin if split == "train" else None))
  monkeypatch.setitem(PUBLISHERS, "smd", Publisher("ServerMachineDataset", tuple(files), server.url))
  return [file.path for file in files]


def fails(call: Callable[[], object], *parts: str) -> None:
  with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
    call()
  assert "\n" not in str(caught.value)
  for part in parts:
    assert part in str(caught.value)


def test_the_table() -> None:
  paths = [file.path for file in PUBLISHERS["smd"].files]
  assert len(paths) == len(set(paths)) == 4 * len(MACHINES)
  assert "ServerMachineDataset/interpretation_label/machine-3-11.txt" in paths
  assert PUBLISHERS["smap"] is PUBLISHERS["msl"]
  for publisher in PUBLISHERS.values():
    assert all(file.base.startswith("https://") and file.base.endswith("/") for file in publisher.files)


def test_first_download_is_recorded_and_later_ones_verified(
  server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  paths = publish_smd(server, monkeypatch)
  folder = tmp_path / "data"
  first = download("smd", str(folder))
  assert first.unverified == tuple(paths)
  for path in paths:
    assert (folder / path).read_bytes() == (server.root / path).read_bytes()
  assert sorted(json.loads((folder / RECORD).read_text())) == sorted(paths)
  assert len(server.asked) == 4

  again = download("smd", str(folder))
  assert again == (first.folder, (), True)
  assert len(server.asked) == 4

  forced = download("smd", str(folder), force=True)
  assert (forced.unverified, forced.already_there) == ((), False)
  assert len(server.asked) == 8


def test_changed_file_is_refused_and_the_old_folder_stays(
  server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  paths = publish_smd(server, monkeypatch)
  folder = tmp_path / "data"
  download("smd", str(folder))
  recorded = json.loads((folder / RECORD).read_text())
  before = (folder / paths[1]).read_bytes()
  (server.root / paths[1]).write_text("something else\n")
  fails(
    lambda: download("smd", str(folder), force=True),
    paths[1],
    "wrong checksum",
    f"checksum='{recorded[paths[1]]['sha256']}'",
    "Got:",
    RECORD,
  )
  assert (folder / paths[1]).read_bytes() == before
  assert json.loads((folder / RECORD).read_text()) == recorded


def test_a_mirror_is_held_against_the_same_checksums(
  server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  paths = publish_smd(server, monkeypatch, Pin("0" * 64, 5))
  fails(lambda: download("smd", str(tmp_path / "pinned"), url=server.url), paths[0], "0" * 64)
  assert not (tmp_path / "pinned" / "ServerMachineDataset").exists()
  mirror = server.root / "mirror"
  (server.root / "ServerMachineDataset").rename(mirror)
  mirror.mkdir(exist_ok=True)
  (server.root / "deep").mkdir()
  mirror.rename(server.root / "deep" / "ServerMachineDataset")
  (server.root / "deep" / paths[0]).write_bytes(b"12345")
  pin = download_module._file_pin(server.root / "deep" / paths[0])
  (tmp_path / "data").mkdir()
  (tmp_path / "data" / RECORD).write_text(json.dumps({paths[0]: pin._asdict()}))
  files = tuple(file._replace(pin=None) for file in PUBLISHERS["smd"].files)
  monkeypatch.setitem(PUBLISHERS, "smd", PUBLISHERS["smd"]._replace(files=files))
  result = download("smd", str(tmp_path / "data"), url=server.url + "/deep/")
  assert result.unverified == tuple(paths[1:])


def test_a_host_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
  # port 1 of the loopback: nobody listens there
  fails(lambda: download("smd", str(tmp_path / "data"), url="http://127.0.0.1:1"), "download failed", "--url")


def test_missing_file_is_one_line(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  paths = publish_smd(server, monkeypatch)
  (server.root / paths[2]).unlink()
  fails(lambda: download("smd", str(tmp_path / "data")), paths[2], "404", server.url, "--url")
  assert not (tmp_path / "data" / "ServerMachineDataset").exists()


def test_interrupted_transfer_is_refused_and_gone_on_with(
  server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  paths = publish_smd(server, monkeypatch)
  folder = tmp_path / "data"
  server.cut.add("/" + paths[0])
  fails(lambda: download("smd", str(folder)), "download failed", "run again")
  assert not (folder / "ServerMachineDataset").exists()
  assert not (folder / RECORD).exists()
  assert not list(folder.rglob("*.tmp.*"))
  server.cut.clear()
  server.asked.clear()
  download("smd", str(folder))
  assert (folder / paths[0]).read_bytes() == (server.root / paths[0]).read_bytes()
  assert "/" + paths[0] in server.asked


def test_damaged_cache_is_noticed(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  publish_smd(server, monkeypatch)
  folder = tmp_path / "data"
  download("smd", str(folder))
  record = (folder / RECORD).read_text()
  fetched = download_module._fetch
  for path in (folder / "ServerMachineDataset").rglob("*.txt"):
    path.unlink()
  (folder / "ServerMachineDataset").rename(folder / "away")

  def damage(*arguments: object) -> dict[str, Path]:
    result = fetched(*arguments)  # type: ignore[arg-type]
    next(iter(result.values())).write_text("rotten\n")
    return result

  monkeypatch.setattr(download_module, "_fetch", damage)
  fails(lambda: download("smd", str(folder)), "machine-1-1.txt has sha256", "is wanted; delete it")
  assert (folder / RECORD).read_text() == record


def archive(members: dict[str, bytes]) -> bytes:
  content = io.BytesIO()
  with zipfile.ZipFile(content, "w") as file:
    for name, data in members.items():
      file.writestr(name, data)
  return content.getvalue()


def array_bytes(num_rows: int) -> bytes:
  content = io.BytesIO()
  np.save(content, np.zeros((num_rows, 25), np.float32))
  return content.getvalue()


def test_telemanom_archive_is_unpacked_where_the_reader_looks(server: Server, tmp_path: Path) -> None:
  members = {
    "data/train/A-1.npy": array_bytes(30),
    "data/test/A-1.npy": array_bytes(40),
    "data/2018-05-19_15.00.10/models/A-1.h5": b"a model",
    "__MACOSX/data/test/._A-1.npy": b"rubbish",
    "../../train/B-1.npy": array_bytes(30),
  }
  (server.root / "data.zip").write_bytes(archive(members))
  rows = 'chan_id,spacecraft,anomaly_sequences,class,num_values\nA-1,SMAP,"[[3, 4]]",[point],40\n'
  (server.root / "labeled_anomalies.csv").write_text(rows)
  result = download("smap", str(tmp_path / "data"), url=server.url)
  found = sorted(str(path.relative_to(tmp_path / "data")) for path in result.folder.rglob("*.*"))
  assert found == [
    f"telemanom/{name}"
    for name in ("labeled_anomalies.csv", "test/A-1.npy", "train/A-1.npy", "train/B-1.npy")
  ]
  assert not list(tmp_path.glob("train"))
  (result.folder / "train" / "B-1.npy").unlink()
  (machine,) = read_telemanom(result.folder, "SMAP")
  assert machine.test.values.shape == (40, 25)
  assert download("msl", str(tmp_path / "data"), url=server.url).already_there


def test_wrong_archive_and_wrong_requests(server: Server, tmp_path: Path) -> None:
  (server.root / "data.zip").write_bytes(b"<html>moved</html>")
  (server.root / "labeled_anomalies.csv").write_text("x\n")
  fails(lambda: download("msl", str(tmp_path / "data"), url=server.url), "no whole zip archive")
  assert not (tmp_path / "data" / "telemanom").exists()
  fails(
    lambda: download("folder", str(tmp_path / "data")), "'folder' cannot be downloaded; smd, smap, msl can"
  )
  fails(lambda: download("smd", str(tmp_path / "data"), url="ftp://x"), "'ftp://x' is not an http address")
  (tmp_path / "data" / RECORD).write_text("[]")
  fails(lambda: download("msl", str(tmp_path / "data"), url=server.url), RECORD, "not a record of checksums")
