"""A hash of what a dataset was made from: file names, sizes and contents, or settings.

Stored beside the prepared dataset, so that a second `prepare.py` can tell "already done" from "made from
other data".
"""

import hashlib

from etils import epath

# hidden files and whatever else lies in the folder (a prepared dataset, say) are no part of the source
_SUBFOLDERS = ("train", "test", "test_label", "interpretation_label")
_FILES = ("roles.csv", "faults.csv", "labeled_anomalies.csv")
_BLOCK_BYTES = 1 << 20


def fingerprint_text(*parts: str) -> str:
  """Returns the SHA-256, in hexadecimal, of texts in order."""
  digest = hashlib.sha256()
  for part in parts:
    encoded = part.encode()
    digest.update(f"{len(encoded)}:".encode())
    digest.update(encoded)
  return digest.hexdigest()


def _file_digest(path: epath.Path) -> str:
  digest, size = hashlib.sha256(), 0
  with path.open("rb") as file:
    while block := file.read(_BLOCK_BYTES):
      digest.update(block)
      size += len(block)
  return f"{size}:{digest.hexdigest()}"


def fingerprint_folder(path: epath.PathLike, *extra: str) -> str:
  """Returns the SHA-256 of a source folder's files (names, sizes, contents) and of extra texts.

  Args:
    path: a fleet folder, SMD's folder or telemanom's.
    *extra: whatever else decides what is made of the files: the dataset's name, the machines chosen.

  Raises:
    ValueError: no such folder.
  """
  root = epath.Path(path)
  if not root.is_dir():
    raise ValueError(f"{root}: no such folder; the raw data are looked for there")
  files = {name: root / name for name in _FILES}
  for folder in _SUBFOLDERS:
    if (root / folder).is_dir():
      for file in (root / folder).iterdir():
        if not file.name.startswith("."):
          files[f"{folder}/{file.name}"] = file
  present = sorted((name, file) for name, file in files.items() if file.exists() and not file.is_dir())
  return fingerprint_text(*extra, *(f"{name}={_file_digest(file)}" for name, file in present))
