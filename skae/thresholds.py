"""Where to draw the line among scores, of which higher ones are more normal.

A row is an outlier if its score is smaller than the line. Weights count like numbers of
rows: a score of weight two and a score given twice are the same.
"""

from __future__ import annotations

import numpy as np

from skae.layout import Array

__all__ = ["ROUNDING", "fence", "p_values", "quantile", "threshold"]

#: A score this many interquartile ranges below the lower quartile stands out (Tukey).
WHISKER = 1.5

#: Relative rounding errors of sums of weights.
ROUNDING = 1e-12


def distinct(scores: Array, weight: Array) -> tuple[Array, Array]:
    """Return the scores in their order, without repetition, and the weight up to each.

    Scores of weight zero are absent.
    """
    seen = weight > 0
    values, place = np.unique(scores[seen], return_inverse=True)
    return values, np.cumsum(np.bincount(place.ravel(), weights=weight[seen]))


def quantile(scores: Array, weight: Array, share: float) -> float:
    """Return the smallest score up to which there is this share of the weight."""
    values, cumulated = distinct(scores, weight)
    place = np.searchsorted(cumulated, share * cumulated[-1] * (1 - ROUNDING))
    return float(values[min(place, len(values) - 1)])


def threshold(scores: Array, weight: Array, below: float) -> float:
    """Return a line with at most the weight `below` under it, and as much as possible.

    It is half-way between two scores, so that rounding never moves a row across it.
    """
    values, cumulated = distinct(scores, weight)
    place = int(np.searchsorted(cumulated, below * (1 + ROUNDING), side="right"))
    ends = values[max(place - 1, 0)], values[min(place, len(values) - 1)]
    if place == 0:  # as far below all scores as the second is above the first
        gap = values[min(1, len(values) - 1)] - values[0]
        return float(values[0] - max(0.5 * gap, np.spacing(abs(values[0]))))
    if place == len(values):
        return float(np.nextafter(values[-1], np.inf))
    line = ends[0] + 0.5 * (ends[1] - ends[0])
    return float(line if line > ends[0] else ends[1])


def fence(scores: Array, weight: Array) -> float:
    """Return the weight of the scores that stand out below.

    These are less than the lower quartile by more than 1.5 interquartile ranges.
    """
    low, high = (quantile(scores, weight, share) for share in (0.25, 0.75))
    return float(weight[scores < low - WHISKER * (high - low)].sum())


def p_values(scores: Array, known: Array, weight: Array) -> Array:
    """Return ``(1 + weight of the known scores up to each) / (1 + all weight)``."""
    values, cumulated = distinct(known, weight)
    place = np.searchsorted(values, scores, side="right")
    up_to = np.concatenate([[0.0], cumulated])[place]
    return np.asarray((1.0 + up_to) / (1.0 + cumulated[-1]))
