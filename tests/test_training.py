from types import SimpleNamespace

import numpy as np
import pytest
from numerical import check_gradient

from skae.bottlenecks import Deterministic, GaussianPosterior, SparseCode
from skae.corruptions import Masking
from skae.model import Model, Plan
from skae.objective import Loss
from skae.optimizers import OPTIMIZERS, SGD, Adam
from skae.penalties import L1, KLDivergence, TopK
from skae.rows import Columns, Rows
from skae.training import (
    Course,
    DivergenceError,
    Monitor,
    Stopping,
    Trainer,
    descend,
    lbfgs,
)


def make(
    n_rows=50,
    batch_size=16,
    level=0.0,
    shuffle=True,
    seed=0,
    weight=None,
    bottleneck=None,
    limits=None,
    activation=None,
):
    rng = np.random.default_rng(0)
    bottleneck = bottleneck or Deterministic()
    X = rng.standard_normal((n_rows, 3)) @ rng.standard_normal((3, 6))
    columns = Columns.of(Rows(X, None, weight))
    activation = activation or ("tanh" if limits is None else "identity")
    activations = [[activation], ["identity"]]
    plan = Plan([6, 3], [3, 6], activations, False, "gaussian", True)
    model = Model.start(plan, bottleneck, columns, X.dtype, rng)
    learns_shared = limits is not None or bottleneck.is_random
    objective, _ = plan.objective(
        bottleneck, Masking(), level, alpha=1e-3, learns_shared=learns_shared
    )
    return Trainer(
        objective,
        model.theta,
        model.rows(X, None, weight),
        (columns.low, columns.high),
        limits or model.limits(),
        batch_size=batch_size,
        shuffle=shuffle,
        rng=np.random.default_rng(seed),
    )


def run(trainer, max_iter=30, patience=np.inf, optimizer="adam", **monitor):
    rule = OPTIMIZERS[optimizer]()
    moments = rule.init(trainer.theta)
    stopping = Stopping(monitor.pop("tol", 0.0), patience)
    beta = monitor.pop("beta", lambda epoch: 1.0)
    schedules = {
        "rate": monitor.pop("rate", lambda epoch, drops: 0.01),
        "change": lambda epoch: trainer.change(beta=beta(epoch)),
        "renew": lambda *_: False,
    }
    watcher = Monitor(trainer.theta, stopping, **monitor)
    stopped = descend(
        trainer,
        rule,
        Course(moments),
        **schedules,
        max_iter=max_iter,
        n_drops=0,
        monitor=watcher,
    )
    return watcher, stopped


def run_lbfgs(trainer, **options):
    watcher = Monitor(trainer.theta, Stopping(0.0, np.inf))
    options = {"max_iter": 5000, "max_fun": 10_000, "tol": 1e-6} | options
    return watcher, lbfgs(trainer, **options, monitor=watcher)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("batch_size", [1, 16, 50, 1000])
def test_the_loss_falls(optimizer, batch_size):
    watcher, _ = run(make(batch_size=batch_size), 20, optimizer=optimizer)
    assert watcher.losses[-1].total < watcher.losses[0].total


def test_every_row_is_visited_once_an_epoch():
    trainer, seen = make(n_rows=50, batch_size=16), []
    load = trainer.rows.load
    trainer.rows.load = lambda index, *to: seen.append(index) or load(index, *to)
    moments = Adam().init(trainer.theta)
    trainer.epoch(Adam(), Course(moments), 0.01)
    assert [len(index) for index in seen] == [16, 16, 16, 2]
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(50))
    seen.clear()
    trainer.epoch(Adam(), Course(moments), 0.01)
    assert not np.array_equal(np.concatenate(seen), np.arange(50))


def test_rows_keep_their_order_without_shuffling():
    trainer, seen = make(shuffle=False), []
    load = trainer.rows.load
    trainer.rows.load = lambda index, *to: seen.append(index) or load(index, *to)
    trainer.epoch(Adam(), Course(Adam().init(trainer.theta)), 0.01)
    np.testing.assert_array_equal(np.concatenate(seen), np.arange(50))


def test_same_seed_same_fit():
    losses = [run(make(level=0.3, seed=7))[0].losses for _ in range(2)]
    assert losses[0] == losses[1]
    assert losses[0] != run(make(level=0.3, seed=8))[0].losses


def test_the_epoch_s_loss_is_the_mean_over_rows():
    trainer = make(batch_size=16, shuffle=False)
    expected = trainer.full()
    rule = Adam()
    loss = trainer.epoch(rule, Course(rule.init(trainer.theta)), 1e-300)
    assert loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_full_gradient_does_not_depend_on_the_batches(weighted):
    weight = np.random.default_rng(2).uniform(size=50) if weighted else None
    one, many = make(batch_size=50, weight=weight), make(batch_size=7, weight=weight)
    assert one.full() == pytest.approx(many.full(), rel=1e-12)
    np.testing.assert_allclose(one.grad, many.grad, rtol=1e-9, atol=1e-13)


def test_lbfgs_finds_a_stationary_point():
    trainer = make()
    watcher = Monitor(trainer.theta, Stopping(0.0, np.inf))
    options = {"max_iter": 5000, "max_fun": 10_000, "tol": 1e-6}
    assert lbfgs(trainer, **options, monitor=watcher) is None
    trainer.full()
    assert np.abs(trainer.grad).max() <= 1e-5
    totals = [loss.total for loss in watcher.losses]
    assert totals == sorted(totals, reverse=True)


def test_lbfgs_says_when_it_was_cut_short():
    trainer = make()
    watcher = Monitor(trainer.theta, Stopping(0.0, np.inf))
    options = {"max_iter": 3, "max_fun": 100, "tol": 1e-9}
    assert "LIMIT" in lbfgs(trainer, **options, monitor=watcher)
    assert len(watcher.losses) == 3


def test_lbfgs_watches_the_gradient():
    n_iter = []
    for tol in (1e-1, 1e-4):
        trainer = make()
        watcher = Monitor(trainer.theta, Stopping(0.0, np.inf))
        lbfgs(trainer, max_iter=5000, max_fun=10_000, tol=tol, monitor=watcher)
        trainer.full()
        assert np.abs(trainer.grad).max() <= tol
        n_iter.append(len(watcher.losses))
    assert n_iter[0] < n_iter[1]


def test_a_minibatch_s_gradient_is_right_in_expectation():
    weight = np.random.default_rng(2).integers(1, 9, 48).astype(float)
    trainer = make(n_rows=48, batch_size=12, weight=weight, shuffle=False)
    trainer.full()
    expected, grads = trainer.grad.copy(), np.zeros_like(trainer.grad)
    for start in range(0, 48, 12):
        trainer.grad.fill(0.0)
        index = trainer.rows.index[start : start + 12]
        trainer.add(index, trainer.mean_weight * 12, trainer.params.own)
        trainer.decay()
        grads += trainer.grad / 4
    np.testing.assert_allclose(grads, expected, rtol=1e-9, atol=1e-13)


def test_stopping_counts_epochs_without_progress():
    stopping = Stopping(tol=0.1, patience=2)
    answers = [stopping.stalls(loss) for loss in (5.0, 4.0, 3.95, 3.95, 3.0, 3.0, 3.0)]
    assert answers == [False, False, False, True, False, False, True]
    assert stopping.best == 3.0


def test_training_ends_when_progress_does():
    watcher, stopped = run(make(), 1000, patience=3, tol=1e9)
    assert stopped
    assert len(watcher.losses) == 4
    watcher, stopped = run(make(), 4, patience=np.inf)
    assert not stopped
    assert len(watcher.losses) == 4


def test_drops_are_tried_before_the_end():
    trainer, rates = make(), []
    rule = Adam()
    watcher = Monitor(trainer.theta, Stopping(1e9, 1))

    def rate(epoch, drops):
        rates.append(0.01 * 5.0**-drops)
        return rates[-1]

    moments = rule.init(trainer.theta)
    options = {"max_iter": 100, "n_drops": 2, "monitor": watcher}
    options["change"] = options["renew"] = lambda *_: False
    assert descend(trainer, rule, Course(moments), rate=rate, **options)
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.002, 0.0004])


def test_a_lack_of_progress_is_excused_where_parameters_were_changed():
    trainer, epochs = make(), []
    watcher = Monitor(trainer.theta, Stopping(1e9, 3))

    def renew(epoch, drops, moments):
        epochs.append((epoch, drops))
        return epoch in (2, 4)

    moments = Adam().init(trainer.theta)
    options = {"max_iter": 100, "n_drops": 1, "monitor": watcher, "renew": renew}
    options |= {"rate": lambda *_: 0.01, "change": lambda epoch: None}
    assert descend(trainer, Adam(), Course(moments), **options)
    # The fourth epoch is a new beginning; three stall, and three more after the drop.
    assert epochs == [(k, 0) for k in range(1, 8)] + [(k, 1) for k in range(8, 11)]


def test_the_best_parameters_come_back():
    trainer = make()
    losses = iter([3.0, 1.0, 2.0])
    visited = []

    def validate():
        visited.append(trainer.theta.copy())
        return next(losses), 0.0

    watcher, _ = run(trainer, 3, validate=validate)
    assert not np.array_equal(trainer.theta, visited[1])
    watcher.finish()
    np.testing.assert_array_equal(trainer.theta, visited[1])
    assert watcher.validation_losses == [3.0, 1.0, 2.0]


def test_each_epoch_is_reported():
    lines = []
    run(make(), 2, report=lines.append, validate=lambda: (1.25, 0.0))
    assert len(lines) == 2
    assert lines[1].startswith("Epoch 2, loss = ")
    assert lines[1].endswith("nats per row, validation score = -1.25")


def test_divergence_is_noticed_in_the_step_that_it_happens():
    trainer = make()
    trainer.theta[0] = np.nan
    with pytest.raises(DivergenceError, match="the loss is nan"):
        run(trainer, 1)


def test_a_loss_that_is_not_finite_on_held_out_rows_is_noticed():
    with pytest.raises(DivergenceError, match="validation loss is inf"):
        run(make(), 1, validate=lambda: (np.inf, 0.0))


def test_a_last_step_to_infinity_is_noticed():
    trainer = make(batch_size=50)
    rule = OPTIMIZERS["sgd"]()
    with pytest.raises(DivergenceError, match="no longer finite"):
        trainer.epoch(rule, Course(rule.init(trainer.theta)), 1e308)


# --- shared parameters ----------------------------------------------------------------

#: The first column's scale is fixed, the others are held from below.
LOW = np.array([-0.2, -0.3, -1.0, -1.0, -1.0, -1.0])
HIGH = np.array([-0.2, np.inf, 0.5, 1.0, 1.0, 1.0])

#: Rates at which a solver gets anywhere in a few epochs; others take another.
RATES = {"adadelta": 10.0, "sgd": 0.003}


def with_limits(low=LOW, high=HIGH, **params):
    """Return a trainer of a linear model, whose scales would all collapse."""
    trainer = make(limits=(low, high), **params)
    trainer.params.shared[...] = [-0.2, 2.0, 0.4, 0.0, 0.0, 0.0]
    return trainer


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_limits_are_respected_in_every_step(optimizer):
    trainer, visited = with_limits(), []
    step = trainer.step

    def watched(*args):
        loss = step(*args)
        visited.append(trainer.params.shared.copy())
        return loss

    trainer.step = watched
    trainer.params.shared[1] = -0.299
    run(trainer, 20, optimizer=optimizer, rate=lambda *_: RATES.get(optimizer, 0.05))
    visited = np.array(visited)
    assert len(visited) == 20 * 4
    assert ((visited >= LOW) & (visited <= HIGH)).all()
    np.testing.assert_array_equal(visited[:, 0], -0.2)
    assert (visited[-1, 2:] < [0.4, 0.0, 0.0, 0.0]).all()
    assert visited[-1, 1] == -0.3


def test_a_limit_from_above_holds():
    high = np.where(np.arange(6) == 5, -0.9, HIGH)
    trainer = with_limits(high=high, batch_size=50)
    trainer.params.shared[5] = -0.9
    trainer.theta[trainer.objective.weights()[0]] = 0.0
    trainer.full()
    assert trainer.grads.shared[5] < 0  # it would rise: the column's spread is one
    run(trainer, 1, optimizer="sgd", rate=lambda *_: 1e-3)
    assert trainer.params.shared[5] == -0.9


def test_lbfgs_keeps_within_limits():
    trainer = with_limits()
    watcher, reason = run_lbfgs(trainer, tol=1e-5)
    assert reason is None
    shared = trainer.params.shared
    assert shared[0] == -0.2
    assert shared[1] == -0.3
    assert ((shared >= LOW) & (shared <= HIGH)).all()
    trainer.full()
    grads, at_limit = trainer.grads.shared.copy(), (shared == LOW) & (LOW < HIGH)
    assert (grads[at_limit] > 0).all()
    grads[at_limit] = 0.0
    weights = trainer.grad[trainer.objective.weights()[0]]
    assert max(np.abs(grads).max(), np.abs(weights).max()) < 1e-3
    assert len(watcher.losses) > 1


def test_bounds_for_lbfgs_are_those_of_the_shared_parameters():
    trainer = with_limits()
    box, shared = trainer.box(), trainer.objective.shared
    np.testing.assert_array_equal(shared.of(box.lb), LOW)
    np.testing.assert_array_equal(shared.of(box.ub), HIGH)
    others = np.ones(len(trainer.theta), dtype=bool)
    shared.of(others)[...] = False
    assert (box.lb[others] == -np.inf).all()
    assert (box.ub[others] == np.inf).all()


@pytest.mark.parametrize("way", ["epoch", "full"])
def test_a_fixed_parameter_has_no_gradient(way):
    trainer, seen = with_limits(), []
    if way == "full":
        trainer.full()
        seen.append(trainer.grad)
    else:
        rule = SimpleNamespace(
            move=lambda theta, grad, *_: seen.append(grad.copy()),
            decay=lambda weights, rate: None,
        )
        trainer.epoch(rule, Course(Adam().init(trainer.theta)), 0.01)
    for grad in seen:
        shared = trainer.objective.shared.of(grad)
        assert shared[0] == 0.0
        assert shared[1:].all()


def test_scales_stay_where_they_are_not_learnt():
    trainer = make()
    run(trainer, 5)
    np.testing.assert_array_equal(trainer.params.shared, 0.0)
    assert run_lbfgs(trainer, tol=1e-4)[1] is None
    np.testing.assert_array_equal(trainer.params.shared, 0.0)
    np.testing.assert_array_equal(trainer.grads.shared, 0.0)


def test_scales_are_learnt_with_a_random_code():
    trainer = make(bottleneck=GaussianPosterior())
    before = trainer.params.shared.copy()
    run(trainer, 300)
    assert (trainer.params.shared < before - 0.2).all()


# --- what a loss is made of -----------------------------------------------------------


@pytest.mark.parametrize("beta", [1.0, 0.25, 0.0])
@pytest.mark.parametrize("n_samples", [1, 3])
def test_parts_add_up(n_samples, beta):
    trainer = make(bottleneck=GaussianPosterior(n_samples=n_samples))
    trainer.change(beta=beta)
    (weights,) = trainer.params.weights
    penalty = 0.5e-3 * float(weights @ weights)
    for loss in (
        trainer.full(),
        trainer.epoch(Adam(), Course(Adam().init(trainer.theta)), 1e-300),
    ):
        assert loss.cost > 0
        expected = loss.reconstruction + beta * loss.cost + penalty
        assert loss.total == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_mean_over_all_rows_counts_where_rows_meet(weighted):
    # Batches are of 16 rows, and the divergence is that of all 50.
    weight = np.random.default_rng(1).uniform(0.5, 2.0, 50) if weighted else None
    bottleneck = SparseCode(KLDivergence(0.2))
    trainer = make(bottleneck=bottleneck, weight=weight, activation="logistic")
    whole = make(
        bottleneck=bottleneck, weight=weight, activation="logistic", batch_size=50
    )

    free = slice(0, trainer.objective.shared.start)

    def loss(theta):
        trainer.theta[free] = theta
        return trainer.full().total

    start = trainer.theta[free].copy()
    found = trainer.full()
    grad = trainer.grad.copy()
    np.testing.assert_allclose(found, whole.full(), rtol=1e-12)
    np.testing.assert_allclose(grad, whole.grad, rtol=1e-9, atol=1e-14)
    check_gradient(loss, grad[free], start)


def test_what_units_remember_changes_with_every_step():
    trainer = make(bottleneck=SparseCode(TopK(1)))
    trainer.params.encoder[0][1][...] = [0.0, 0.0, 1e3]
    trainer.epoch(Adam(), Course(Adam().init(trainer.theta)), 1e-300)
    np.testing.assert_array_equal(trainer.params.own, [[50, 50, 0]])


def test_directions_move_by_the_projected_gradient():
    trainer = make(bottleneck=SparseCode(L1()), batch_size=50)
    trainer.change(unit_norm=True)
    trainer.objective.restore(trainer.params)
    directions = trainer.params.decoder[0][0]
    before = directions.copy()
    trainer.full()
    slope = trainer.grads.decoder[0][0].copy()
    slope -= np.sum(slope * before, axis=1, keepdims=True) * before
    rule = SGD(momentum=0.0, nesterovs_momentum=False)
    trainer.epoch(rule, Course(rule.init(trainer.theta)), 0.1)
    moved = before - 0.1 * slope
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    np.testing.assert_allclose(directions, moved / length, rtol=1e-12)


def test_another_number_of_codes_gets_memory_of_its_own():
    trainer = make(bottleneck=SparseCode(TopK(1)))
    batch = trainer.batch
    trainer.change(beta=0.5)
    assert trainer.batch is batch
    trainer.change(bottleneck=SparseCode(TopK(1), sizes=(1, 2)))
    assert trainer.batch.code.shape == (16, 3, 3)
    assert np.isfinite(trainer.full().total)


def test_a_code_without_a_cost_costs_nothing():
    loss = make().full()
    assert loss.cost == 0.0
    assert loss.total > loss.reconstruction


def test_the_first_loss_is_remembered():
    trainer = make()
    first = trainer.full().total
    run(trainer, 3)
    trainer.full()
    assert trainer.first_loss == first


def test_beta_is_that_of_the_epoch():
    trainer, betas = make(bottleneck=GaussianPosterior()), []
    epoch = trainer.epoch

    def watched(*args):
        betas.append(trainer.objective.beta)
        return epoch(*args)

    trainer.epoch = watched
    asked = []
    run(trainer, 4, beta=lambda k: asked.append(k) or 0.25 * k)
    assert asked == [1, 2, 3, 4]
    assert betas == [0.25, 0.5, 0.75, 1.0]


def test_what_a_code_costs_falls_with_its_price():
    costs = []
    for beta in (0.01, 4.0):
        trainer = make(bottleneck=GaussianPosterior())
        watcher, _ = run(trainer, 200, beta=lambda epoch, beta=beta: beta)
        costs.append(watcher.losses[-1].cost)
    assert costs[0] > 2 * costs[1]


# --- epochs that are not judged -------------------------------------------------------


def watch(totals, theta=None, patience=2, **params):
    """Show losses to a monitor; return it and its answers."""
    theta = np.zeros(1) if theta is None else theta
    monitor, answers = Monitor(theta, Stopping(0.0, patience), **params), []
    for k, total in enumerate(totals):
        theta[...] = k
        answers.append(monitor(Loss(total, total, 0.0)))
    return monitor, answers


def test_epochs_may_go_unjudged():
    rising = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert watch(rising)[1].index(True) == 2
    monitor, answers = watch(rising, patience_from=3)
    assert answers == [False] * 5 + [True, False]
    # The losses before are of another objective: they are no mark to be reached.
    assert monitor.stopping.best == 4.0
    assert [loss.total for loss in monitor.losses] == rising


def test_the_newest_of_unjudged_epochs_is_kept_and_not_the_start():
    losses, theta = iter([1.0, 3.0, 2.0]), np.full(1, -1.0)
    monitor, _ = watch(
        [9.0, 9.0, 9.0], theta, validate=lambda: (next(losses), 0.0), patience_from=5
    )
    theta[...] = -2.0
    monitor.finish()
    assert theta[0] == 2.0


def test_of_equal_losses_the_smaller_tie_is_kept_and_counts_as_progress():
    pairs = iter([(1.0, 9.0), (1.0, 5.0), (1.0, 6.0), (0.5, 8.0), (0.5, 8.0)])
    theta = np.full(1, -1.0)
    monitor, answers = watch([9.0] * 5, theta, validate=lambda: next(pairs), patience=1)
    assert answers == [False, False, True, False, True]
    assert monitor.validation_losses == [1.0, 1.0, 1.0, 0.5, 0.5]
    assert (monitor.stopping.best, monitor.stopping.tie) == (0.5, 8.0)
    monitor.finish()
    assert theta[0] == 3.0
    pairs = iter([(1.0, 9.0), (1.0, 5.0), (1.0, 6.0)])
    monitor, _ = watch([9.0] * 3, theta, validate=lambda: next(pairs))
    monitor.finish()
    assert theta[0] == 1.0


def test_unjudged_epochs_are_not_compared_with_judged_ones():
    """While a price rises, so does the loss: an early epoch has it easy."""
    losses = iter([1.0, 2.0, 5.0, 4.0, 4.5])
    theta = np.full(1, -1.0)
    monitor, _ = watch(
        [9.0] * 5, theta, validate=lambda: (next(losses), 0.0), patience_from=2
    )
    assert monitor.validation_losses == [1.0, 2.0, 5.0, 4.0, 4.5]
    monitor.finish()
    assert theta[0] == 3.0
