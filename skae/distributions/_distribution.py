"""What every distribution has to give, and what it may give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from skae.component import Component, Range
from skae.distributions._numbers import spread
from skae.layout import Array

#: No column is trusted to be known better than this fraction of its own spread.
SMALLEST_SCALE = 1e-3


class Distribution(Component, ABC):
    """The density of one entry given the decoder's output; entries are independent.

    A subclass gives `nll`, `gradient`, `mean`, `start` and, unless it is a loss,
    `sample`. A family with shared parameters other than log-scales gives `limits`, and
    one that sets `has_scale` gives `deviation` and `scale`. All arrays broadcast: `x`
    and `eta` may carry a Monte-Carlo axis in the middle.
    """

    #: Values that the data may take; anything else is refused, naming the column.
    support: ClassVar[Range] = Range()

    #: Decoder outputs that describe one column; `eta` holds them in blocks.
    outputs_per_feature: ClassVar[int] = 1

    #: Numbers that describe one column whatever the code; `shared` has them in blocks.
    shared_per_feature: ClassVar[int] = 0

    #: True where shifting x shifts the family. Such columns are centred inside.
    has_location: ClassVar[bool] = False

    #: True where multiplying x stays in the family. Such columns are divided by their
    #: standard deviation inside.
    has_unit: ClassVar[bool] = False

    #: True where `shared` begins with the log of a scale that can be estimated from
    #: residuals. A deterministic model does so, and trains with a scale of one.
    has_scale: ClassVar[bool] = False

    #: False for losses without a probabilistic reading.
    is_likelihood: ClassVar[bool] = True

    #: True where the encoder sees something else than x.
    changes_inputs: ClassVar[bool] = False

    #: True where the columns are one variable: every row sums to one.
    sums_to_one: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let `misfit` be found anew where a subclass changes what it comes from."""
        super().__init_subclass__(**kwargs)
        changed = {"nll", "gradient"} & set(vars(cls))
        if changed and "misfit" not in vars(cls):
            cls.misfit = Distribution.misfit  # type: ignore[method-assign]

    @abstractmethod
    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write ``-log p(x | eta)`` of every entry to `out`, in nats."""

    @abstractmethod
    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write the derivatives of every entry's `nll`.

        `d_eta` has the shape of `eta`. If `d_shared` is given, its last axis is that of
        `shared`, the others are those of `eta`: nothing is summed.
        """

    def misfit(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        out: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write the sum of each row's `nll` to `out`, and what `gradient` writes.

        This is what training calls. A family may give its own, if `nll` and `gradient`
        share much of their work.
        """
        entries = d_eta[..., : x.shape[-1]]
        self.nll(x, eta, shared, entries)
        np.sum(entries, axis=-1, out=out)
        self.gradient(x, eta, shared, d_eta, d_shared)

    @abstractmethod
    def mean(self, eta: Array, shared: Array) -> Array:
        """Return the reconstruction: E[x | eta], or else the location."""

    @abstractmethod
    def start(self, mean: Array, variance: Array, n_rows: float) -> tuple[Array, Array]:
        """Return the `eta` and `shared` that give the moments of `n_rows` rows.

        Both are finite, even for a constant column or one at an end of the support.
        """

    def sample(self, eta: Array, shared: Array, rng: np.random.Generator) -> Array:
        """Draw x in the precision of `eta`; a loss is deterministic: return `mean`."""
        return self.mean(eta, shared)

    def limits(self, variance: Array) -> tuple[Array, Array]:
        """Return the lowest and the highest `shared` that may be learned.

        This default suits log-scales in units of x.
        """
        least = np.log(SMALLEST_SCALE * spread(variance))
        low = np.tile(least, self.shared_per_feature)
        return low, np.full_like(low, np.inf)

    def deviation(self, x: Array, eta: Array, out: Array) -> None:
        """Write the statistic whose average over rows determines the scale."""
        raise NotImplementedError

    def scale(self, deviation: Array) -> Array:
        """Return the scale, given the average deviation."""
        raise NotImplementedError

    def information(self, eta: Array, shared: Array) -> Array:
        """Return the Fisher information of each output, the mean of its squared slope.

        It broadcasts to the shape of `eta`. Losses have none.
        """
        raise NotImplementedError

    def whiten(self, eta: Array, shared: Array, tangents: Array) -> None:
        """Multiply derivatives of `eta` by a root of its Fisher information, in place.

        `tangents` has one axis more than `eta`, before the last.
        """
        tangents *= np.sqrt(self.information(eta, shared))[..., None, :]

    def inputs(self, x: Array, out: Array) -> None:
        """Write what the encoder sees: x, or ``log(1 + x)`` if it `changes_inputs`.

        `out` may be `x` itself.
        """
        if self.changes_inputs:
            np.log1p(x, out=out)
        else:
            np.copyto(out, x)

    # --- which columns are what ---------------------------------------------------

    def parts(self, n_features: int) -> list[tuple[Distribution, Any]]:
        """Return the simple distributions, and the columns that each describes."""
        return [(self, slice(None))]

    def n_outputs(self, n_features: int) -> int:
        """Return the length of `eta`."""
        return self.outputs_per_feature * n_features

    def n_shared(self, n_features: int) -> int:
        """Return the length of `shared`."""
        return self.shared_per_feature * n_features

    def centred(self, n_features: int) -> Array:
        """Return which columns are centred inside."""
        return np.full(n_features, self.has_location)

    def scaled(self, n_features: int) -> Array:
        """Return which columns are divided by their unit inside."""
        return np.full(n_features, self.has_unit)
