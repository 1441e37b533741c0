"""How well the probabilities of a classifier agree with how often it is right."""

import numpy as np


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (Guo et al., 2017): the difference between confidence and accuracy, averaged over bins
    of equal width.

    Args:
        probabilities: (m, C).
        labels: (m,).
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[index == b].sum() - right[index == b].sum()) for b in range(bins)]
    return float(sum(gaps) / len(labels))
