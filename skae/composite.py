"""Columns of several kinds: each part of them has its own distribution.

What a user gives as `distribution` becomes a plain description here, that is a name, an
instance, or a list of pairs (name or instance, list of column numbers). A fitted model
stores it, and `as_distribution` alone makes an object of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from skae._validation import LISTED, clone, column_indices, column_name
from skae.component import resolve
from skae.distributions import DISTRIBUTIONS, Distribution
from skae.layout import Array

__all__ = ["Composite", "as_distribution", "culprits", "named", "plain"]

#: What describes the distribution of each column in plain words.
Plain = str | Distribution | list[tuple[str | Distribution, list[int]]]


# --- several distributions as one ---------------------------------------------------


class Section(NamedTuple):
    """One member, its columns, and its places in `eta` and `shared`."""

    member: Distribution
    columns: Any
    n_features: int
    outputs: slice
    shared: slice

    def of(self, a: Array) -> Array:
        """Return the columns of an array: a view where they are adjacent."""
        if isinstance(self.columns, slice):
            return a[..., self.columns]
        return np.asarray(np.take(a, self.columns, axis=-1))

    def keep(self, a: Array, piece: Array) -> None:
        """Write `piece`, which `of` returned for `a`, back to where it came from."""
        if not isinstance(self.columns, slice):
            a[..., self.columns] = piece


class Composite(Distribution):
    r"""Several distributions, each for its own columns.

    .. math:: -\log p(x | \eta) = -\sum_i \log p_i(x_{C_i} | \eta_i)

    Every column belongs to exactly one part :math:`C_i`. `eta` and `shared` hold the
    parts one after the other, each with its own blocks inside.

    Parameters
    ----------
    members : list of (str or Distribution, list of int)
        The parts.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"members": [list]}

    def __init__(self, members: list[tuple[str | Distribution, list[int]]]) -> None:
        self.members = members

    @property
    def sections(self) -> list[Section]:
        """The parts with their places; found once for each list of members."""
        known = vars(self).get("_known")
        if known is None or known[0] is not self.members:
            known = self._known = self.members, sections(self.members)
        return known[1]

    @property
    def is_likelihood(self) -> bool:  # type: ignore[override]
        """Whether every part is a likelihood."""
        return all(part.member.is_likelihood for part in self.sections)

    @property
    def changes_inputs(self) -> bool:  # type: ignore[override]
        """Whether the encoder sees something else than x in some column."""
        return any(part.member.changes_inputs for part in self.sections)

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write each part's loss to its columns."""
        for part in self.sections:
            own, piece = eta[..., part.outputs], part.of(out)
            part.member.nll(part.of(x), own, shared[part.shared], piece)
            part.keep(out, piece)

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write each part's derivatives to its places."""
        for part in self.sections:
            part.member.gradient(
                part.of(x),
                eta[..., part.outputs],
                shared[part.shared],
                d_eta[..., part.outputs],
                None if d_shared is None else d_shared[..., part.shared],
            )

    def mean(self, eta: Array, shared: Array) -> Array:
        """Return each part's mean in its columns."""
        out = np.empty((*eta.shape[:-1], self.n_columns), eta.dtype)
        for part in self.sections:
            own = eta[..., part.outputs], shared[part.shared]
            out[..., part.columns] = part.member.mean(*own)
        return out

    def sample(self, eta: Array, shared: Array, rng: np.random.Generator) -> Array:
        """Draw each part's columns, one part after the other."""
        out = np.empty((*eta.shape[:-1], self.n_columns), eta.dtype)
        for part in self.sections:
            own = eta[..., part.outputs], shared[part.shared]
            out[..., part.columns] = part.member.sample(*own, rng)
        return out

    def start(self, mean: Array, variance: Array, n_rows: float) -> tuple[Array, Array]:
        """Return each part's start."""
        found = [
            part.member.start(part.of(mean), part.of(variance), n_rows)
            for part in self.sections
        ]
        return chained(eta for eta, _ in found), chained(shared for _, shared in found)

    def limits(self, variance: Array) -> tuple[Array, Array]:
        """Return each part's limits."""
        found = [part.member.limits(part.of(variance)) for part in self.sections]
        return chained(low for low, _ in found), chained(high for _, high in found)

    def deviation(self, x: Array, eta: Array, out: Array) -> None:
        """Write each part's deviation, and zero where there is no scale."""
        for part in self.sections:
            if part.member.has_scale:
                piece = part.of(out)
                part.member.deviation(part.of(x), eta[..., part.outputs], piece)
                part.keep(out, piece)
            else:
                out[..., part.columns] = 0.0

    def scale(self, deviation: Array) -> Array:
        """Return each part's scale, and one where there is none."""
        out = np.ones_like(deviation)
        for part in self.sections:
            if part.member.has_scale:
                out[..., part.columns] = part.member.scale(part.of(deviation))
        return out

    def information(self, eta: Array, shared: Array) -> Array:
        """Return each part's Fisher information, in its places in `eta`."""
        out = np.empty_like(eta)
        for part in self.sections:
            own = eta[..., part.outputs], shared[part.shared]
            out[..., part.outputs] = part.member.information(*own)
        return out

    def whiten(self, eta: Array, shared: Array, tangents: Array) -> None:
        """Multiply each part's derivatives by its root."""
        for part in self.sections:
            own = eta[..., part.outputs], shared[part.shared]
            part.member.whiten(*own, tangents[..., part.outputs])

    def inputs(self, x: Array, out: Array) -> None:
        """Write what the encoder sees of each part."""
        for part in self.sections:
            piece = part.of(out)
            part.member.inputs(part.of(x), piece)
            part.keep(out, piece)

    # --- which columns are what: the members know, whatever is given ----------------

    @property
    def n_columns(self) -> int:
        """Number of columns of all parts together."""
        return sum(part.n_features for part in self.sections)

    def parts(self, n_features: int) -> list[tuple[Distribution, Any]]:
        """Return the members, and the columns that each describes."""
        return [(part.member, part.columns) for part in self.sections]

    def n_outputs(self, n_features: int) -> int:
        """Return the length of `eta`."""
        return max((part.outputs.stop for part in self.sections), default=0)

    def n_shared(self, n_features: int) -> int:
        """Return the length of `shared`."""
        return max((part.shared.stop for part in self.sections), default=0)

    def centred(self, n_features: int) -> Array:
        """Return which columns are centred inside."""
        return self._mask("centred")

    def scaled(self, n_features: int) -> Array:
        """Return which columns are divided by their unit inside."""
        return self._mask("scaled")

    def _mask(self, question: str) -> Array:
        """Return what the members answer for their columns."""
        out = np.empty(self.n_columns, dtype=bool)
        for part in self.sections:
            out[part.columns] = getattr(part.member, question)(part.n_features)
        return out


def sections(members: list[tuple[str | Distribution, list[int]]]) -> list[Section]:
    """Give each member its places, one after the other."""
    found, outputs, shared = [], 0, 0
    for given, columns in members:
        member = DISTRIBUTIONS[given]() if isinstance(given, str) else given
        n = len(columns)
        ends = outputs + member.n_outputs(n), shared + member.n_shared(n)
        own = slice(outputs, ends[0]), slice(shared, ends[1])
        found.append(Section(member, adjacent(columns), n, *own))
        outputs, shared = ends
    return found


def adjacent(columns: list[int]) -> slice | Array:
    """Return adjacent columns as a slice, so that picking them copies nothing."""
    start = columns[0] if columns else 0
    if columns == list(range(start, start + len(columns))):
        return slice(start, start + len(columns))
    return np.array(columns, dtype=np.intp)


def chained(pieces: Iterable[Array]) -> Array:
    """Put arrays one after the other; there may be none."""
    return np.concatenate([*pieces, np.empty(0)])


# --- from what the user gives to a plain description, and on ------------------------


def as_distribution(value: Plain) -> Distribution:
    """Return the distribution that a plain description stands for."""
    if isinstance(value, list):
        return as_distribution(Composite(value))
    check_known(value)
    distribution: Distribution = resolve(value, DISTRIBUTIONS)
    if isinstance(distribution, Composite):
        for member, _ in distribution.members:
            as_distribution(member)
    return distribution


def plain(spec: Any, X: Any, data: Any, names: Any) -> Plain:
    """Describe what the user gave as `distribution` in plain words.

    Parameters
    ----------
    spec : str, Distribution or list of (str or Distribution, columns)
        What the user gave. Columns are meant as scikit-learn's ColumnTransformer means
        them: names, positions, slices, a mask, or a function of X that returns these.
    X : object
        The data as the user gave them.
    data : ndarray or CSR matrix of shape (n_samples, n_features)
        The same after validation.
    names : ndarray of str or None
        The columns' names.
    """
    if isinstance(spec, Composite):
        spec = spec.members
    if not isinstance(spec, list):
        return own(spec)
    if not spec:
        raise ValueError(
            "distribution=[] has no part; it must be a list of pairs (distribution, "
            "columns)."
        )
    found = [one_part(i, entry, X, data, names) for i, entry in enumerate(spec)]
    check_cover(found, data.shape[1], names)
    return [(member, columns) for member, columns in found if columns]


def own(given: Any) -> str | Distribution:
    """Return a name as it is and a copy of an instance."""
    check_known(given)
    if isinstance(given, Distribution):
        copy: Distribution = clone(given, safe=False)
        return copy
    return str(given)


def check_known(given: Any) -> None:
    """Refuse what is neither the name of a distribution nor a distribution."""
    if isinstance(given, Distribution) or (
        isinstance(given, str) and given in DISTRIBUTIONS
    ):
        return
    raise ValueError(
        f"distribution={given!r} is not known. It must be a Distribution or one of "
        f"{', '.join(map(repr, DISTRIBUTIONS))}."
    )


def one_part(
    i: int, entry: Any, X: Any, data: Any, names: Any
) -> tuple[str | Distribution, list[int]]:
    """Describe one part, with its columns as numbers."""
    if not isinstance(entry, (list, tuple)) or len(entry) != 2:
        raise ValueError(
            f"Part {i} of distribution is {entry!r}; it must be a pair (distribution, "
            f"columns)."
        )
    given, key = entry
    if isinstance(given, (list, Composite)):
        raise ValueError(
            f"Part {i} of distribution holds {given!r}; a part must have one "
            f"distribution, and lists cannot be nested."
        )
    try:
        return own(given), column_indices(X, data, key, names)
    except ValueError as error:
        raise ValueError(f"Part {i} of distribution: {error}") from None


def check_cover(
    parts: list[tuple[str | Distribution, list[int]]], n_features: int, names: Any
) -> None:
    """Refuse columns that are in no part, or more than once in one."""
    owner = np.full(n_features, -1)
    for i, (_, columns) in enumerate(parts):
        for j in columns:
            if owner[j] >= 0:
                raise ValueError(
                    f"Column {column_name(j, names)} is given twice in distribution, "
                    f"in part {owner[j]} ({parts[owner[j]][0]!r}) and in part {i} "
                    f"({parts[i][0]!r}); it must be in one part."
                )
            owner[j] = i
    missing = np.flatnonzero(owner < 0).tolist()
    if missing:
        raise ValueError(
            f"{capital(columns_text(missing, names))} in no part of distribution; "
            f"every column must be in one."
        )


def capital(text: str) -> str:
    """Make a list of columns the beginning of a sentence, up to its verb."""
    verb = "is" if text.startswith("column ") else "are"
    return f"{text[0].upper()}{text[1:]} {verb}"


def columns_text(columns: list[int], names: Any) -> str:
    """Return how to call some columns: by their names if they have them."""
    called = [repr(str(names[j])) if names is not None else str(j) for j in columns]
    rest = len(called) - LISTED
    listed = ", ".join(called[:LISTED]) + (f", ... and {rest} more" if rest > 0 else "")
    return f"{'column' if len(called) == 1 else 'columns'} {listed}"


def named(description: Plain, names: Any) -> Any:
    """Return a plain description with columns by name, where each has its own name."""
    if not isinstance(description, list):
        return own(description)
    unique = names is not None and len(set(names)) == len(names)
    return [
        (own(member), [str(names[j]) if unique else j for j in columns])
        for member, columns in description
    ]


def culprits(spec: Any, names: Any = None) -> str | None:
    """Name the losses without a probabilistic reading, and their columns.

    Before a fit `spec` is what the user gave, of any type; afterwards it is a plain
    description. None if there is no such loss.
    """
    if isinstance(spec, Composite):
        spec = spec.members
    if not isinstance(spec, list):
        return None if is_likelihood(spec) else repr(spec)
    pairs = [entry for entry in spec if isinstance(entry, (list, tuple))]
    found = [
        f"{entry[0]!r} ({selection_text(entry[1], names)})"
        for entry in pairs
        if len(entry) == 2 and not is_likelihood(entry[0])
    ]
    return " and ".join(found) or None


def is_likelihood(given: Any) -> bool:
    """Tell whether a name or an instance stands for a likelihood, or for nothing."""
    member = DISTRIBUTIONS.get(given) if isinstance(given, str) else given
    return bool(getattr(member, "is_likelihood", True))


def selection_text(key: Any, names: Any) -> str:
    """Return how to call columns that may not have been looked up yet."""
    keys = key if isinstance(key, list) else [key]
    if all(type(j) is int and j >= 0 for j in keys):
        return columns_text(keys, names)
    if all(isinstance(j, str) for j in keys):
        return columns_text(list(range(len(keys))), keys)
    return f"columns {key!r}"
