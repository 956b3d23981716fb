"""A publisher's files to a folder that the readers take, through TFDS's download manager.

Every file is held against its checksum: the table's, or the one that the first download recorded. The folder
appears when it is complete; what an interrupted run fetched whole is not fetched again.
"""

import hashlib
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.core.download import util as download_errors
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from mtad_jax.data.publishers import PUBLISHERS, Pin, Publisher, RemoteFile

RECORD = "checksums.json"  # {path: {sha256, size}} of first downloads, in the download folder
_MAX_SIMULTANEOUS = 8
_CONNECT_TIMEOUT_S = 30
_SPLITS = ("train", "test")


class Downloaded(NamedTuple):
  """The reader's folder, the paths fetched without a known checksum, whether nothing was to do."""

  folder: Path
  unverified: tuple[str, ...]
  already_there: bool


def _read_record(path: Path) -> dict[str, Pin]:
  if not path.exists():
    return {}
  try:
    return {
      name: Pin(str(pin["sha256"]), int(pin["size"])) for name, pin in json.loads(path.read_text()).items()
    }
  except (ValueError, KeyError, TypeError, AttributeError):
    raise ValueError(f"{path}: not a record of checksums; delete it to record them anew") from None


def _write_record(path: Path, pins: dict[str, Pin]) -> None:
  fresh = path.with_name(path.name + ".incomplete")
  fresh.write_text(json.dumps({name: pin._asdict() for name, pin in sorted(pins.items())}, indent=1))
  fresh.replace(path)


def _file_pin(path: Path) -> Pin:
  with path.open("rb") as file:
    return Pin(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def _address(file: RemoteFile, url: str | None) -> str:
  return (url.rstrip("/") + "/" if url else file.base) + file.path


def _fetch(
  files: Sequence[RemoteFile],
  url: str | None,
  cache: Path,
  known: dict[str, Pin],
  force: bool,
  home: str,
  quiet: bool,
) -> dict[str, Path]:
  """Returns {path: fetched file}, each as its known checksum says."""
  addresses = {file.path: _address(file, url) for file in files}
  infos = {
    addresses[path]: checksums.UrlInfo(
      size=tfds.core.utils.Size(pin.size), checksum=pin.sha256, filename=None
    )
    for path, pin in known.items()
    if path in addresses
  }
  manager = tfds.download.DownloadManager(
    download_dir=cache,
    url_infos=infos,
    force_download=force,
    max_simultaneous_downloads=_MAX_SIMULTANEOUS,
  )
  if quiet or not sys.stderr.isatty():
    tfds.disable_progress_bar()
  try:
    for base in sorted({file.base for file in files} if url is None else {url}):
      # a host that is not there would otherwise cost minutes of the manager's retries
      requests.head(base, timeout=_CONNECT_TIMEOUT_S).close()
    fetched: dict[str, Path] = {}
    paths = list(addresses)
    for start in range(0, len(paths), _MAX_SIMULTANEOUS):
      # in batches: after a failure the manager still fetches all that it was given
      batch = {path: addresses[path] for path in paths[start : start + _MAX_SIMULTANEOUS]}
      fetched |= {path: Path(file) for path, file in manager.download(batch).items()}
    return fetched
  except NonMatchingChecksumError as error:
    told = " ".join(str(error).split(" To debug")[0].split("\nTo debug")[0].split())
    raise ValueError(
      f"{told}; if the publisher's new file is wanted, delete its line from {RECORD}"
    ) from None
  except download_errors.DownloadError as error:
    raise ValueError(f"{error} The publisher's page is {home}; --url takes a mirror's base address") from None
  except requests.RequestException as error:
    raise ValueError(f"download failed: {error}; run again to go on, or give a mirror by --url") from None
  finally:
    # a failed transfer leaves its part behind
    for part in cache.glob("*.tmp.*"):
      shutil.rmtree(part, ignore_errors=True)


def _unpack(archive: Path, folder: Path) -> None:
  """Writes the train/ and test/ npy files of the archive into the folder; nothing else in it is touched."""
  try:
    with zipfile.ZipFile(archive) as content:
      for member in content.infolist():
        path = PurePosixPath(member.filename)
        # only the last two parts of a name are used, so no member can leave the folder
        if path.suffix == ".npy" and path.parent.name in _SPLITS and not path.name.startswith("."):
          target = folder / path.parent.name / path.name
          target.parent.mkdir(parents=True, exist_ok=True)
          with content.open(member) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
  except (zipfile.BadZipFile, EOFError) as error:
    raise ValueError(f"{archive.name}: no whole zip archive ({error})") from None


def _lay_out(publisher: Publisher, fetched: dict[str, Path], folder: Path) -> None:
  """Writes the publisher's layout from the fetched files, complete or not at all."""
  fresh = folder.with_name(f".{folder.name}.incomplete")
  shutil.rmtree(fresh, ignore_errors=True)
  try:
    for file in publisher.files:
      if file.archive:
        _unpack(fetched[file.path], fresh)
        continue
      target = fresh / PurePosixPath(file.path).relative_to(_inside(publisher, file))
      target.parent.mkdir(parents=True, exist_ok=True)
      try:
        os.link(fetched[file.path], target)
      except OSError:  # a file system without hard links
        shutil.copyfile(fetched[file.path], target)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
  finally:
    shutil.rmtree(fresh, ignore_errors=True)


def _inside(publisher: Publisher, file: RemoteFile) -> str:
  return publisher.folder if file.path.startswith(publisher.folder + "/") else "."


def download(
  dataset: str, folder: str, *, url: str | None = None, force: bool = False, quiet: bool = False
) -> Downloaded:
  """Returns where a dataset's raw files lie, after fetching them where they are not there yet.

  Args:
    dataset: smd, smap or msl.
    folder: the download folder, local; it also holds the cache and the record of checksums.
    url: a base address in place of the publisher's own, for a mirror with the same paths.
    force: whether to fetch again what is there.
    quiet: no progress bar, on a terminal either.

  Raises:
    ValueError: a dataset nobody publishes, an address that fails, a transfer cut short, another checksum.
  """
  if dataset not in PUBLISHERS:
    raise ValueError(f"dataset {dataset!r} cannot be downloaded; {', '.join(PUBLISHERS)} can")
  if url is not None and not url.startswith(("http://", "https://")):
    raise ValueError(f"--url {url!r} is not an http address")
  publisher, root = PUBLISHERS[dataset], Path(folder).expanduser()
  target = root / publisher.folder
  if target.exists() and not force:
    return Downloaded(target, (), True)
  root.mkdir(parents=True, exist_ok=True)
  recorded = _read_record(root / RECORD)
  known = recorded | {file.path: file.pin for file in publisher.files if file.pin is not None}
  fetched = _fetch(publisher.files, url, root / "cache", known, force, publisher.home, quiet)
  unverified = []
  for path, file in fetched.items():
    pin = _file_pin(file)
    if path not in known:
      recorded[path] = pin
      unverified.append(path)
    elif pin != known[path]:
      # the cache's own notes may be right while the file beside them was changed
      raise ValueError(f"{file}: {path} has sha256 {pin.sha256}; {known[path].sha256} is wanted; delete it")
  _write_record(root / RECORD, recorded)
  _lay_out(publisher, fetched, target)
  return Downloaded(target, tuple(unverified), False)
