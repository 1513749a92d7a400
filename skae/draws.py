"""Fixed draws of standard normals, the same in every call and for every row.

They come from a scrambled Sobol sequence, which fills the space more evenly than
pseudo-random numbers do.
"""

from __future__ import annotations

import numpy as np
from scipy import special
from scipy.stats import qmc

from skae.layout import Array

__all__ = ["normal_draws"]

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
