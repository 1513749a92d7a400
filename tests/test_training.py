import numpy as np
import pytest

from skae.bottlenecks import Deterministic
from skae.corruptions import Masking
from skae.model import Model, Plan
from skae.optimizers import OPTIMIZERS, Adam
from skae.rows import Columns, Rows
from skae.training import DivergenceError, Monitor, Stopping, Trainer, descend, lbfgs


def make(n_rows=50, batch_size=16, level=0.0, shuffle=True, seed=0, weight=None):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, 3)) @ rng.standard_normal((3, 6))
    columns = Columns.of(Rows(X, None, weight))
    plan = Plan([6, 3], ["tanh"], False, "gaussian", True)
    model = Model.start(plan, Deterministic(), columns, X.dtype, rng)
    objective, _ = plan.objective(Deterministic(), Masking(), level, 1e-3)
    return Trainer(
        objective,
        model.theta,
        model.rows(X, None, weight),
        (columns.low, columns.high),
        batch_size=batch_size,
        shuffle=shuffle,
        rng=np.random.default_rng(seed),
    )


def run(trainer, max_iter=30, patience=np.inf, optimizer="adam", **monitor):
    rule = OPTIMIZERS[optimizer]()
    moments = rule.init(trainer.theta, trainer.objective.weights.size)
    stopping = Stopping(monitor.pop("tol", 0.0), patience)
    watcher = Monitor(trainer.theta, stopping, **monitor)
    stopped = descend(
        trainer,
        rule,
        moments,
        rate=monitor.get("rate", lambda epoch, drops: 0.01),
        max_iter=max_iter,
        n_drops=0,
        monitor=watcher,
    )
    return watcher, stopped


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("batch_size", [1, 16, 50, 1000])
def test_the_loss_falls(optimizer, batch_size):
    watcher, _ = run(make(batch_size=batch_size), 20, optimizer=optimizer)
    assert watcher.losses[-1] < watcher.losses[0]


def test_every_row_is_visited_once_an_epoch():
    trainer, seen = make(n_rows=50, batch_size=16), []
    evaluate = trainer.evaluate
    trainer.evaluate = lambda index, total: seen.append(index) or evaluate(index, total)
    moments = Adam().init(trainer.theta, 0)
    trainer.epoch(Adam(), moments, 0.01)
    assert [len(index) for index in seen] == [16, 16, 16, 2]
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(50))
    seen.clear()
    trainer.epoch(Adam(), moments, 0.01)
    assert not np.array_equal(np.concatenate(seen), np.arange(50))


def test_rows_keep_their_order_without_shuffling():
    trainer, seen = make(shuffle=False), []
    evaluate = trainer.evaluate
    trainer.evaluate = lambda index, total: seen.append(index) or evaluate(index, total)
    trainer.epoch(Adam(), Adam().init(trainer.theta, 0), 0.01)
    np.testing.assert_array_equal(np.concatenate(seen), np.arange(50))


def test_same_seed_same_fit():
    losses = [run(make(level=0.3, seed=7))[0].losses for _ in range(2)]
    assert losses[0] == losses[1]
    assert losses[0] != run(make(level=0.3, seed=8))[0].losses


def test_the_epoch_s_loss_is_the_mean_over_rows():
    trainer = make(batch_size=16, shuffle=False)
    expected = trainer.full()
    rule = Adam()
    loss = trainer.epoch(rule, rule.init(trainer.theta, 0), 1e-300)
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
    assert watcher.losses == sorted(watcher.losses, reverse=True)


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
        trainer.evaluate(index, trainer.mean_weight * 12)
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

    moments = rule.init(trainer.theta, 0)
    options = {"max_iter": 100, "n_drops": 2, "monitor": watcher}
    assert descend(trainer, rule, moments, rate=rate, **options)
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.002, 0.0004])


def test_the_best_parameters_come_back():
    trainer = make()
    losses = iter([3.0, 1.0, 2.0])
    visited = []

    def validate():
        visited.append(trainer.theta.copy())
        return next(losses)

    watcher, _ = run(trainer, 3, validate=validate)
    assert not np.array_equal(trainer.theta, visited[1])
    watcher.finish()
    np.testing.assert_array_equal(trainer.theta, visited[1])
    assert watcher.validation_losses == [3.0, 1.0, 2.0]


def test_each_epoch_is_reported():
    lines = []
    run(make(), 2, report=lines.append, validate=lambda: 1.25)
    assert len(lines) == 2
    assert lines[1].startswith("Epoch 2, loss = ")
    assert lines[1].endswith("nats per row, validation loss = 1.25")


def test_divergence_is_noticed_in_the_step_that_it_happens():
    trainer = make()
    trainer.theta[0] = np.nan
    with pytest.raises(DivergenceError, match="the loss is nan"):
        run(trainer, 1)


def test_a_loss_that_is_not_finite_on_held_out_rows_is_noticed():
    with pytest.raises(DivergenceError, match="validation loss is inf"):
        run(make(), 1, validate=lambda: np.inf)


def test_a_last_step_to_infinity_is_noticed():
    trainer = make(batch_size=50)
    rule = OPTIMIZERS["sgd"]()
    with pytest.raises(DivergenceError, match="no longer finite"):
        trainer.epoch(rule, rule.init(trainer.theta, 0), 1e308)
