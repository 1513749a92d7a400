import numpy as np
import pytest
from numerical import check_gradient

from skae import network
from skae.activations import ACTIVATIONS
from skae.layout import Layout, pieces
from skae.network import (
    BLOCK,
    FEW_ROWS,
    HEIGHT,
    MANY_WEIGHTS,
    WIDTH,
    Chain,
    Padded,
    Tape,
    encoder_decoder,
    exact_type,
    filled_up,
    initialize,
    times_transposed,
)

ALL = pytest.mark.parametrize("activation", ACTIVATIONS)


def mirrored(layout, widths, names, tied=False):
    """Lay out a decoder that mirrors the encoder; its output is linear."""
    back = [*names[-2::-1], "identity"]
    return encoder_decoder(layout, widths, widths[::-1], (names, back), tied)


class Net:
    """An encoder-decoder whose loss is a fixed linear function of its output."""

    def __init__(self, widths=(6, 5, 3), activation="tanh", tied=False, n_rows=8):
        rng = np.random.default_rng(0)
        layout = Layout()
        names = [activation] * (len(widths) - 1)
        self.down, self.up = mirrored(layout, widths, names, tied)
        self.theta = 0.3 * rng.standard_normal(layout.size)
        self.x = rng.standard_normal((n_rows, widths[0]))
        self.slope = rng.standard_normal((n_rows, widths[0]))
        self.tapes = [Tape.empty(c, n_rows, self.x.dtype) for c in (self.down, self.up)]

    def poison(self):
        for tape in self.tapes:
            for arrays in (tape.outputs, tape.deltas, tape.scratch):
                for array in arrays:
                    array.fill(np.nan)

    def loss(self, theta):
        h = self.down.forward(self.down.of(theta), self.x, self.tapes[0])
        out = self.up.forward(self.up.of(theta), h, self.tapes[1])
        return float(np.sum(self.slope * out))

    def deltas(self, theta):
        self.loss(theta)
        down, up = self.tapes
        up.deltas[-1][...] = self.slope
        self.up.backward(self.up.of(theta), up, down.deltas[-1])
        self.down.backward(self.down.of(theta), down)

    def gradient(self, theta, grad=None, parts=((0, 1),)):
        self.deltas(theta)
        grad = np.zeros_like(theta) if grad is None else grad
        down, up = self.tapes
        for part in parts:
            rows = self.rows(part)
            self.up.gradients(self.up.of(grad), down.outputs[-1], up, rows)
            self.down.gradients(self.down.of(grad), self.x, down, rows)
        return grad

    def rows(self, part=(0, 1)):
        layers = self.down.layers + self.up.layers
        return pieces([s for layer in layers for s in (layer.weight, layer.bias)], part)


@ALL
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("widths", [(6, 3), (6, 5, 3), (4, 7, 5, 9)])
def test_gradient(widths, tied, activation):
    net = Net(widths, activation, tied)
    check_gradient(net.loss, net.gradient(net.theta), net.theta)


@pytest.mark.parametrize("tied", [False, True])
def test_backward_adds(tied):
    net = Net(tied=tied)
    once = net.gradient(net.theta)
    start = np.random.default_rng(3).standard_normal(once.size)
    np.testing.assert_allclose(net.gradient(net.theta, start.copy()), start + once)


@ALL
@pytest.mark.parametrize("tied", [False, True])
def test_old_content_of_the_scratch_does_not_matter(activation, tied):
    net = Net(activation=activation, tied=tied)
    once = net.gradient(net.theta)
    net.poison()
    np.testing.assert_array_equal(net.gradient(net.theta), once)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("n_parts", [2, 3, 20])
def test_weight_phase_splits(tied, n_parts):
    net = Net(tied=tied)
    parts = [(i, n_parts) for i in range(n_parts)]
    split = net.gradient(net.theta, parts=parts)
    np.testing.assert_allclose(split, net.gradient(net.theta), rtol=1e-12)


def test_shares_write_to_different_places():
    net = Net(tied=True)
    touched = [net.gradient(net.theta, parts=[(i, 3)]) != 0 for i in range(3)]
    assert np.sum(touched, axis=0).max() == 1


def test_row_phase_splits():
    net = Net()
    whole = net.gradient(net.theta)
    net.poison()
    full_x, full_slope, full_tapes = net.x, net.slope, net.tapes
    for start, stop in ((0, 3), (3, 8)):
        net.x, net.slope = full_x[start:stop], full_slope[start:stop]
        net.tapes = [tape.rows(start, stop) for tape in full_tapes]
        net.deltas(net.theta)
    down, up = full_tapes
    grad = np.zeros_like(whole)
    rows = net.rows()
    net.up.gradients(net.up.of(grad), down.outputs[-1], up, rows)
    net.down.gradients(net.down.of(grad), full_x, down, rows)
    np.testing.assert_allclose(grad, whole, rtol=1e-12)


def test_gradient_of_a_weight_with_many_rows():
    net = Net((2 * BLOCK + 7, 4, 2))
    check_gradient(net.loss, net.gradient(net.theta), net.theta)


def test_outputs_are_written_into_the_tape():
    net = Net()
    down = net.tapes[0]
    buffers = [id(array) for array in down.outputs + down.deltas]
    out = net.down.forward(net.down.of(net.theta), net.x, down)
    assert out is down.outputs[-1]
    net.gradient(net.theta)
    assert [id(array) for array in down.outputs + down.deltas] == buffers


def test_rows_of_a_tape_are_views():
    tape = Net().tapes[0]
    part = tape.rows(2, 5)
    assert all(map(np.shares_memory, part.outputs, tape.outputs))
    assert all(map(np.shares_memory, part.deltas, tape.deltas))
    assert {len(array) for array in part.outputs} == {3}


def test_tied_decoder_reads_the_encoder_s_weights():
    net = Net((6, 5, 3), tied=True)
    encoder = [weight for weight, _ in net.down.of(net.theta)]
    decoder = [weight for weight, _ in net.up.of(net.theta)]
    for ours, theirs in zip(encoder, decoder[::-1], strict=True):
        assert np.shares_memory(ours, theirs)
        np.testing.assert_array_equal(ours.T, theirs)


@pytest.mark.parametrize(("tied", "size"), [(True, 471_784), (False, 942_184)])
def test_number_of_parameters(tied, size):
    layout = Layout()
    mirrored(layout, (784, 600), ["logistic"], tied)
    assert layout.size == size


def test_weights_come_before_biases():
    net = Net((6, 5, 3))
    layers = net.down.layers + net.up.layers
    last_weight = max(layer.weight.start for layer in layers)
    assert last_weight < min(layer.bias.start for layer in layers)


@pytest.mark.parametrize("tied", [False, True])
def test_layers_are_as_asked_for(tied):
    names = ["relu", "tanh", "logistic"], ["tanh", "relu", "identity"]
    down, up = encoder_decoder(Layout(), (9, 7, 5, 2), (2, 5, 7, 9), names, tied)
    assert [layer.widths for layer in down.layers] == [(9, 7), (7, 5), (5, 2)]
    assert [layer.widths for layer in up.layers] == [(2, 5), (5, 7), (7, 9)]
    assert tuple([layer.activation for layer in c.layers] for c in (down, up)) == names
    assert [layer.weight.transposed for layer in up.layers] == 3 * [tied]


def test_the_decoder_has_widths_of_its_own():
    """A code of two blocks, of which the decoder sees one, and outputs in blocks."""
    names = ["relu", "tanh"], ["softplus", "elu", "identity"]
    layout = Layout()
    down, up = encoder_decoder(layout, (9, 7, 4), (2, 3, 8, 27), names)
    assert [layer.widths for layer in down.layers] == [(9, 7), (7, 4)]
    assert [layer.widths for layer in up.layers] == [(2, 3), (3, 8), (8, 27)]
    weights = 9 * 7 + 7 * 4 + 2 * 3 + 3 * 8 + 8 * 27
    assert down.layers[0].bias.start == weights
    assert layout.size == weights + 7 + 4 + 3 + 8 + 27


@pytest.mark.parametrize(
    "names", [(["tanh"], ["identity", "tanh"]), (["tanh"] * 3, ["identity"])]
)
def test_every_layer_needs_an_activation(names):
    with pytest.raises(ValueError, match="zip"):
        encoder_decoder(Layout(), (9, 7, 4), (4, 9), names)


@ALL
def test_initial_weights_fill_their_bound(activation):
    layout = Layout()
    down, _ = mirrored(layout, (200, 100), [activation])
    theta = np.zeros(layout.size)
    initialize(down, theta, np.random.default_rng(0))
    weight, bias = down.of(theta)[0]
    bound = ACTIVATIONS[activation].bound(200, 100)
    assert 0.99 * bound < np.abs(weight).max() <= bound
    assert np.std(weight) == pytest.approx(bound / np.sqrt(3), rel=0.02)
    assert not bias.any()


# --- at inference ---------------------------------------------------------------------


def rng_rows(n_rows, n_columns, dtype=np.float64):
    return np.random.default_rng(5).standard_normal((n_rows, n_columns)).astype(dtype)


@pytest.mark.parametrize(
    ("width", "expected"), [(1, 8), (7, 8), (8, 8), (9, 16), (257, 264)]
)
def test_filled_up(width, expected):
    assert filled_up(width, WIDTH) == expected


@ALL
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("widths", [(6, 3), (8, 16, 8), (4, 7, 5, 9), (33, 1)])
def test_filling_up_changes_no_number(widths, tied, activation):
    net = Net(widths, activation, tied)
    for chain, x in ((net.down, net.x), (net.up, rng_rows(8, widths[-1]))):
        expected = chain.forward(chain.of(net.theta), x, Tape.empty(chain, 8, x.dtype))
        padded = Padded(chain, net.theta, 11, x.dtype)
        assert padded(x).shape == expected.shape
        np.testing.assert_allclose(padded(x), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("widths", [(5, 3), (6, 21, 2), (33, 129, 1), (1, 257)])
def test_a_row_s_result_does_not_depend_on_its_company(widths, dtype):
    net, x = Net(widths), rng_rows(16, widths[0], dtype)
    padded = Padded(net.down, net.theta, 16, x.dtype)
    together = padded(x).copy()
    assert together.dtype == dtype
    order = np.random.default_rng(6).permutation(16)
    np.testing.assert_array_equal(padded(x[order]), together[order])
    for i in range(16):
        np.testing.assert_array_equal(padded(x[[i]])[0], together[i])
        np.testing.assert_array_equal(padded(x[i:]), together[i:])


def test_earlier_rows_leave_no_trace():
    net, x = Net(), rng_rows(8, 6)
    padded = Padded(net.down, net.theta, 8, x.dtype)
    expected = padded(x[:3]).copy()
    padded(1e300 * x)
    np.testing.assert_array_equal(padded(x[:3]), expected)
    assert not padded.block[3:].any()


def test_filled_up_layers_are_copies():
    net, x = Net(tied=True), rng_rows(8, 6)
    padded = Padded(net.down, net.theta, 8, x.dtype)
    before = padded(x).copy()
    net.theta.fill(0.0)
    np.testing.assert_array_equal(padded(x), before)
    assert [layer.widths for layer in padded.chain.layers] == [(8, 8), (8, 8)]
    assert isinstance(padded.chain, Chain)


@pytest.mark.parametrize("n_rows", [1, FEW_ROWS, FEW_ROWS + 1])
@pytest.mark.parametrize("n_in", [4, MANY_WEIGHTS // 8, MANY_WEIGHTS // 8 + 1])
def test_products_with_a_transposed_weight(n_in, n_rows):
    rng = np.random.default_rng(0)
    weight, d = rng.standard_normal((n_in, 8)), rng.standard_normal((n_rows, 8))
    out = np.full((n_rows, n_in), np.nan)
    times_transposed(d, weight, out)
    np.testing.assert_allclose(out, d @ weight.T, rtol=1e-12, atol=1e-13)


def test_products_in_another_type_leave_the_type_of_outputs(monkeypatch):
    net, x = Net((8, 16)), rng_rows(16, 8, np.float32)
    monkeypatch.setattr(network, "exact_type", lambda dtype: np.dtype(np.float64))
    padded = Padded(net.down, net.theta, 16, x.dtype)
    assert padded.tape.outputs[0].dtype == np.float64
    assert padded(x).dtype == np.float32
    expected = net.down.forward(
        net.down.of(net.theta), x.astype(np.float64), Tape.empty(net.down, 16, float)
    )
    np.testing.assert_array_equal(padded(x), expected.astype(np.float32))


def test_what_shows_that_a_row_s_place_matters(monkeypatch):
    single, double = np.dtype(np.float32), np.dtype(np.float64)
    tile = np.tile

    def uneven(row, shape):
        rows = tile(row, shape)
        rows[1] *= 1 + 2 * np.finfo(row.dtype).eps
        return rows

    assert exact_type(double) == double
    exact_type.cache_clear()
    monkeypatch.setattr(network.np, "tile", uneven)
    assert exact_type(single) == double
    exact_type.cache_clear()


def test_blocks_are_filled_up():
    net, x = Net((8, 16)), rng_rows(3, 8)
    padded = Padded(net.down, net.theta, 3, x.dtype)
    assert padded.shape == (HEIGHT, 8)
    assert padded(x).shape == (3, 16)
    assert Padded(net.down, net.theta, 3, x.dtype, multiple=1).shape == (3, 8)


def test_rows_of_another_type_are_cast():
    net = Net((8, 16))
    padded = Padded(net.down, net.theta, 8, np.dtype(np.float32))
    x = rng_rows(8, 8)
    assert padded(x).dtype == np.float32
    np.testing.assert_array_equal(padded(x), padded(x.astype(np.float32)))
