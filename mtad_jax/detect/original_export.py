"""The original program's two files for one machine, for tools that read them.

inference_score.csv: one score a line, no header, line i for the i-th scored row (its own rows began one later).
Anomaly.csv: a header and one line per alarm row: row, score, threshold, then every metric's score.
"""

import csv
import io

import numpy as np
from etils import epath

from mtad_jax.detect.score_machine import ScoredRows
from mtad_jax.train.workdir import write_whole


def write_original(
  folder: epath.PathLike, scored: ScoredRows, metrics: tuple[str, ...]
) -> None:
  """Writes both files, each whole or not at all, into a folder, made where it is missing."""
  target = epath.Path(folder)
  target.mkdir(parents=True, exist_ok=True)
  text = "".join(f"{score!r}\n" for score in scored.score[scored.valid].tolist())
  write_whole(target / "inference_score.csv", text)
  lines = io.StringIO()
  writer = csv.writer(lines)
  writer.writerow(["row", "score", "threshold", *metrics])
  for row in np.flatnonzero(scored.is_anomaly).tolist():
    writer.writerow([row, scored.score[row], scored.threshold[row], *scored.metric_scores[row].tolist()])
  write_whole(target / "Anomaly.csv", lines.getvalue())
