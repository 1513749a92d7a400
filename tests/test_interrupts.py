import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from skae import (
    DenoisingAutoencoder,
    StackedAutoencoder,
    StackedAutoencoderClassifier,
    VariationalAutoencoder,
)
from skae.archives import read
from skae.checkpoints import Checkpoint
from skae.interrupts import deferred_interrupts
from skae.training import Trainer

pytestmark = pytest.mark.thorough

X, y = (data[:200] for data in load_digits(return_X_y=True))


@pytest.fixture(autouse=True)
def ordinary_signals():
    """Let Control-C be what it is in a terminal: in the background it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def press(monkeypatch):
    """Press Control-C after so many steps; of several presses, together."""

    def arrange(n_steps, n_times=1):
        step, done = Trainer.step, []

        def pressed(self, *args):
            done.append(step(self, *args))
            if len(done) == n_steps:
                for _ in range(n_times):
                    signal.raise_signal(signal.SIGINT)
            return done[-1]

        monkeypatch.setattr(Trainer, "step", pressed)
        return done

    return arrange


def make(cls=DenoisingAutoencoder, **params):
    settings = {"batch_size": 50, "max_iter": 20, "n_iter_no_change": np.inf}
    return cls(3, **settings | {"random_state": 0} | params)


def test_the_first_press_is_a_request_and_the_second_interrupts():
    with deferred_interrupts() as request:
        assert not request.heed()
        signal.raise_signal(signal.SIGINT)
        assert request.is_made
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_request_is_passed_on_if_nobody_has_acted_on_it():
    with deferred_interrupts() as request:
        request.pass_on()
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        request.pass_on()
    assert request.heed()
    request.pass_on()


def test_what_users_have_said_of_control_c_holds():
    presses = []
    signal.signal(signal.SIGINT, lambda *_: presses.append(1))
    try:
        with deferred_interrupts() as request:
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert presses == [1, 1]
    assert not request.is_made


def test_a_handler_that_is_set_meanwhile_stays():
    with deferred_interrupts():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_request_is_not_lost_in_an_error():
    def fail():
        with deferred_interrupts():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("of the fit")

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_leave_signals_alone():
    handlers = []

    def work():
        with deferred_interrupts():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


# --- fits -----------------------------------------------------------------------------


def test_the_weights_of_the_moment_are_kept(press):
    plain = make(max_iter=2).fit(X)
    done = press(8)
    model = make()
    with pytest.warns(ConvergenceWarning, match=r"Control-C .* epoch 2\. .* of that"):
        model.fit(X)
    assert len(done) == 8
    np.testing.assert_array_equal(model._theta, plain._theta)
    assert model.loss_curve_ == plain.loss_curve_
    assert model.score(X) == plain.score(X)


def test_an_epoch_may_be_left_in_its_middle(press):
    done = press(6)
    model = make()
    with pytest.warns(
        ConvergenceWarning, match=r"epoch 2\. .* fit with warm_start=True\.$"
    ):
        model.fit(X)
    assert len(done) == 6
    assert model.n_iter_ == 2
    assert model.loss_curve_[0] == pytest.approx(np.mean([d.total for d in done[:4]]))
    assert model.loss_curve_[1] == pytest.approx(np.mean([d.total for d in done[4:]]))
    losses = model.loss_curve_
    model.set_params(warm_start=True, max_iter=3).fit(X)
    assert model.loss_curve_[:2] == losses
    assert len(model.loss_curve_) == 5


def test_of_validated_weights_the_best_are_kept(press):
    press(30)
    model = make(early_stopping=True, learning_rate_init=0.5)
    with pytest.warns(ConvergenceWarning, match="the weights that scored best"):
        model.fit(X)
    scores = model.validation_scores_
    assert len(scores) == model.n_iter_ == 8
    best = 1 + int(np.argmax(scores))
    assert best < 8  # a rate this large makes scores rise and fall
    again = make(early_stopping=True, learning_rate_init=0.5, max_iter=best).fit(X)
    assert again.validation_scores_ == scores[:best]
    np.testing.assert_array_equal(model.coefs_[0], again.coefs_[0])


def test_later_stages_are_left_out(press):
    press(6)
    stack = make(StackedAutoencoder, hidden_layer_sizes=(9,), pretraining_max_iter=3)
    with pytest.warns(ConvergenceWarning, match=r"in epoch 2 of level 1\. .* left out"):
        stack.fit(X)
    assert list(stack.loss_curve_) == ["level 1"]
    assert stack.n_iter_ == 2
    assert np.isfinite(stack.score_samples(X)).all()
    assert stack.best_loss_ is stack.validation_scores_ is None


@pytest.mark.parametrize("n_steps", [2, 9])
def test_a_classifier_can_be_interrupted_before_and_while_it_is_taught(n_steps, press):
    press(n_steps)
    model = make(StackedAutoencoderClassifier, pretraining_max_iter=1)
    model.set_params(hidden_layer_sizes=())
    place = "epoch 1 of level 1" if n_steps == 2 else "epoch 2 of fine-tuning"
    with pytest.warns(ConvergenceWarning, match=place):
        model.fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0)


def test_lbfgs_ends_after_its_iteration(monkeypatch):
    full, calls = Trainer.full, []

    def pressed(self):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return full(self)

    monkeypatch.setattr(Trainer, "full", pressed)
    model = make(solver="lbfgs", corruption_level=0.0, max_iter=50)
    with pytest.warns(ConvergenceWarning, match="Control-C has ended training"):
        model.fit(X)
    assert 1 <= model.n_iter_ <= 3


@pytest.mark.parametrize("cls", [DenoisingAutoencoder, VariationalAutoencoder])
def test_two_presses_leave_the_estimator_as_it_was(cls, press):
    model = make(cls, max_iter=1).fit(X)
    before = model._theta.copy()
    press(3, n_times=2)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(max_iter=5).fit(X)
    np.testing.assert_array_equal(model._theta, before)
    assert len(model.loss_curve_) == 1


def test_a_press_after_training_interrupts_what_follows_the_fit(monkeypatch):
    finish = DenoisingAutoencoder._finish

    def pressed(self, rows):
        signal.raise_signal(signal.SIGINT)
        finish(self, rows)

    monkeypatch.setattr(DenoisingAutoencoder, "_finish", pressed)
    model, plain = make(max_iter=2), make(max_iter=2)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    monkeypatch.undo()
    np.testing.assert_array_equal(model._theta, plain.fit(X)._theta)


@pytest.mark.parametrize("n_steps", [1, 4, 10])
def test_with_a_checkpoint_the_same_call_goes_on(n_steps, press, tmp_path, monkeypatch):
    plain = make(max_iter=4).fit(X)
    press(n_steps)
    checkpoint = Checkpoint(tmp_path / "it.ckpt", n_minutes=None)
    model = make(max_iter=4, checkpoint=checkpoint)
    with pytest.warns(ConvergenceWarning, match="call fit once more"):
        model.fit(X)
    monkeypatch.undo()
    (record,) = read(tmp_path / "it.ckpt")["state"]["stages"].values()
    course = record["course"]
    assert course["epoch"] * 4 + course["n_seen"] / 50 == n_steps
    model = make(max_iter=4, checkpoint=checkpoint).fit(X)
    np.testing.assert_array_equal(model._theta, plain._theta)
    assert model.loss_curve_ == plain.loss_curve_


def test_after_a_warm_start_another_checkpoint_is_needed(press, tmp_path, monkeypatch):
    model = make(max_iter=4, warm_start=True, checkpoint=tmp_path / "it.ckpt")
    press(6)
    with pytest.warns(ConvergenceWarning, match="warm_start=True and another check"):
        model.fit(X)
    monkeypatch.undo()
    losses = model.loss_curve_
    with pytest.raises(ValueError, match="the fitted model of warm_start differed"):
        model.fit(X)
    model.set_params(checkpoint=tmp_path / "another.ckpt").fit(X)
    assert model.loss_curve_[:2] == losses
    assert len(model.loss_curve_) == 2 + 4


@pytest.mark.parametrize("n_steps", [2, 9])
def test_a_checkpoint_brings_later_stages_back(n_steps, press, tmp_path, monkeypatch):
    params = {"hidden_layer_sizes": (9,), "pretraining_max_iter": 2, "max_iter": 2}
    plain = make(StackedAutoencoderClassifier, **params).fit(X, y)
    press(n_steps)
    model = make(
        StackedAutoencoderClassifier, checkpoint=tmp_path / "it.ckpt", **params
    )
    with pytest.warns(ConvergenceWarning, match="call fit once more"):
        model.fit(X, y)
    monkeypatch.undo()
    np.testing.assert_array_equal(model.fit(X, y)._theta, plain._theta)
    assert model.loss_curve_ == plain.loss_curve_


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
def test_a_real_control_c():
    code = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from sklearn.datasets import load_digits\n"
        "from skae import DenoisingAutoencoder\n"
        "X, _ = load_digits(return_X_y=True)\n"
        "model = DenoisingAutoencoder(4, max_iter=10**6, tol=0, verbose=True,\n"
        "                             n_iter_no_change=float('inf'))\n"
        "model.fit(X)\n"
        "print('fitted', model.transform(X).shape, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-uc", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        limit = threading.Timer(60, process.kill)
        limit.start()
        assert process.stdout.readline().startswith("Epoch 1, loss")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        limit.cancel()
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == "fitted (1797, 4)"
    assert "ConvergenceWarning: Control-C has ended training in epoch" in err
