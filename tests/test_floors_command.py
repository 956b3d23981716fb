"""scripts/floors.py as a user runs it: on a fleet folder, from flags to the table and the JSON file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mtad_jax.evaluate.floors import FLOORS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """Two machines with a fault each, and one without any."""
  folder = tmp_path_factory.mktemp("fleet")
  rng = np.random.default_rng(0)
  for split in ("train", "test", "test_label"):
    (folder / split).mkdir()
  for i in range(3):
    level = rng.normal(size=(500, 1)) + 0.1 * rng.normal(size=(500, 3))
    train, test = level[:300], level[300:]
    labels = np.zeros(200, int)
    if i < 2:
      test[150:170, 0], labels[150:170] = 9, 1
    np.savetxt(folder / "train" / f"web-{i}.txt", train, delimiter=",")
    np.savetxt(folder / "test" / f"web-{i}.txt", test, delimiter=",")
    np.savetxt(folder / "test_label" / f"web-{i}.txt", labels, fmt="%d")
  return folder


def floors(*arguments: str) -> subprocess.CompletedProcess[str]:
  command = [sys.executable, str(ROOT / "scripts" / "floors.py"), "--dataset=folder", *arguments]
  return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_table_and_the_file(fleet: Path, tmp_path: Path) -> None:
  output = tmp_path / "floors.json"
  done = floors(f"--source={fleet}", "--seeds=2", f"--output={output}")
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert {line.split()[0] for line in lines[1:9]} == set(FLOORS)
  assert "mean of 2 machines, 2 seeds" in done.stdout
  assert "without labels or an anomaly: web-2" in done.stdout
  result = json.loads(output.read_text())
  assert list(result["machines"]) == ["web-0", "web-1"]
  assert [len(found) for found in result["machines"]["web-0"].values()] == [2, 1, 1, 1, 1, 2, 2, 1]
  assert result["mean"]["pca_error"]["average_precision"] > 0.95
  assert result["mean"]["all_positive"]["average_precision"] == 0.2  # 20 of 100 rows
  of_random = [row["average_precision"] for found in result["machines"].values() for row in found["random"]]
  assert len(set(of_random)) == 4
  assert result["mean"]["random"]["average_precision"] == pytest.approx(np.mean(of_random))


def test_refusals_in_one_line(fleet: Path) -> None:
  for arguments, line in (
    (["--without=db-1"], "--without: no machine 'db-1'; known: web-0, web-1, web-2"),
    (["--machines=web-2"], "no machine has an anomalous test row after the first 100"),
    (["--floors=knn"], "floor 'knn' is unknown; known: random,"),
  ):
    done = floors(f"--source={fleet}", *arguments)
    assert done.returncode == 1
    assert line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout
