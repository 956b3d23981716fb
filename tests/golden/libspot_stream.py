"""Prints the figures of `test_spot.LIBSPOT`; they were made with libspot 3.1.0 and NumPy 2.4.6 on 2026-11-28.

pip install libspot==3.1.0 && python tests/golden/libspot_stream.py
"""

import libspot
import numpy as np

for seed in (0, 1, 3):
  scores = (np.random.default_rng(seed).uniform(size=12_000) ** -0.2 - 1) / 0.2
  spot = libspot.Spot(q=1e-5, low=False, discard_anomalies=True, level=0.98, max_excess=500)
  spot.fit(scores[:2000])
  first = (spot.excess_threshold, spot.anomaly_threshold)
  for score in scores[2000:].tolist():
    spot.step(score)
  print((seed, *first, spot.n, spot.Nt, spot.gamma, spot.sigma))
