"""Where SMD, SMAP and MSL come from: one table of addresses, files and checksums.

A file without a checksum here was not at hand when the table was written: its first download is recorded
in the data directory and called unverified; later ones are held against that record.
"""

from typing import NamedTuple

from mtad_jax.data.smd import MACHINES


class Pin(NamedTuple):
  """What a file must be: SHA-256 in hexadecimal, and its size in bytes."""

  sha256: str
  size: int


class RemoteFile(NamedTuple):
  """One file of a publisher.

  path: where it lies below the publisher's base address, and below our folder.
  base: the address that `path` is appended to.
  pin: what it must be, or None where that is not known.
  archive: whether it is a zip that holds train/ and test/.
  """

  path: str
  base: str
  pin: Pin | None = None
  archive: bool = False


class Publisher(NamedTuple):
  """A dataset's files; `folder` is what the reader takes, below the download folder."""

  folder: str
  files: tuple[RemoteFile, ...]
  home: str


_OMNI_ANOMALY = "https://raw.githubusercontent.com/NetManAIOps/OmniAnomaly/master/"
_TELEMANOM_BUCKET = "https://s3-us-west-2.amazonaws.com/telemanom/"
_TELEMANOM_CODE = "https://raw.githubusercontent.com/khundman/telemanom/master/"
_SMD_FOLDER = "ServerMachineDataset"

_SMD = Publisher(
  folder=_SMD_FOLDER,
  files=tuple(
    RemoteFile(f"{_SMD_FOLDER}/{split}/{machine}.txt", _OMNI_ANOMALY)
    for split in ("train", "test", "test_label", "interpretation_label")
    for machine in MACHINES
  ),
  home="https://github.com/NetManAIOps/OmniAnomaly",
)
_TELEMANOM = Publisher(
  folder="telemanom",
  files=(
    RemoteFile("data.zip", _TELEMANOM_BUCKET, archive=True),
    RemoteFile("labeled_anomalies.csv", _TELEMANOM_CODE),
  ),
  home="https://github.com/khundman/telemanom",
)

# SMAP and MSL share one download
PUBLISHERS: dict[str, Publisher] = {"smd": _SMD, "smap": _TELEMANOM, "msl": _TELEMANOM}
