"""A corruption damages a batch; the network learns to undo the damage.

Draws come from 16-bit words (or 32-bit normals): more bits per entry would cost more
than the arithmetic they feed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from skae.component import Component, Range
from skae.layout import Array

__all__ = [
    "CORRUPTIONS",
    "AdditiveGaussian",
    "Corruption",
    "Masking",
    "NoCorruption",
    "SaltAndPepper",
    "SwapNoise",
]

Bounds = tuple[Array, Array]
WORD = 2**16


def random_words(shape: tuple[int, ...], rng: Generator) -> Array:
    """Return uniform words; `below` turns them into events of any probability."""
    return rng.integers(WORD, size=shape, dtype=np.uint16)


def below(words: Array, probability: float) -> Array:
    """Return where uniform `words` fall in the lowest `probability` of their range.

    The probability is rounded to a multiple of 2**-16.
    """
    return np.asarray(words < np.uint32(round(probability * WORD)))


class Corruption(Component, ABC):
    """A random damage of a batch of rows."""

    #: Levels that make sense; zero always means no corruption.
    levels: ClassVar[Range] = Range(0.0, 1.0)

    #: Whether a level above zero changes anything at all.
    is_random: ClassVar[bool] = True

    @abstractmethod
    def corrupt(self, x: Array, level: float, bounds: Bounds, rng: Generator) -> None:
        """Damage the batch `x` in place.

        Rows come as the network sees them: standardized columns have mean zero and
        standard deviation one. `bounds` are the smallest and the largest value of
        each column in the training data, in the same units.
        """


class NoCorruption(Corruption):
    """Leave every entry alone, whatever the level: the plain autoencoder."""

    levels = Range(0.0)
    is_random = False

    def corrupt(self, x: Array, level: float, bounds: Bounds, rng: Generator) -> None:
        """Do nothing."""


class Masking(Corruption):
    """Set each entry to zero with probability `level`; the others are not rescaled.

    Zero is the column's mean where columns are standardized. Vincent, Larochelle,
    Bengio & Manzagol (2008), "Extracting and composing robust features with denoising
    autoencoders", ICML.
    """

    def corrupt(self, x: Array, level: float, bounds: Bounds, rng: Generator) -> None:
        """Multiply by ``1 - m``, m ~ Bernoulli(level)."""
        x *= ~below(random_words(x.shape, rng), level)


class AdditiveGaussian(Corruption):
    """Add normal noise of standard deviation `level`.

    The unit is one standard deviation of the column where columns are standardized,
    and the unit of X otherwise.
    """

    levels = Range(0.0)

    def corrupt(self, x: Array, level: float, bounds: Bounds, rng: Generator) -> None:
        """Add ``level * e``, e ~ N(0, 1), drawn in single precision."""
        noise = rng.standard_normal(x.shape, dtype=np.float32)
        noise *= level
        x += noise


class SaltAndPepper(Corruption):
    """Set each entry to its column's minimum or maximum with probability `level`.

    Either extreme is as likely as the other. Vincent et al. (2010), "Stacked denoising
    autoencoders", JMLR 11.
    """

    def corrupt(self, x: Array, level: float, bounds: Bounds, rng: Generator) -> None:
        """Cut [0, level) in two: pepper in the lower half, salt in the upper one."""
        words, (pepper, salt) = random_words(x.shape, rng), bounds
        np.copyto(x, salt, where=below(words, level))
        np.copyto(x, pepper, where=below(words, level / 2))


class SwapNoise(Corruption):
    """Replace each entry by the same column of another row with probability `level`.

    The other row is drawn evenly from the rest of the batch, so that a column keeps its
    own distribution; a batch of a single row is left alone.
    """

    def corrupt(self, x: Array, level: float, bounds: Bounds, rng: Generator) -> None:
        """Write ``x[(i + s) mod n, j]`` at the chosen (i, j), 0 < s < n."""
        n_rows = len(x)
        if n_rows > 1:
            row, column = np.nonzero(below(random_words(x.shape, rng), level))
            step = rng.integers(1, n_rows, size=len(row), dtype=np.uint32)
            x[row, column] = x[(row + step) % n_rows, column]


CORRUPTIONS: dict[str, type[Corruption]] = {
    "gaussian": AdditiveGaussian,
    "masking": Masking,
    "none": NoCorruption,
    "salt_and_pepper": SaltAndPepper,
    "swap": SwapNoise,
}
