import pickle
import re
from importlib.util import find_spec

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import (
    DenoisingAutoencoder,
    SparseAutoencoder,
    StackedAutoencoder,
    StackedAutoencoderClassifier,
    VariationalAutoencoder,
)
from skae.checkpoints import Checkpoint

X, y = (data[:200] for data in load_digits(return_X_y=True))

HAS_CALLBACKS = find_spec("sklearn.callback") is not None
callbacks = pytest.mark.skipif(
    not HAS_CALLBACKS, reason="scikit-learn has callbacks from 1.9 on"
)


def make(cls=DenoisingAutoencoder, **params):
    settings = {"max_iter": 4, "n_iter_no_change": np.inf, "random_state": 0}
    return cls(3, **settings | params)


class Recorder:
    """Remembers the tasks that end; may ask to stop, or raise, at one of them."""

    def __init__(self, stop=None, error=None):
        self.stop, self.error = stop, error
        self.seen, self.calls = [], []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.calls.append("begin")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None):
        self.calls.append("end")
        self.given = X, y, metadata
        self.seen.append((context.task_name, context.task_id))
        if self.error and self.seen[-1] == self.error:
            raise RuntimeError("a callback's own")
        return self.seen[-1] == self.stop


def epochs(n):
    return [("epoch", k) for k in range(n)]


@pytest.mark.skipif(HAS_CALLBACKS, reason="this scikit-learn has callbacks")
def test_without_support_the_version_is_named():
    with pytest.raises(ImportError, match=re.escape(sklearn.__version__)):
        make().set_callbacks(Recorder())
    make().fit(X)


@callbacks
def test_what_is_no_callback_is_refused():
    with pytest.raises(TypeError, match="callbacks must be instances"):
        make().set_callbacks("a progress bar")
    model = make().set_callbacks(Recorder()).set_callbacks()
    assert not hasattr(model, "_skl_callbacks")


@callbacks
def test_a_fit_is_a_task_and_its_epochs_are_parts():
    recorder, weight = Recorder(), np.ones(len(X))
    model = make().set_callbacks(recorder).fit(X, sample_weight=weight)
    assert recorder.seen == [*epochs(4), ("fit", 0)]
    tasks = ["begin", *(["begin", "end"] * 4), "end"]
    assert recorder.calls == ["setup", *tasks, "teardown"]
    # Monitors of scores want to see a target.
    assert recorder.given[0] is recorder.given[1] is X
    assert recorder.given[2]["sample_weight"] is weight
    plain = make().fit(X, sample_weight=weight)
    assert vars(model).keys() - vars(plain).keys() == {"_skl_callbacks"}
    np.testing.assert_array_equal(model._theta, plain._theta)


@callbacks
def test_the_stages_of_a_stack_are_tasks():
    recorder = Recorder()
    stack = make(StackedAutoencoder, hidden_layer_sizes=(9, 7))
    stack.set_params(pretraining_max_iter=(2, 0, 1)).set_callbacks(recorder).fit(X)
    stages = [*epochs(2), ("level 1", 0), *epochs(1), ("level 3", 1)]
    assert recorder.seen == [*stages, *epochs(4), ("fine-tuning", 2), ("fit", 0)]
    recorder.seen.clear()
    stack.set_params(fine_tune=False).fit(X)
    assert recorder.seen == [*stages, ("fit", 0)]


@callbacks
def test_lbfgs_iterates_in_tasks():
    recorder = Recorder()
    model = make(solver="lbfgs", corruption_level=0.0).set_callbacks(recorder)
    with pytest.warns(ConvergenceWarning, match="max_iter=4"):
        model.fit(X)
    assert recorder.seen == [*epochs(4), ("fit", 0)]
    recorder.stop, recorder.seen[:] = ("epoch", 1), []
    assert model.fit(X).n_iter_ == 2


@callbacks
@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_callback_may_stop_a_fit_which_is_then_fitted(early_stopping):
    recorder = Recorder(stop=("epoch", 1))
    params = {"early_stopping": early_stopping, "n_iter_no_change": 10}
    model = make(**params).set_callbacks(recorder).fit(X)  # without a warning
    assert model.n_iter_ == 2
    plain = make(**params | {"max_iter": 2, "n_iter_no_change": np.inf}).fit(X)
    np.testing.assert_array_equal(model._theta, plain._theta)


@callbacks
def test_a_callback_may_stop_a_stage_or_what_follows():
    stack = make(StackedAutoencoder, hidden_layer_sizes=(9,), pretraining_max_iter=3)
    stack.set_callbacks(Recorder(stop=("epoch", 1))).fit(X)
    sizes = {name: len(curve) for name, curve in stack.loss_curve_.items()}
    assert sizes == {"level 1": 2, "level 2": 2, "fine-tuning": 2}
    stack.set_callbacks(Recorder(stop=("level 1", 0))).fit(X)
    assert list(stack.loss_curve_) == ["level 1"]


@callbacks
def test_an_error_of_a_callback_ends_the_fit_and_nothing_remains():
    recorder = Recorder(error=("epoch", 2))
    model = make(max_iter=1).fit(X)
    before = model._theta
    model.set_params(max_iter=4).set_callbacks(recorder)
    with pytest.raises(RuntimeError, match="a callback's own"):
        model.fit(X)
    assert recorder.calls[-1] == "teardown"
    assert model._theta is before
    assert not {"_callback_fit_ctx", "_skl_callbacks_to_teardown"} & vars(model).keys()


@callbacks
def test_an_error_at_the_very_end_leaves_nothing_either():
    model = make().set_callbacks(Recorder(error=("fit", 0)))
    with pytest.raises(RuntimeError, match="a callback's own"):
        model.fit(X)
    assert not hasattr(model, "_theta")


@callbacks
def test_wrong_data_are_torn_down_as_well():
    recorder = Recorder()
    with pytest.raises(ValueError, match="NaN"):
        make().set_callbacks(recorder).fit(np.full((5, 2), np.nan))
    assert recorder.calls == ["setup", "begin", "teardown"]


@callbacks
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("cls", [DenoisingAutoencoder, VariationalAutoencoder])
def test_models_of_epochs_are_those_of_shorter_fits(cls, early_stopping):
    seen = []

    class Keep(Recorder):
        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
            seen.append(fitted_estimator)

    # A rate this large makes validation scores rise and fall.
    params = {"early_stopping": early_stopping, "learning_rate_init": 0.3}
    make(cls, **params).set_callbacks(Keep()).fit(X)
    assert len(seen) == 5
    for k, model in enumerate(seen[:4]):
        shorter = make(cls, **params | {"max_iter": k + 1}).fit(X)
        names = vars(shorter).keys() - {"max_iter"}
        assert names <= vars(model).keys()
        for name in names:
            np.testing.assert_equal(vars(model)[name], vars(shorter)[name])


@callbacks
def test_scores_of_epochs_are_logged():
    from sklearn.callback import ScoringMonitor

    monitor = ScoringMonitor(scoring={"ll": lambda model, X, y: model.score(X)})
    model = make().set_callbacks(monitor).fit(X)
    log = [entry for entry in monitor.get_logs().data if len(entry["task_id_path"]) > 1]
    shorter = [make(max_iter=k + 1).fit(X).score(X) for k in range(4)]
    assert [entry["ll"] for entry in log] == shorter
    assert model.score(X) == shorter[-1]


@callbacks
def test_scores_of_a_classifier_begin_with_fine_tuning():
    from sklearn.callback import ScoringMonitor

    monitor = ScoringMonitor(scoring="accuracy")
    model = make(StackedAutoencoderClassifier, hidden_layer_sizes=())
    model.set_params(pretraining_max_iter=2).set_callbacks(monitor).fit(X, y)
    log = [entry for entry in monitor.get_logs().data if len(entry["task_id_path"]) > 1]
    assert [entry["task_id_path"] for entry in log] == [(0, 1, k) for k in range(4)]
    assert log[-1]["accuracy"] == model.score(X, y)
    assert log[0]["accuracy"] < log[-1]["accuracy"]


@callbacks
def test_scores_of_a_sparse_model_know_its_units():
    from sklearn.callback import ScoringMonitor

    found = []

    def density(model, X, y):
        found.append(model.density_)
        return model.score(X)

    model = make(SparseAutoencoder).set_params(n_components=20, penalty="batchtopk")
    model.set_callbacks(ScoringMonitor(scoring={"ll": density})).fit(X)
    assert len(found) == 5
    np.testing.assert_array_equal(found[-2], model.density_)
    assert (found[0] != model.density_).any()


@callbacks
def test_callbacks_come_along(tmp_path):
    recorder = Recorder()
    model = make().set_callbacks(recorder).fit(X)
    clone(model).fit(X)
    assert recorder.calls.count("setup") == 2
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(model)).transform(X), model.transform(X)
    )


@callbacks
def test_a_fit_that_goes_on_shows_all_its_epochs(tmp_path):
    checkpoint = Checkpoint(tmp_path / "it.ckpt", n_minutes=None, n_epochs=1)
    recorder = Recorder(error=("epoch", 2))
    with pytest.raises(RuntimeError, match="own"):
        make(checkpoint=checkpoint).set_callbacks(recorder).fit(X)
    recorder = Recorder()
    model = make(checkpoint=checkpoint).set_callbacks(recorder).fit(X)
    assert recorder.seen == [*epochs(4), ("fit", 0)]
    np.testing.assert_array_equal(model._theta, make().fit(X)._theta)


# --- scikit-learn's own -------------------------------------------------------------


@pytest.fixture
def bars(monkeypatch, capsys):
    """Return what shows the last state of the bars of a fit."""
    pytest.importorskip("rich", reason="rich, which draws the bars, is absent")
    from sklearn.callback import ProgressBar

    monkeypatch.setenv("COLUMNS", "200")

    def show(model, *args):
        model.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(*args)
        lines = capsys.readouterr().out.splitlines()
        found = [re.match(r"\s*(.*?) +━+ +(\d+)%", line) for line in lines]
        return [(match[1], match[2]) for match in found if match]

    return show


@callbacks
def test_a_bar_for_a_fit(bars):
    assert bars(make(), X)[-1] == ("DenoisingAutoencoder - fit", "100")


@callbacks
def test_a_bar_for_each_stage_of_a_stack(bars):
    stack = make(StackedAutoencoder, hidden_layer_sizes=(9,), pretraining_max_iter=3)
    names = ["fit", "level 1 #0", "level 2 #1", "fine-tuning #2"]
    assert bars(stack, X)[-4:] == [(f"StackedAutoencoder - {n}", "100") for n in names]


@callbacks
def test_bars_through_a_pipeline(bars):
    names = [name for name, _ in bars(make_pipeline(StandardScaler(), make()), X)]
    assert names[-1] == "Pipeline - fit-final-estimator | DenoisingAutoencoder - fit #1"


@callbacks
def test_bars_through_a_search_in_two_processes(bars):
    search = GridSearchCV(make(), {"n_components": [2, 3]}, cv=2, n_jobs=2)
    last = bars(search, X)[-7:]
    fits = [done for name, done in last if "| DenoisingAutoencoder - fit" in name]
    assert fits == ["100"] * 5
    assert last[0] == ("GridSearchCV - fit", "100")
