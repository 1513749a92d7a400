"""Dense layers: forward, backward, and the memory that both need.

Structure, numbers and scratch are three things. A `Chain` says where its weights are
and holds none; the numbers are views of one flat vector, made by `Chain.of`; a `Tape`
is the memory for one batch.

The backward pass has two phases that split without locks. `Chain.backward` finds the
deltas and works row by row of the *batch*; `Chain.gradients` forms the products for
the weights and works row by row of the *weights*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from skae.activations import ACTIVATIONS, Activation
from skae.layout import Array, Layout, Slot

__all__ = [
    "Chain",
    "Dense",
    "Padded",
    "Tape",
    "Views",
    "encoder_decoder",
    "initialize",
]

#: Rows of a weight whose gradient is formed at once: few enough to be added while the
#: product is still in the cache, enough to keep the product itself efficient.
BLOCK = 256

#: Where products with a transposed weight are found the other way round.
FEW_ROWS, MANY_WEIGHTS = 128, 2**17

#: Shapes of weights, and rows, of products that show whether a row's place matters.
PROBED, PROBED_ROWS = ((8, 64), (64, 8), (64, 24), (256, 256)), 128

#: Layers at inference are a multiple of this wide, as the widest vector registers, and
#: blocks of rows a multiple of this high.
WIDTH, HEIGHT = 8, 8

#: Weights and bias of each layer, as views of a flat vector.
Views = list[tuple[Array, Array]]


@dataclass(frozen=True)
class Dense:
    """The places and the activation of one layer, ``f(x W + b)``."""

    weight: Slot
    bias: Slot
    activation: str

    @property
    def function(self) -> Activation:
        """The activation and its derivative."""
        return ACTIVATIONS[self.activation]

    @property
    def widths(self) -> tuple[int, int]:
        """Number of inputs and of outputs."""
        n_in, n_out = self.weight.shape
        return (n_out, n_in) if self.weight.transposed else (n_in, n_out)


class Tape:
    """Activations and deltas of every layer of a chain, for a batch of rows.

    Attributes
    ----------
    outputs, deltas : list of ndarray of shape (n_rows, n_outputs)
        What each layer returned, and the loss's derivative with respect to it.
    scratch : list of ndarray of shape (n_rows, n_outputs)
        Free space; all layers share its memory.
    """

    def __init__(
        self, outputs: list[Array], deltas: list[Array], scratch: list[Array]
    ) -> None:
        self.outputs, self.deltas, self.scratch = outputs, deltas, scratch

    @classmethod
    def empty(
        cls, chain: Chain, n_rows: int, dtype: np.dtype[Any], forward_only: bool = False
    ) -> Tape:
        """Allocate the memory for `n_rows` rows; there may be no way back."""
        widths = [layer.widths[1] for layer in chain.layers]
        free = np.empty((n_rows, max(widths)), dtype)
        outputs = [np.empty((n_rows, width), dtype) for width in widths]
        deltas = [] if forward_only else [np.empty_like(output) for output in outputs]
        return cls(outputs, deltas, [free[:, :width] for width in widths])

    def rows(self, start: int, stop: int) -> Tape:
        """Return the same memory, seen through rows `start` to `stop`."""
        every = (self.outputs, self.deltas, self.scratch)
        return Tape(*([a[start:stop] for a in arrays] for arrays in every))


@dataclass(frozen=True)
class Chain:
    """Layers applied one after the other."""

    layers: tuple[Dense, ...]

    def of(self, flat: Array) -> Views:
        """Return each layer's weights and bias, as views of `flat`."""
        return [(layer.weight.of(flat), layer.bias.of(flat)) for layer in self.layers]

    def forward(self, views: Views, x: Array, tape: Tape) -> Array:
        """Write every layer's output to the tape; return the last."""
        for k, layer in enumerate(self.layers):
            weight, bias = views[k]
            a = tape.outputs[k]
            np.matmul(x, weight, out=a)
            a += bias
            layer.function.apply(a, tape.scratch[k])
            x = a
        return x

    def backward(self, views: Views, tape: Tape, d_x: Array | None = None) -> None:
        """Turn the last delta, ``dL/d output``, into every layer's ``dL/dz``.

        Overwrites the tape's deltas, and `d_x` (if given) by ``dL/dx``.
        """
        for k in reversed(range(len(self.layers))):
            a, d = tape.outputs[k], tape.deltas[k]
            self.layers[k].function.chain(a, d, tape.scratch[k])
            below = tape.deltas[k - 1] if k else d_x
            if below is not None:
                times_transposed(d, views[k][0], below)

    def gradients(
        self,
        grads: Views,
        x: Array,
        tape: Tape,
        rows: dict[int, slice],
        fresh: bool = False,
    ) -> None:
        """Add ``dL/dW`` and ``dL/db`` to `grads`; `x` is the chain's input.

        Because it adds, weights that two layers share need no special care. If `fresh`,
        what was there before does not count; tied weights are added all the same.
        Only the `rows` of each stored weight and bias are written, as `layout.pieces`
        names them.
        """
        ones = np.ones(len(x), x.dtype)
        for k, layer in enumerate(self.layers):
            (d_weight, d_bias), d = grads[k], tape.deltas[k]
            mine, columns = rows[layer.weight.start], rows[layer.bias.start]
            # The stored matrix is W or, in a tied layer, its transpose.
            if layer.weight.transposed:
                add_product(d, x, d_weight.T, mine)
            elif fresh:
                np.matmul(x[:, mine].T, d, out=d_weight[mine])
            else:
                add_product(x, d, d_weight, mine)
            if fresh:
                np.matmul(ones, d[:, columns], out=d_bias[columns])
            else:
                d_bias[columns] += ones @ d[:, columns]
            x = tape.outputs[k]


def times_transposed(d: Array, weight: Array, out: Array) -> None:
    """Write ``d W^T``; of few rows as the transpose of ``W d^T``, which is faster."""
    if len(d) <= FEW_ROWS and weight.size >= MANY_WEIGHTS:
        np.copyto(out.T, np.matmul(weight, d.T))
    else:
        np.matmul(d, weight.T, out=out)


def add_product(left: Array, right: Array, target: Array, rows: slice) -> None:
    """Add ``left^T right`` to some rows of `target`, block by block."""
    for start in range(rows.start, rows.stop, BLOCK):
        block = slice(start, min(start + BLOCK, rows.stop))
        target[block] += left[:, block].T @ right


def encoder_decoder(
    layout: Layout,
    down: Sequence[int],
    up: Sequence[int],
    activations: tuple[Sequence[str], Sequence[str]],
    tied: bool = False,
) -> tuple[Chain, Chain]:
    """Lay out an encoder and a decoder.

    Parameters
    ----------
    layout : Layout
        Takes the weights first, then the biases, so that weights are one slice.
    down, up : sequence of int
        Widths of the encoder, from the input to the code, and of the decoder, from
        the code to the output.
    activations : tuple of two sequences of str
        One for each layer of the encoder, and of the decoder.
    tied : bool
        Whether the decoder's weights are the encoder's, transposed.
    """
    into = [layout.slot(*pair) for pair in pairwise(down)]
    back = [slot.T for slot in reversed(into)]
    if not tied:
        back = [layout.slot(*pair) for pair in pairwise(up)]
    return (
        _chain(layout, into, down[1:], activations[0]),
        _chain(layout, back, up[1:], activations[1]),
    )


def _chain(
    layout: Layout, weights: list[Slot], widths: Sequence[int], names: Sequence[str]
) -> Chain:
    """Give each weight a bias and an activation."""
    parts = zip(weights, widths, names, strict=True)
    return Chain(tuple(Dense(w, layout.slot(n), name) for w, n, name in parts))


def initialize(chain: Chain, theta: Array, rng: np.random.Generator) -> None:
    """Draw the weights that the chain owns, uniformly; biases stay as they are."""
    for layer in chain.layers:
        if not layer.weight.transposed:
            bound = layer.function.bound(*layer.widths)
            weight = layer.weight.of(theta)
            weight[...] = rng.uniform(-bound, bound, size=weight.shape)


class Padded:
    """A chain that computes blocks of a fixed number of rows, in wider layers.

    The layers are filled up with units that nothing reaches and nothing listens to,
    and the last block with rows of zeros. Products of matrices of such shapes have no
    ragged edges, at which a kernel would compute in another order: a row's result
    does not depend, to the last bit, on the rows that come with it. Weights that need
    no filling are not copied, unless products are found in another type: see
    `exact_type`.

    Parameters
    ----------
    chain : Chain
        What to compute.
    theta : ndarray
        The vector that holds the chain's parameters.
    n_rows : int
        Rows in a block, which are filled up to a multiple of `HEIGHT`.
    dtype : dtype
        The floating-point type of rows and outputs.
    multiple : int
        Layers are filled up to a multiple of this. With one, layers and blocks stay as
        they are, and the last bits are not warranted.
    """

    def __init__(
        self,
        chain: Chain,
        theta: Array,
        n_rows: int,
        dtype: np.dtype[Any],
        multiple: int = WIDTH,
    ) -> None:
        layout, layers, self.dtype = Layout(), [], dtype
        if multiple > 1:
            n_rows, dtype = filled_up(n_rows, HEIGHT), exact_type(dtype)
        for layer in chain.layers:
            n_in, n_out = (filled_up(width, multiple) for width in layer.widths)
            weight, bias = layout.slot(n_in, n_out), layout.slot(n_out)
            layers.append(Dense(weight, bias, layer.activation))
        self.chain = Chain(tuple(layers))
        self.views = [
            (
                filled(weight, layer.weight.shape, dtype),
                filled(bias, layer.bias.shape, dtype),
            )
            for layer, (weight, bias) in zip(layers, chain.of(theta), strict=True)
        ]
        self.tape = Tape.empty(self.chain, n_rows, dtype, forward_only=True)
        self.shape = n_rows, layers[0].widths[0]
        self.multiple, self.n_outputs = multiple, chain.layers[-1].widths[1]

    def __call__(self, x: Array) -> Array:
        """Return the output for up to `n_rows` rows; the next call overwrites it."""
        n_rows, tape = len(x), self.tape
        x = x.astype(self.dtype, copy=False)
        if self.multiple == 1:
            tape = tape.rows(0, n_rows)
        elif x.shape != self.shape or x.dtype != tape.outputs[0].dtype:
            self.block[:n_rows, : x.shape[1]] = x
            self.block[n_rows:] = 0.0
            x = self.block
        out = self.chain.forward(self.views, x, tape)[:n_rows, : self.n_outputs]
        return out.astype(self.dtype, copy=False)

    @cached_property
    def block(self) -> Array:
        """Memory for rows that have to be filled up."""
        return np.zeros(self.shape, self.tape.outputs[0].dtype)


@cache
def exact_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type in which products do not depend on where in a block a row is.

    It is the given one, unless this BLAS adds up a row's products in an order that
    changes from row to row, as kernels for AVX2 do in single precision.
    """
    draw = np.random.default_rng(0).standard_normal
    for n_in, n_out in PROBED:
        row, weight = draw(n_in).astype(dtype), draw((n_in, n_out)).astype(dtype)
        product = np.tile(row, (PROBED_ROWS, 1)) @ weight
        if (product != product[0]).any():
            return np.dtype(np.float64)
    return dtype


def filled(array: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an array with zeros added up to a shape; itself if there are none."""
    if array.shape == shape and array.dtype == dtype and array.flags.c_contiguous:
        return array
    wider = np.zeros(shape, dtype)
    wider[tuple(map(slice, array.shape))] = array
    return wider


def filled_up(width: int, multiple: int) -> int:
    """Round up to a multiple of some number."""
    return -(-width // multiple) * multiple
