"""Fixed draws of standard normals, the same in every call and for every row.

They come from a scrambled Sobol sequence, which fills the space more evenly than
pseudo-random numbers do.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg, special
from scipy.stats import qmc

from skae.layout import Array

__all__ = ["balanced_draws", "normal_draws"]

#: Seed of the scrambling; any number would do.
SEED = 20_140_416

#: Points of the sequence are multiples of two to the power of minus so many bits.
BITS = 30


def normal_draws(n_samples: int, n_components: int) -> Array:
    """Return draws of shape (n_samples, n_components), for all rows the same.

    The points of the sequence are moved by half of their spacing, away from zero and
    one, before the inverse of the normal distribution function is taken.
    """
    sequence = qmc.Sobol(n_components, bits=BITS, seed=np.random.default_rng(SEED))
    points = sequence.random_base2((n_samples - 1).bit_length())[:n_samples]
    return np.asarray(special.ndtri(points + 0.5 ** (BITS + 1)))


def balanced_draws(n_samples: int, n_components: int) -> Array:
    """Return draws whose sample mean is zero and, if they are many, covariance one.

    Averages of linear functions are then exact; with more than twice as many draws as
    components also those of quadratic ones, such as the evidence lower bound of a
    linear Gaussian model. Fewer draws come in pairs of opposite sign.
    """
    if n_samples > 2 * n_components:
        draws = normal_draws(n_samples, n_components)
        draws = draws - draws.mean(axis=0)
        root = np.linalg.cholesky(draws.T @ draws / n_samples)
        return np.asarray(linalg.solve_triangular(root, draws.T, lower=True).T)
    half = normal_draws((n_samples + 1) // 2, n_components)
    odd = half[-1:] if n_samples % 2 else half[:0]
    paired = half[: n_samples // 2]
    return np.concatenate([paired, -paired, odd])
