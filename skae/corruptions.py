"""A corruption damages a batch; the network learns to undo the damage.

Draws come from 16-bit words (or 32-bit normals): more bits per entry would cost more
than the arithmetic they feed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

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
    size = math.prod(shape)
    long = rng.integers(2**64 - 1, size=-(-size // 4), dtype=np.uint64, endpoint=True)
    return long.view(np.uint16)[:size].reshape(shape)


def below(words: Array, probability: float) -> Array:
    """Return where uniform `words` fall in the lowest `probability` of their range.

    The probability is rounded to a multiple of 2**-16.
    """
    limit = round(probability * WORD)
    if limit == WORD:
        return np.ones(words.shape, dtype=bool)
    return np.asarray(words < np.uint16(limit))


class Corruption(Component, ABC):
    """A random damage of a batch of rows."""

    #: Levels that make sense; zero always means no corruption.
    levels: ClassVar[Range] = Range(0.0, 1.0)

    #: Whether a level above zero changes anything at all.
    is_random: ClassVar[bool] = True

    #: Whether what becomes of a row depends on the rows of its batch.
    rows_meet: ClassVar[bool] = False

    @abstractmethod
    def draw(self, shape: tuple[int, int], level: float, rng: Generator) -> Any:
        """Return all the randomness that a batch of this shape needs.

        It is an array with one entry for each row, unless `rows_meet`.
        """

    @abstractmethod
    def corrupt(self, x: Array, draws: Any, level: float, bounds: Bounds) -> None:
        """Damage the batch `x` in place; nothing is random any more.

        Unless `rows_meet`, `x` and `draws` may be some rows of a batch. Rows come as
        the network sees them: standardized columns have mean zero and standard
        deviation one. `bounds` are the smallest and the largest value of each column
        in the training data, in the same units.
        """


class NoCorruption(Corruption):
    """Leave every entry alone, whatever the level: the plain autoencoder."""

    levels = Range(0.0)
    is_random = False

    def draw(self, shape: tuple[int, int], level: float, rng: Generator) -> Any:
        """Draw nothing."""
        return np.empty((shape[0], 0))

    def corrupt(self, x: Array, draws: Any, level: float, bounds: Bounds) -> None:
        """Do nothing."""


class Masking(Corruption):
    """Set each entry to zero with probability `level`; the others are not rescaled.

    Zero is the column's mean where columns are standardized. Vincent, Larochelle,
    Bengio & Manzagol (2008), "Extracting and composing robust features with denoising
    autoencoders", ICML.
    """

    def draw(self, shape: tuple[int, int], level: float, rng: Generator) -> Any:
        """Return uniform words."""
        return random_words(shape, rng)

    def corrupt(self, x: Array, draws: Any, level: float, bounds: Bounds) -> None:
        """Multiply by ``1 - m``, m ~ Bernoulli(level)."""
        x *= ~below(draws, level)


class AdditiveGaussian(Corruption):
    """Add normal noise of standard deviation `level`.

    The unit is one standard deviation of the column where columns are standardized,
    and the unit of X otherwise.
    """

    levels = Range(0.0)

    def draw(self, shape: tuple[int, int], level: float, rng: Generator) -> Any:
        """Return e ~ N(0, 1), in single precision."""
        return rng.standard_normal(shape, dtype=np.float32)

    def corrupt(self, x: Array, draws: Any, level: float, bounds: Bounds) -> None:
        """Add ``level * e``."""
        x += level * draws


class SaltAndPepper(Corruption):
    """Set each entry to its column's minimum or maximum with probability `level`.

    Either extreme is as likely as the other. Vincent et al. (2010), "Stacked denoising
    autoencoders", JMLR 11.
    """

    def draw(self, shape: tuple[int, int], level: float, rng: Generator) -> Any:
        """Return uniform words."""
        return random_words(shape, rng)

    def corrupt(self, x: Array, draws: Any, level: float, bounds: Bounds) -> None:
        """Cut [0, level) in two: pepper in the lower half, salt in the upper one."""
        pepper, salt = bounds
        np.copyto(x, salt, where=below(draws, level))
        np.copyto(x, pepper, where=below(draws, level / 2))


class SwapNoise(Corruption):
    """Replace each entry by the same column of another row with probability `level`.

    The other row is drawn evenly from the rest of the batch, so that a column keeps its
    own distribution; a batch of a single row is left alone.
    """

    rows_meet = True

    def draw(self, shape: tuple[int, int], level: float, rng: Generator) -> Any:
        """Return the chosen (i, j), and s of 0 < s < n for each."""
        n_rows = shape[0] if shape[0] > 1 else 0
        row, column = np.nonzero(below(random_words((n_rows, shape[1]), rng), level))
        step = rng.integers(1, max(2, n_rows), size=len(row), dtype=np.uint32)
        return row, column, step

    def corrupt(self, x: Array, draws: Any, level: float, bounds: Bounds) -> None:
        """Write ``x[(i + s) mod n, j]`` at (i, j)."""
        row, column, step = draws
        x[row, column] = x[(row + step) % len(x), column]


CORRUPTIONS: dict[str, type[Corruption]] = {
    "gaussian": AdditiveGaussian,
    "masking": Masking,
    "none": NoCorruption,
    "salt_and_pepper": SaltAndPepper,
    "swap": SwapNoise,
}
