"""However many members a crew has, a step is the same, but for rounding."""

from contextlib import contextmanager

import numpy as np
import pytest
from numerical import support_sample

from skae import crew
from skae.bottlenecks import Deterministic, GaussianPosterior, SparseCode
from skae.corruptions import CORRUPTIONS
from skae.distributions import DISTRIBUTIONS
from skae.model import Model, Plan
from skae.optimizers import OPTIMIZERS
from skae.penalties import PENALTIES, BatchTopK, KLDivergence, TopK
from skae.rows import Columns, Rows
from skae.shares import Share
from skae.stacking import Codes, level_trainer, levels
from skae.training import Course, Trainer

N_ROWS, N_FEATURES, K = 61, 6, 4
BOTTLENECKS = {
    "deterministic": Deterministic(),
    "three draws": GaussianPosterior(n_samples=3),
    "dead units": SparseCode(TopK(2), sizes=(2,), n_revived=1, dead_after=0.0),
} | {name: SparseCode(penalty()) for name, penalty in PENALTIES.items()}
SIZES = [2, 3, 20]


@contextmanager
def hired(size):
    """Hire a crew, however many threads products may use."""
    members = crew.Crew(size)
    token = crew._hired.set(members)
    try:
        yield
    finally:
        crew._hired.reset(token)
        members.dismiss()


def make(
    bottleneck="deterministic",
    distribution="gaussian",
    corruption="masking",
    tied=False,
    **options,
):
    rng, bottleneck = np.random.default_rng(0), BOTTLENECKS[bottleneck]
    if isinstance(getattr(bottleneck, "penalty", None), (TopK, BatchTopK)):
        bottleneck.penalty.k = 2
    family = DISTRIBUTIONS[distribution]()
    X = support_sample(family, (N_ROWS, N_FEATURES), rng)
    code = "relu" if isinstance(bottleneck, SparseCode) else "tanh"
    if isinstance(getattr(bottleneck, "penalty", None), KLDivergence):
        code = "logistic"
    plan = Plan(
        [N_FEATURES, 5, K],
        [K, 5, N_FEATURES],
        [["tanh", code], ["tanh", "identity"]],
        tied,
        distribution,
        False,
    )
    columns = Columns.of(Rows(X))
    model = Model.start(plan, bottleneck, columns, X.dtype, rng)
    options = {"alpha": 0.1, "beta": 0.5, "learns_shared": True} | options
    objective, _ = plan.objective(bottleneck, CORRUPTIONS[corruption](), 0.3, **options)
    bounds, limits = (columns.low, columns.high), model.widest_limits()
    return Trainer(
        objective,
        model.theta,
        model.rows(X),
        bounds,
        limits,
        batch_size=25,
        shuffle=True,
        rng=np.random.default_rng(1),
    )


def after_two_epochs(trainer, solver="sgd", rate=0.001):
    rule = OPTIMIZERS[solver]()
    moments = rule.init(trainer.theta)
    losses = [trainer.epoch(rule, Course(moments), rate) for _ in range(2)]
    return np.concatenate([trainer.theta, *losses])


def assert_same(size, solver="sgd", rate=0.001, **settings):
    expected = after_two_epochs(make(**settings), solver, rate)
    with hired(size):
        found = after_two_epochs(make(**settings), solver, rate)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("unit_norm", [False, True])
@pytest.mark.parametrize(
    ("bottleneck", "tied"),
    [(name, False) for name in BOTTLENECKS]
    + [(name, True) for name in BOTTLENECKS if not BOTTLENECKS[name].is_random],
)
def test_every_bottleneck(bottleneck, unit_norm, tied, size):
    assert_same(size, bottleneck=bottleneck, tied=tied, unit_norm=unit_norm)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_every_family(distribution, corruption, size):
    assert_same(size, distribution=distribution, corruption=corruption)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("solver", OPTIMIZERS)
def test_every_optimizer(solver, size):
    # Where a gradient is near zero, adaptive rules divide rounding by rounding.
    assert_same(size, solver=solver, bottleneck="three draws", alpha=0.3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tied", [False, True])
def test_the_gradient_over_all_rows(tied, size):
    settings = {"bottleneck": "kl", "corruption": "none", "tied": tied}
    alone, shared = make(**settings), make(**settings)
    expected = alone.full()
    with hired(size):
        assert shared.full() == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(shared.grad, alone.grad, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("keeps", [False, True])
def test_codes_of_the_layers_below(keeps, size, monkeypatch):
    if not keeps:
        monkeypatch.setattr("skae.stacking.MOST_KEPT", 0)

    def trained():
        whole = make()
        trainer = level_trainer(whole, levels(whole.objective)[1], 1)
        assert isinstance(trainer.rows, Codes) is not keeps
        return after_two_epochs(trainer)

    expected = trained()
    with hired(size):
        np.testing.assert_allclose(trained(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bottleneck", ["deterministic", "three draws", "jumprelu"])
def test_what_members_move_is_everything_that_moves_and_nothing_twice(bottleneck, tied):
    trainer = make(bottleneck, tied=tied)
    count = np.zeros(len(trainer.theta), int)
    memory = trainer.theta, trainer.grad, trainer.rows, trainer.batch
    for i in range(3):
        for place in Share(trainer.objective, *memory, (i, 3)).places:
            count[place] += 1
    expected = np.zeros(len(trainer.theta), int)
    for place in trainer.objective.places():
        expected[place] = 1
    np.testing.assert_array_equal(count, expected)
