import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from numerical import check_gradient, support_sample
from scipy import sparse, special

from skae import stacking
from skae.activations import ACTIVATIONS
from skae.bottlenecks import Deterministic, SparseCode
from skae.corruptions import CORRUPTIONS
from skae.distributions import Bernoulli, Categorical, SquaredError
from skae.layout import Layout
from skae.model import Model, Plan
from skae.network import Chain, Dense
from skae.optimizers import OPTIMIZERS, Adam
from skae.penalties import L1, BatchTopK, Hoyer, KLDivergence, TopK
from skae.rows import Columns, Rows
from skae.stacking import (
    Codes,
    LabelledRows,
    head_outputs,
    level_trainer,
    levels,
    task,
)
from skae.training import Course, Monitor, Stopping, Trainer, lbfgs

N_ROWS, WIDTHS = 9, [6, 5, 4, 3]
COMPOSITE = [
    ("gaussian", [5]),
    ("categorical", [2, 0]),
    ("bernoulli", [3]),
    ("negative_binomial", [4, 1]),
]
FIRST = {
    "bernoulli": ("bernoulli", False),
    "composite": (COMPOSITE, False),
    "composite, learnt": (COMPOSITE, True),
    "gaussian": ("gaussian", False),
    "negative_binomial": ("negative_binomial", True),
}
every_level = pytest.mark.parametrize("k", range(3))


def make_plan(distribution="gaussian", activation="tanh", tied=False, code=None):
    into = [activation, activation, code or activation]
    back = [activation, activation, "identity"]
    return Plan(WIDTHS, WIDTHS[::-1], [into, back], tied, distribution, False)


def whole_objective(plan, level=0.3, alpha=0.1, corruption="masking", **options):
    return plan.objective(
        Deterministic(), CORRUPTIONS[corruption](), level, alpha=alpha, **options
    )


def draw_rows(family, n_rows, rng):
    """Draw rows that a distribution, or each part of a composite, can have."""
    x = np.empty((n_rows, WIDTHS[0]))
    for member, columns in family.parts(WIDTHS[0]):
        x[:, columns] = support_sample(member, x[:, columns].shape, rng)
    return x


class Case:
    """An objective with a batch in its memory, to be evaluated at any parameters."""

    def __init__(self, objective, theta, x, target=None, seed=0):
        rng = np.random.default_rng(seed)
        self.objective, self.theta = objective, theta
        self.batch = objective.batch(len(x), theta.dtype)
        self.batch.x[...] = x
        if target is not None:
            self.batch.target[...] = target
        self.batch.weight[...] = rng.dirichlet(np.full(len(x), 5.0))
        bounds = x.min(axis=0), x.max(axis=0)
        objective.draw(self.batch, rng)
        objective.see(self.batch, bounds)

    @property
    def places(self):
        """Which parameters have a gradient."""
        mask = np.zeros(len(self.theta), dtype=bool)
        for layer in self.objective.trained:
            layer.weight.of(mask)[...] = layer.bias.of(mask)[...] = True
        if self.objective.learns_shared:
            self.objective.shared.of(mask)[...] = True
        return mask

    def evaluate(self, theta):
        grad, objective = np.zeros_like(theta), self.objective
        params, grads = objective.of(theta), objective.of(grad)
        objective.encode_phase(params, self.batch)
        own = objective.meet(params, self.batch)
        loss = objective.loss_and_gradient(params, own, self.batch, grads)
        return loss.total + objective.decay(params, grads), grad

    def check(self):
        """Check the gradient of what is learnt; all else has none, to the last bit."""
        mask, grad = self.places, self.evaluate(self.theta)[1]
        assert np.count_nonzero(grad[mask]) > 0.3 * np.count_nonzero(mask)
        assert not grad[~mask].any()

        def loss(free):
            theta = self.theta.copy()
            theta[mask] = free
            return self.evaluate(theta)[0]

        check_gradient(loss, grad[mask], self.theta[mask])


def level_case(k, first="gaussian", activation="tanh", tied=False, code=None, **how):
    """Return level `k` of a network with three, and rows that it may see."""
    rng, (distribution, learns) = np.random.default_rng(0), FIRST[first]
    plan = make_plan(distribution, activation, tied, code)
    objective, size = whole_objective(plan, learns_shared=learns, **how)
    theta = 0.4 * rng.standard_normal(size)
    level = levels(objective)[k]
    x = draw_rows(objective.distribution, N_ROWS, rng)
    if k > 0:
        x = rng.uniform(size=(N_ROWS, WIDTHS[k]))
    return Case(level, theta, x)


# --- levels ---------------------------------------------------------------------------


@every_level
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_of_every_level(activation, corruption, tied, k):
    level_case(k, "gaussian", activation, tied, corruption=corruption).check()


@every_level
@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("activation", ["logistic", "tanh"])
def test_gradient_above_every_first_level(activation, tied, alpha, first, k):
    level_case(k, first, activation, tied, alpha=alpha).check()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("level", [0.0, 0.3])
@pytest.mark.parametrize(
    ("penalty", "activation"),
    [
        (KLDivergence(0.2), "logistic"),
        (L1(), "tanh"),
        (Hoyer(), "relu"),
        (TopK(2), "tanh"),
        (BatchTopK(2), "softplus"),
    ],
    ids=repr,
)
def test_gradient_of_a_first_level_with_a_penalty(penalty, activation, level, tied):
    case = level_case(0, activation=activation, tied=tied, level=level)
    bottleneck, layout = SparseCode(penalty), Layout(len(case.theta))
    own = layout.slot(bottleneck.n_own, WIDTHS[1])
    theta = np.concatenate([case.theta, np.zeros(own.size)])
    own.of(theta)[...] = bottleneck.start(WIDTHS[1])
    objective = replace(case.objective, bottleneck=bottleneck, own=own, beta=0.7)
    Case(objective, theta, case.batch.x).check()


@pytest.mark.parametrize("tied", [False, True])
def test_levels_name_every_layer_once(tied):
    objective, _ = whole_objective(make_plan(tied=tied))
    each = levels(objective)
    into = [level.encoder.layers for level in each]
    back = [level.decoder.layers for level in each]
    assert into == [(layer,) for layer in objective.encoder.layers]
    assert back == [(layer,) for layer in reversed(objective.decoder.layers)]
    assert [level.n_features for level in each] == WIDTHS[:-1]
    assert [level.n_components for level in each] == WIDTHS[1:]


@pytest.mark.parametrize("code", ["identity", "logistic", "tanh"])
@pytest.mark.parametrize("k", [1, 2])
def test_logistic_units_are_learnt_by_their_cross_entropy(k, code):
    case = level_case(k, "gaussian", "logistic", code=code, level=0.0, alpha=0.0)
    (w, b), (v, c) = weights_of(case, 0)
    z = case.batch.x @ w + b
    if k == 1 or code == "logistic":
        z = special.expit(z)
    elif code == "tanh":
        z = np.tanh(z)
    h, y = case.batch.x, special.expit(z @ v + c)
    each = -(h * np.log(y) + (1 - h) * np.log(1 - y)).sum(axis=1)
    loss, _ = case.evaluate(case.theta)
    assert loss == pytest.approx(case.batch.weight @ each, rel=1e-12)


@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS) - {"logistic"}))
@pytest.mark.parametrize("first", ["bernoulli", "negative_binomial"])
@pytest.mark.parametrize("k", [1, 2])
def test_other_units_are_learnt_by_their_squared_error(k, first, activation):
    case = level_case(k, first, activation, code="logistic", level=0.0, alpha=0.0)
    (w, b), (v, c) = weights_of(case, 0)
    z, y = case.batch.x @ w + b, None
    z = special.expit(z) if k == 2 else apply(activation, z)
    y = apply(activation, z @ v + c)
    each = np.square(case.batch.x - y).sum(axis=1)
    loss, _ = case.evaluate(case.theta)
    assert loss == pytest.approx(case.batch.weight @ each, rel=1e-12)


def apply(activation, a):
    a = a.copy()
    ACTIVATIONS[activation].apply(a, np.empty_like(a))
    return a


def weights_of(case, k):
    """Return weights and biases of a level's layers."""
    params = case.objective.of(case.theta)
    return params.encoder[k], params.decoder[k]


@every_level
def test_a_tied_gradient_is_the_sum_of_the_untied_ones(k):
    tied = level_case(k, tied=True, alpha=0.0)
    free = level_case(k, tied=False, alpha=0.0)
    for name in ("x", "x_in"):
        getattr(free.batch, name)[...] = getattr(tied.batch, name)
    free.objective.shared.of(free.theta)[...] = tied.objective.shared.of(tied.theta)
    for chain in ("encoder", "decoder"):
        layers = zip(
            getattr(free.objective, chain).of(free.theta),
            getattr(tied.objective, chain).of(tied.theta),
            strict=True,
        )
        for (w, b), (w_tied, b_tied) in layers:
            w[...], b[...] = w_tied, b_tied
    loss, grad = tied.evaluate(tied.theta)
    loss_free, grad_free = free.evaluate(free.theta)
    assert loss == loss_free
    ours, theirs = tied.objective.of(grad), free.objective.of(grad_free)
    both = theirs.encoder[0][0] + theirs.decoder[0][0].T
    np.testing.assert_allclose(ours.encoder[0][0], both, rtol=1e-10, atol=1e-14)
    np.testing.assert_array_equal(ours.encoder[0][1], theirs.encoder[0][1])
    np.testing.assert_array_equal(ours.decoder[0][1], theirs.decoder[0][1])


@pytest.mark.parametrize("tied", [False, True])
def test_the_penalty_is_that_of_the_level_s_weights(tied):
    for k in range(3):
        case, without = (level_case(k, tied=tied, alpha=alpha) for alpha in (0.6, 0.0))
        (w, _), (v, _) = weights_of(case, 0)
        square = np.sum(w**2) + (0 if tied else np.sum(v**2))
        difference = case.evaluate(case.theta)[0] - without.evaluate(case.theta)[0]
        assert difference == pytest.approx(0.3 * square)


def test_level_agrees_with_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    case = level_case(1, "gaussian", "logistic", tied=True, alpha=0.3)
    batch, objective = case.batch, case.objective
    kept = np.random.default_rng(1).uniform(size=batch.x.shape) > 0.3
    batch.x_in[...] = batch.x * kept
    theta = torch.tensor(case.theta, requires_grad=True)
    (into,), (back,) = objective.encoder.layers, objective.decoder.layers
    weight = take(theta, into.weight)
    z = torch.sigmoid(torch.tensor(batch.x * kept) @ weight + take(theta, into.bias))
    eta = z @ weight.T + take(theta, back.bias)
    nll = torch.nn.functional.binary_cross_entropy_with_logits(
        eta, torch.tensor(batch.x), reduction="none"
    )
    loss = torch.tensor(batch.weight) @ nll.sum(1) + 0.15 * (weight**2).sum()
    loss.backward()
    value, grad = case.evaluate(case.theta)
    assert value == pytest.approx(loss.item(), rel=1e-12)
    np.testing.assert_allclose(grad, theta.grad.numpy(), rtol=1e-9, atol=1e-13)


def take(theta, slot):
    view = theta[slot.start : slot.start + slot.size].reshape(slot.shape)
    return view.T if slot.transposed else view


# --- training a level -----------------------------------------------------------------


def make_trainer(
    distribution="gaussian",
    activation="tanh",
    tied=False,
    n_rows=50,
    batch_size=16,
    level=0.2,
    dtype=np.float64,
    container=np.asarray,
    weighted=False,
    shuffle=True,
    standardized=False,
):
    """Return a trainer of a whole network."""
    rng = np.random.default_rng(0)
    objective, size = whole_objective(
        make_plan(distribution, activation, tied), level, alpha=0.01
    )
    theta = (0.4 * rng.standard_normal(size)).astype(dtype)
    objective.shared.of(theta)[...] = 0.0
    X = draw_rows(objective.distribution, n_rows, rng).astype(dtype)
    weight = rng.integers(0, 4, n_rows).astype(float) if weighted else None
    index = rng.permutation(n_rows if weight is None else np.flatnonzero(weight))
    moves = (X.mean(axis=0), X.std(axis=0)) if standardized else (None, None)
    no_limits = np.zeros(objective.shared.size)
    return Trainer(
        objective,
        theta,
        Rows(container(X), index, weight, *moves),
        bounds=(X.min(axis=0), X.max(axis=0)),
        limits=(no_limits, no_limits),
        batch_size=batch_size,
        shuffle=shuffle,
        rng=rng,
    )


def places_of(level, size):
    mask = np.zeros(size, dtype=bool)
    for layer in level.trained:
        layer.weight.of(mask)[...] = layer.bias.of(mask)[...] = True
    return mask


@every_level
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("solver", OPTIMIZERS)
def test_a_level_leaves_all_others_alone_to_the_last_bit(solver, tied, k):
    whole = make_trainer(tied=tied)
    level = levels(whole.objective)[k]
    mask, before = places_of(level, whole.theta.size), whole.theta.copy()
    part, rule = level_trainer(whole, level, k), OPTIMIZERS[solver]()
    moments, others = rule.init(whole.theta), ~mask
    whole.objective.shared.of(others)[...] = k > 0
    moments.arrays[:, others] = 7.0
    for _ in range(3):
        part.epoch(rule, Course(moments), 0.1)
    np.testing.assert_array_equal(whole.theta[~mask], before[~mask])
    assert (whole.theta[mask] != before[mask]).all()
    assert (moments.arrays[:, others] == 7).all()
    assert moments.arrays[:, mask].all()


@every_level
@pytest.mark.parametrize("tied", [False, True])
def test_weights_of_the_level_alone_decay(tied, k):
    whole, rule = make_trainer(tied=tied, level=0.0), OPTIMIZERS["adamw"](alpha=0.5)
    twin, plain = make_trainer(tied=tied, level=0.0), OPTIMIZERS["adamw"](alpha=0.0)
    (layer,) = (level := levels(whole.objective)[k]).encoder.layers
    before = layer.weight.of(whole.theta).copy()
    for trainer, optimizer in ((whole, rule), (twin, plain)):
        part = level_trainer(trainer, level, k)
        moments = optimizer.init(trainer.theta)
        part.step(part.rows.index[:16], 16.0, optimizer, moments, 0.1)
    shrunk = layer.weight.of(twin.theta) - 0.05 * before
    np.testing.assert_allclose(layer.weight.of(whole.theta), shrunk, rtol=1e-9)
    np.testing.assert_array_equal(layer.bias.of(whole.theta), layer.bias.of(twin.theta))


@every_level
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("distribution", ["gaussian", "bernoulli"])
def test_lbfgs_leaves_all_other_levels_alone(distribution, dtype, k):
    whole = make_trainer(distribution, tied=True, level=0.0, dtype=dtype)
    level = levels(whole.objective)[k]
    mask, before = places_of(level, whole.theta.size), whole.theta.copy()
    monitor = Monitor(whole.theta, Stopping(0.0, np.inf))
    part = level_trainer(whole, level, k)
    lbfgs(part, max_iter=5, max_fun=100, tol=0.0, monitor=monitor)
    np.testing.assert_array_equal(whole.theta[~mask], before[~mask])
    assert (whole.theta[mask] != before[mask]).all()
    assert monitor.losses[-1].total < monitor.losses[0].total


# --- codes of the levels below --------------------------------------------------------


def plain_codes(trainer, k):
    """Return the rows, in their order, as NumPy encodes them."""
    rows, objective = trainer.rows, trainer.objective
    X = rows.X.toarray() if sparse.issparse(rows.X) else rows.X
    h = X[rows.index]
    if rows.center is not None:
        h = (h - rows.center) / rows.unit
    if objective.distribution.changes_inputs:
        counts = slice(None) if (h >= 0).all() else [1, 4]  # of the composite
        h[:, counts] = np.log1p(h[:, counts])
    for layer in objective.encoder.layers[:k]:
        weight, bias = layer.weight.of(trainer.theta), layer.bias.of(trainer.theta)
        h = apply(layer.activation, h @ weight + bias)
    return h


def make_codes(trainer, k, n_rows=16):
    below = Chain(trainer.objective.encoder.layers[:k])
    family = trainer.objective.distribution
    return Codes(trainer.rows, family, below, trainer.theta, n_rows)


SOURCES = {
    "dense": {},
    "sparse": {"container": sparse.csr_array, "distribution": "bernoulli"},
    "counts": {"distribution": "poisson"},
    "sparse counts": {"container": sparse.csr_matrix, "distribution": "poisson"},
    "composite": {"distribution": COMPOSITE, "activation": "elu"},
    "weighted": {"weighted": True, "activation": "logistic"},
    "standardized": {"standardized": True, "weighted": True},
}
every_source = pytest.mark.parametrize("source", SOURCES)


@every_source
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 2])
def test_codes_are_the_encoder_s_outputs(k, dtype, source):
    trainer = make_trainer(dtype=dtype, **SOURCES[source])
    codes, expected = make_codes(trainer, k), plain_codes(trainer, k)
    some = np.array([7, 0, 19, 3])
    x, weight = np.empty((4, WIDTHS[k]), dtype), np.empty(4, dtype)
    codes.load(codes.index[some], x, weight, 2.0)
    tolerance = {np.float32: 1e-5, np.float64: 1e-12}[dtype]
    np.testing.assert_allclose(x, expected[some], rtol=tolerance, atol=tolerance)
    given = np.ones(50) if codes.weight is None else codes.weight
    np.testing.assert_array_equal(weight, given[codes.index[some]] / 2)


@every_source
@pytest.mark.parametrize("n_rows", [1, 16, 50])
def test_kept_codes_are_those_of_every_row(n_rows, source):
    trainer = make_trainer(**SOURCES[source])
    codes = make_codes(trainer, 2, n_rows)
    kept = codes.kept()
    np.testing.assert_allclose(kept.X, plain_codes(trainer, 2), rtol=1e-12, atol=1e-13)
    assert len(kept) == len(codes)
    assert kept.mean_weight == codes.mean_weight
    if codes.weight is not None:
        np.testing.assert_array_equal(kept.weight, codes.weight[codes.index])


@every_source
def test_bounds_are_the_extremes_of_codes(source):
    trainer = make_trainer(**SOURCES[source])
    expected = plain_codes(trainer, 2)
    low, high = make_codes(trainer, 2).bounds()
    np.testing.assert_allclose(low, expected.min(axis=0), rtol=1e-12)
    np.testing.assert_allclose(high, expected.max(axis=0), rtol=1e-12)


def trained(k, n_epochs=5, **settings):
    trainer, rule = make_trainer(**settings), Adam()
    part = level_trainer(trainer, levels(trainer.objective)[k], k)
    moments = rule.init(trainer.theta)
    losses = [part.epoch(rule, Course(moments), 0.01).total for _ in range(n_epochs)]
    return part, losses


@every_source
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("shuffle", [False, True])
def test_keeping_codes_changes_nothing(shuffle, k, source, monkeypatch):
    kept, losses = trained(k, shuffle=shuffle, **SOURCES[source])
    monkeypatch.setattr(stacking, "MOST_KEPT", 0)
    found, again = trained(k, shuffle=shuffle, **SOURCES[source])
    assert not isinstance(kept.rows, Codes)
    assert isinstance(found.rows, Codes)
    np.testing.assert_allclose(again, losses, rtol=1e-9)
    np.testing.assert_allclose(found.theta, kept.theta, rtol=1e-6, atol=1e-9)


def test_codes_that_are_too_large_are_not_kept(monkeypatch):
    for most, kind in ((50 * 5 * 8, Rows), (50 * 5 * 8 - 1, Codes)):
        monkeypatch.setattr(stacking, "MOST_KEPT", most)
        assert type(trained(1, 0)[0].rows) is kind


def test_the_first_level_sees_the_rows_themselves():
    trainer = make_trainer()
    part = level_trainer(trainer, levels(trainer.objective)[0], 0)
    assert part.rows is trainer.rows
    assert part.bounds is trainer.bounds


def test_codes_found_batch_by_batch_take_no_memory(monkeypatch):
    monkeypatch.setattr(stacking, "MOST_KEPT", 0)
    rule = Adam()
    trainer = make_trainer(n_rows=20_000, batch_size=200, standardized=True)
    level, moments = levels(trainer.objective)[2], rule.init(trainer.theta)
    tracemalloc.start()
    part = level_trainer(trainer, level, 2)
    part.epoch(rule, Course(moments), 0.01)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < trainer.rows.X.nbytes / 3


@every_level
def test_levels_share_the_generator_and_the_size_of_a_batch(k):
    trainer = make_trainer(batch_size=7, shuffle=False)
    part = level_trainer(trainer, levels(trainer.objective)[k], k)
    assert part.rng is trainer.rng
    assert part.theta is trainer.theta
    assert (part.batch_size, part.shuffle, len(part.rows)) == (7, False, 50)


# --- a task on top of the code --------------------------------------------------------

HEADS = {
    "bernoulli": Bernoulli(),
    "categorical": Categorical(),
    "squared_error": SquaredError(),
}
every_head = pytest.mark.parametrize("head", HEADS)


def task_case(
    head="categorical",
    activation="tanh",
    frozen=False,
    alpha=0.1,
    tied=False,
    n=4,
    level=0.0,
):
    """Return the objective of predicting `n` targets, with a batch."""
    rng, family = np.random.default_rng(0), HEADS[head]
    whole, size = whole_objective(make_plan("poisson", activation, tied), alpha=alpha)
    layout = Layout(size)
    layer = Dense(layout.slot(WIDTHS[-1], n), layout.slot(n), "identity")
    theta = 0.4 * rng.standard_normal(layout.size)
    x = np.log1p(draw_rows(whole.distribution, N_ROWS, rng))
    target = support_sample(family, (N_ROWS, n), rng)
    damage = CORRUPTIONS["masking"](), level
    return Case(task(whole, layer, family, damage, frozen), theta, x, target)


@every_head
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("alpha", "level"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.4)])
def test_gradient_of_a_task(alpha, level, frozen, activation, head):
    case = task_case(head, activation, frozen, alpha, level=level)
    case.check()
    damaged = case.batch.x_in != case.batch.x
    assert damaged.any() == (level > 0)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_what_a_task_learns(frozen, tied):
    whole, _ = whole_objective(make_plan("poisson", tied=tied))
    case = task_case(frozen=frozen, tied=tied)
    grad = case.evaluate(case.theta)[1]
    for layer in whole.encoder.layers:
        assert layer.weight.of(grad).all() != frozen
        assert layer.bias.of(grad).any() != frozen
        assert layer.weight.of(grad).any() != frozen
    for layer in whole.decoder.layers:
        assert not layer.bias.of(grad).any()
        if not tied:
            assert not layer.weight.of(grad).any()
    (head,) = case.objective.decoder.layers
    assert head.weight.of(grad).all()
    assert head.bias.of(grad).all()


def test_rows_of_a_task_are_clean():
    case = task_case()
    assert not case.objective.is_random
    assert case.batch.x_in is case.batch.x
    assert case.batch.target.shape == (N_ROWS, 4)


@every_head
@pytest.mark.parametrize("frozen", [False, True])
def test_phases_of_a_task_split_over_rows(frozen, head):
    case = task_case(head, frozen=frozen)
    _, grad = case.evaluate(case.theta)
    loss = case.batch.loss.copy()
    case.batch.loss.fill(np.nan)
    params, split = case.objective.of(case.theta), np.zeros_like(grad)
    parts = [case.batch.rows(*ends) for ends in ((0, 2), (2, 3), (3, N_ROWS))]
    for part in parts:
        case.objective.encode_phase(params, part)
    own = case.objective.meet(params, case.batch)
    for part in parts:
        case.objective.decode_phase(params, own, part)
    grads = case.objective.of(split)
    for part in ((0, 2), (1, 2)):
        rows = case.objective.rows(part)
        case.objective.weight_phase(case.batch, grads, rows)
    case.objective.decay(params, grads)
    np.testing.assert_allclose(case.batch.loss, loss, rtol=1e-12)
    np.testing.assert_allclose(split, grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("frozen", [False, True])
def test_task_agrees_with_pytorch(frozen):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    case = task_case(alpha=0.3, frozen=frozen)
    batch, theta = case.batch, torch.tensor(case.theta, requires_grad=True)
    h, square = torch.tensor(batch.x), 0.0
    for layer in case.objective.encoder.layers:
        weight = take(theta, layer.weight)
        h = torch.tanh(h @ weight + take(theta, layer.bias))
        square = square + (weight**2).sum()
    if frozen:
        h, square = h.detach(), 0.0
    (head,) = case.objective.decoder.layers
    weight = take(theta, head.weight)
    eta, square = h @ weight + take(theta, head.bias), square + (weight**2).sum()
    nll = torch.nn.functional.cross_entropy(
        eta, torch.tensor(batch.target), reduction="none"
    )
    loss = torch.tensor(batch.weight) @ nll + 0.15 * square
    loss.backward()
    value, grad = case.evaluate(case.theta)
    assert value == pytest.approx(loss.item(), rel=1e-12)
    np.testing.assert_allclose(grad, theta.grad.numpy(), rtol=1e-9, atol=1e-13)


# --- labelled rows, and what is predicted for them ------------------------------------


@every_source
def test_labelled_rows_are_what_the_encoder_sees(source):
    trainer = make_trainer(**SOURCES[source])
    table, place = np.array([[0.5, 1.0], [2.0, 3.0], [4.0, 5.0]]), np.arange(50) % 3
    rows = LabelledRows(trainer.rows, trainer.objective.distribution, table, place)
    expected, some = plain_codes(trainer, 0), np.array([5, 0, 21])
    x, target, weight = np.empty((3, 6)), np.empty((3, 2)), np.empty(3)
    rows.load(rows.index[some], x, weight, 4.0)
    rows.load_target(rows.index[some], target)
    np.testing.assert_allclose(x, expected[some], rtol=1e-12)
    np.testing.assert_array_equal(target, table[rows.index[some] % 3])
    given = np.ones(50) if rows.weight is None else rows.weight
    np.testing.assert_array_equal(weight, given[rows.index[some]] / 4)


def model_with_head(dtype, n_rows=700, n=3):
    rng = np.random.default_rng(0)
    X = rng.poisson(3.0, (n_rows, 6)).astype(dtype)
    plan = make_plan("poisson")
    model = Model.start(plan, Deterministic(), Columns.of(Rows(X)), X.dtype, rng)
    layout = Layout(model.size)
    head = Dense(layout.slot(3, n), layout.slot(n), "identity")
    tail = rng.standard_normal(layout.size - model.size).astype(dtype)
    model.theta = np.concatenate([model.theta, tail])
    return model, head, X


def outputs(model, head, X):
    out = np.full((len(X), 3), np.nan, X.dtype)
    for place, _, eta in head_outputs(model, head, model.rows(X)):
        out[place] = eta
    return out


def test_outputs_are_the_head_s_of_the_code():
    model, head, X = model_with_head(np.float64)
    expected = model.encode(X) @ head.weight.of(model.theta) + head.bias.of(model.theta)
    np.testing.assert_allclose(outputs(model, head, X), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_s_outputs_do_not_depend_on_the_others(dtype):
    model, head, X = model_with_head(dtype)
    every = outputs(model, head, X)
    assert every.dtype == dtype
    order = np.random.default_rng(1).permutation(len(X))
    np.testing.assert_array_equal(outputs(model, head, X[order]), every[order])
    for i in (0, 1, 300, 699):
        np.testing.assert_array_equal(outputs(model, head, X[i : i + 1])[0], every[i])


def test_outputs_come_with_weights():
    model, head, X = model_with_head(np.float64)
    weight = np.random.default_rng(1).uniform(0.5, 2.0, len(X))
    index = np.arange(0, 700, 3)
    found = np.empty(len(index))
    for place, part, _ in head_outputs(model, head, model.rows(X, index, weight)):
        found[place] = part
    np.testing.assert_allclose(found, weight[index] / weight[index].mean(), rtol=1e-12)
