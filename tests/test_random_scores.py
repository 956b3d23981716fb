"""Random scores through the whole evaluation, on the labels of all 28 machines of SMD: what luck alone gets.

The figures are those measured independently on the same label files; the tolerances are a few deviations of the draw.
"""

from pathlib import Path

import numpy as np
import pytest

from mtad_jax.config import DetectConfig, EvaluateConfig
from mtad_jax.evaluate.scored import ScoredMachine
from mtad_jax.evaluate.summary import evaluate_fleet

POOLED = {  # figure: (where, measured, tolerance)
  "point-wise best F1": (("oracle", "f1"), 0.080, 0.002),
  "point-adjusted best F1": (("point_adjusted_oracle", "f1"), 0.840, 0.06),
  "PA%K area": (("pa_k_area_oracle",), 0.198, 0.01),
  "composite F1": (("composite_f1_oracle",), 0.082, 0.006),
  "average precision": (("average_precision",), 0.0416, 0.002),  # the anomaly share
  "AUC-ROC": (("auc_roc",), 0.5, 0.01),
}
MEAN = {
  "point-adjusted best F1": (("point_adjusted_oracle", "f1"), 0.783, 0.06),
  "VUS-ROC": (("vus_roc",), 0.65, 0.04),
}


@pytest.fixture(scope="module")
def result(packed_data: Path) -> dict:
  machines = []
  files = sorted((packed_data / "smd" / "test_label").glob("machine-*.txt"))
  for seed, path in enumerate(files):
    labels = np.loadtxt(path).astype(bool)
    scores = np.random.default_rng(seed).uniform(size=len(labels))
    machines.append(
      ScoredMachine(
        name=path.stem,
        role=path.stem.rsplit("-", 1)[0],
        labels=labels,
        scores=scores,
        thresholds={"pot": float(np.quantile(scores, 0.9))},
        baselines={"random": np.random.default_rng(1000 + seed).uniform(size=len(labels))},
        other_scores={},
        interpretation=(),
        cause_ranking=(),
        rows_per_day=1440.0,
        num_metrics=38,
      )
    )
  return evaluate_fleet(machines, EvaluateConfig(), DetectConfig())


def figure(block: dict, path: tuple[str, ...]) -> float:
  value = block
  for key in path:
    value = value[key]
  return value


@pytest.mark.parametrize("name", POOLED)
def test_pooled(result: dict, name: str) -> None:
  path, measured, tolerance = POOLED[name]
  for block in (result["pooled"]["detector"], result["pooled"]["floors"]["random"]):
    assert figure(block, path) == pytest.approx(measured, abs=tolerance)


@pytest.mark.parametrize("name", MEAN)
def test_mean_of_machines(result: dict, name: str) -> None:
  path, measured, tolerance = MEAN[name]
  for block in (result["mean"]["detector"], result["mean"]["floors"]["random"]):
    assert figure(block, path) == pytest.approx(measured, abs=tolerance)


def test_affiliation_flatters_alarms_at_random(result: dict) -> None:
  """A tenth of the rows flagged at random: .69 for nothing, where point-wise F1 is below .06."""
  at = result["mean"]["detector"]["at_threshold"]["pot"]
  assert at["affiliation_f1"] == pytest.approx(0.687, abs=0.04)
  assert at["f1"] < 0.07


def test_no_figure_says_that_the_detector_beats_its_floor(result: dict) -> None:
  assert result["mean"]["best_floor"]["detector_over_floor"] == pytest.approx(1, abs=0.1)
  assert result["operating_point"]["detector"]["recall"] < 0.2
