"""Spectral Residual (Ren et al., KDD 2019): finds the spikes of a training series and takes them out.

A(f) = |FFT(x)|, P(f) its phase, L = log A, R = L - moving average of L, S = |IFFT(exp(R + iP))|; a row is
flagged where (S - mean S)/mean S > threshold, the mean being that of the rows before it. MTAD-GAT (Zhao et
al. 2020) uses threshold 3. The score is not clipped to [0, 1]: clipped, it could never exceed 3.
"""

import numpy as np
from scipy import ndimage

SPECTRUM_ROWS = 3  # frequencies in the moving average of the log spectrum (q of Ren et al. 2019)
LOCAL_ROWS = 21  # preceding rows in the local mean of the saliency (z of Ren et al. 2019)
SPECTRUM_FLOOR = 1e-8  # of the largest amplitude: where the logarithm is cut; near the FFT's own rounding
MAX_FLAGGED_SHARE = 0.05  # a metric that "spikes" more often than this does so normally, and is left as it is
MAX_RESTING_SHARE = 0.5  # likewise one that rests at a single value longer: there every move stands out
MIN_ROWS = 2 * LOCAL_ROWS  # below, the spectrum is too coarse to say anything


def spectral_residual_score(x: np.ndarray) -> np.ndarray:
  """Returns how much the saliency of each row exceeds its local mean, (S - mean S)/mean S.

  Args:
    x: [T] one metric, no NaN.

  Returns:
    [T] float64; 0 everywhere for a constant metric or one of less than 42 rows. The first row, which has no
    row before it, scores 0.
  """
  if len(x) < MIN_ROWS or np.ptp(x) == 0:
    return np.zeros(len(x))
  spectrum = np.fft.fft(x / np.max(np.abs(x)))
  amplitude = np.abs(spectrum)
  log_amplitude = np.log(np.maximum(amplitude, SPECTRUM_FLOOR * amplitude.max()))
  # the spectrum of sampled data is periodic, hence the wrap
  average = ndimage.uniform_filter1d(log_amplitude, SPECTRUM_ROWS, mode="wrap")
  # exp(L - average + iP) = spectrum * exp(-average): the phase of a zero amplitude is never asked for
  saliency = np.abs(np.fft.ifft(spectrum * np.exp(-average)))
  total = np.concatenate([[0.0], np.cumsum(saliency)])
  row = np.arange(len(x))
  first = np.maximum(row - LOCAL_ROWS, 0)
  local_mean = np.where(row > 0, (total[row] - total[first]) / np.maximum(row - first, 1), saliency[0])
  return saliency / np.maximum(local_mean, SPECTRUM_FLOOR * saliency.max()) - 1.0


def _is_unsuited(column: np.ndarray) -> bool:
  """Returns whether a metric is a switch, or rests at one value for more than half of the rows."""
  _, counts = np.unique(column, return_counts=True)
  return len(counts) <= 2 or bool(counts.max() > MAX_RESTING_SHARE * len(column))


def clean(x: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
  """Returns the series with flagged rows replaced by their normal neighbours, and the flags.

  A flagged value becomes the linear interpolation between the nearest unflagged values of its metric. Not
  cleaned, and without flags, are metrics for which the method means nothing: switches and metrics that rest
  at one value for more than half of the rows (each of their moves would be flagged), and metrics of which
  more than 5% would go.

  Args:
    x: [T, F], no NaN.
    threshold: on `spectral_residual_score`.

  Returns:
    The cleaned series [T, F] float64 and the flags [T, F] bool.
  """
  cleaned = x.astype(np.float64)
  flagged = np.zeros(x.shape, bool)
  rows = np.arange(len(x))
  for index in range(x.shape[1]):
    column = cleaned[:, index].copy()
    if len(column) < MIN_ROWS or _is_unsuited(column):
      continue
    is_spike = spectral_residual_score(column) > threshold
    if np.mean(is_spike) > MAX_FLAGGED_SHARE:
      continue
    cleaned[is_spike, index] = np.interp(rows[is_spike], rows[~is_spike], column[~is_spike])
    flagged[:, index] = is_spike
  return cleaned, flagged
