import errno
import io
import json
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from skae import (
    DenoisingAutoencoder,
    SparseAutoencoder,
    StackedAutoencoder,
    StackedAutoencoderClassifier,
    StackedAutoencoderRegressor,
    VariationalAutoencoder,
    archives,
    checkpoints,
)
from skae.archives import read
from skae.checkpoints import Checkpoint, Keeper, described, digest
from skae.corruptions import Masking
from skae.distributions import Gaussian
from skae.penalties import TopK
from skae.training import Trainer

X, y = (data[:200] for data in load_digits(return_X_y=True))

STACK = {"hidden_layer_sizes": (9,), "pretraining_max_iter": 2, "max_iter": 3}

#: Fits of every kind; each has something of its own to be brought back.
KINDS = {
    "plain": (DenoisingAutoencoder, {}),
    "float32": (DenoisingAutoencoder, {"dtype": np.float32}),
    "in order": (DenoisingAutoencoder, {"shuffle": False, "corruption_level": 0.3}),
    "momentum": (DenoisingAutoencoder, {"solver": "sgd", "learning_rate": "cosine"}),
    "dropping": (
        DenoisingAutoencoder,
        {"tol": 1e3, "n_iter_no_change": 1, "max_iter": 10},
    ),
    "early stopping": (
        DenoisingAutoencoder,
        {"early_stopping": True, "learning_rate_init": 0.5},  # the best is not the last
    ),
    "variational": (VariationalAutoencoder, {"beta_warm_up": 3}),
    "resampling": (SparseAutoencoder, {"n_components": 40, "dead_after": 0.5, "k": 1}),
    "auxiliary": (
        SparseAutoencoder,
        {"n_components": 40, "dead_after": 0.5, "k": 1, "revival": "auxiliary"},
    ),
    "rising penalty": (SparseAutoencoder, {"penalty": "l1", "sparsity_warm_up": 3}),
    "stack": (StackedAutoencoder, STACK),
    "stack, sparse": (StackedAutoencoder, STACK | {"penalty": "topk"}),
    "stack, not tuned": (StackedAutoencoder, STACK | {"fine_tune": False}),
    "classifier": (StackedAutoencoderClassifier, STACK | {"early_stopping": True}),
    "frozen": (StackedAutoencoderClassifier, STACK | {"freeze_encoder": True}),
    "regressor": (StackedAutoencoderRegressor, STACK),
}


def make(kind="plain", **params):
    cls, settings = KINDS[kind]
    common = {"batch_size": 50, "max_iter": 5, "random_state": 0, "n_components": 3}
    settings = common | {"n_iter_no_change": np.inf} | settings | params
    settings.pop("dtype", None)
    return cls(**settings)


def data(kind="plain"):
    cls, settings = KINDS[kind]
    target = (y,) if hasattr(cls, "predict") else ()
    return X.astype(settings.get("dtype", np.float64)), *target


class Killed(BaseException):
    """What a kill would be, were it not the end of the tests."""


def killed_fit(model, *args, n_writes=1, monkeypatch):
    """Kill a fit after so many checkpoints, and begin again, until it ends."""
    n_kills, written = 0, Keeper.write

    def kill(keeper, state):
        written(keeper, state)
        keeper.n_writes = getattr(keeper, "n_writes", 0) + 1
        if keeper.n_writes == n_writes:
            raise Killed

    monkeypatch.setattr(Keeper, "write", kill)
    while True:
        try:
            return deepcopy(model).fit(*args), n_kills
        except Killed:
            n_kills += 1


def assert_equal(one, other):
    """Compare all that two fits have left behind, to the last bit."""
    assert vars(one).keys() == vars(other).keys()
    for name in vars(one).keys() - {"checkpoint"}:
        a, b = vars(one)[name], vars(other)[name]
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b, err_msg=name)
        else:
            assert repr(a) == repr(b), name


@pytest.fixture
def path(tmp_path):
    return tmp_path / "it.ckpt"


@pytest.fixture
def every_step(path):
    return Checkpoint(path, n_minutes=1e-12)


# --- files ----------------------------------------------------------------------------


def other_npz(kind=archives.KIND, **arrays):
    file, version = io.BytesIO(), 99 if kind == archives.KIND else 1
    head = {"kind": kind, "format": version, "skae": "9.9", "content": {"dict": {}}}
    text = json.dumps(head).encode()
    np.savez(file, **arrays or {"about": np.frombuffer(text, np.uint8)})
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no checkpoint of skae"),
        (b"some text", "no checkpoint of skae"),
        (other_npz(weights=np.ones(3)), "no checkpoint of skae"),
        (other_npz(about=np.ones(3)), "no checkpoint of skae"),
        (other_npz(kind="another"), r"no checkpoint of skae, .* \(ValueError\)"),
        (other_npz(), r"written by skae 9\.9, in format 99"),
    ],
)
def test_a_foreign_file_is_refused_and_left_alone(content, message, path):
    path.write_bytes(content)
    model = make(checkpoint=path)
    with pytest.raises(ValueError, match=message):
        model.fit(X)
    assert path.read_bytes() == content
    assert not hasattr(model, "_theta")


@pytest.mark.parametrize(("early_stopping", "times"), [(False, 3), (True, 4)])
def test_files_are_as_large_as_they_have_to_be(early_stopping, times, path):
    model = make(
        hidden_layer_sizes=(500,), early_stopping=early_stopping, checkpoint=path
    )
    size = model.fit(X)._theta.nbytes
    assert times * size < path.stat().st_size < times * size + 10_000
    stack = make("stack", hidden_layer_sizes=(500,), checkpoint=path.with_name("s"))
    size = stack.fit(X)._theta.nbytes  # of levels that are over nothing large is kept
    assert path.with_name("s").stat().st_size < 3 * size + 20_000


# --- when -----------------------------------------------------------------------------


def test_minutes_and_epochs(path, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock.now)
    keeper = Keeper(Checkpoint(path, n_minutes=2.0, n_epochs=3), {})
    assert keeper.is_due()
    keeper.write({})
    assert [keeper.is_due(epoch) for epoch in (None, 1, 2, 3, 4, 6)] == [
        *[False] * 3,
        True,
        False,
        True,
    ]
    clock.now = 220.0
    assert keeper.is_due()
    keeper.write({})
    assert not keeper.is_due()
    clock.now = 1e9
    keeper = Keeper(Checkpoint(path, n_minutes=None, n_epochs=3), {})
    keeper.write({})
    assert not keeper.is_due(1)


def test_epochs_of_a_fit(path, monkeypatch):
    epochs, written = [], Keeper.write
    monkeypatch.setattr(
        Keeper,
        "write",
        lambda keeper, state: (
            epochs.append(state["stages"][""]["course"]["epoch"])
            or written(keeper, state)
        ),
    )
    make(checkpoint=Checkpoint(path, n_minutes=None, n_epochs=2)).fit(X)
    assert epochs == [0, 2, 4, 5]  # the first after a step


def test_the_default_is_a_minute(path):
    assert Checkpoint(path).n_minutes == 1.0
    make(checkpoint=str(path)).fit(X)
    assert path.exists()


@pytest.mark.parametrize(
    "params", [{"n_minutes": 0}, {"n_epochs": 0}, {"n_epochs": 1.5}]
)
def test_wrong_settings_are_named(params, path):
    with pytest.raises(ValueError, match=next(iter(params))):
        make(checkpoint=Checkpoint(path, **params)).fit(X)


def test_wrong_paths_are_named(tmp_path):
    with pytest.raises(ValueError, match="'checkpoint' parameter"):
        make(checkpoint=3).fit(X)
    with pytest.raises(ValueError, match="checkpoint='' names no file"):
        make(checkpoint="").fit(X)
    with pytest.raises(
        ValueError, match=r"folder of checkpoint=.*new/' does not exist"
    ):
        make(checkpoint=f"{tmp_path}/new/").fit(X)
    with pytest.raises(ValueError, match=r"folder of checkpoint=.*nowhere.* exist"):
        make(checkpoint=tmp_path / "nowhere" / "it.ckpt").fit(X)


def test_lbfgs_is_refused(path):
    with pytest.raises(ValueError, match="not available with solver='lbfgs'"):
        make(solver="lbfgs", corruption_level=0.0, checkpoint=path).fit(X)


def test_a_full_disk_does_not_end_a_fit(every_step, monkeypatch):
    attempts = []

    def full(path, content):
        attempts.append(path)
        if len(attempts) > 1:
            raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr(checkpoints, "write", full)
    with pytest.warns(RuntimeWarning, match="could not be written: .* No space left"):
        model = make(max_iter=1, checkpoint=every_step).fit(X)
    assert_equal(model, make(max_iter=1).fit(X))
    keeper = Keeper(every_step, {})
    with pytest.raises(OSError, match=r"checkpoint .* could not be written: No"):
        keeper.write({})


def test_what_killed_fits_left_behind_is_removed(path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here, left = archives.node(), {}
    for name, owner in {
        "ended": f"{here}-{ended.pid}",
        "alive": f"{here}-{os.getpid()}",
        "elsewhere": "another-host-3",
        "elsewhere, old": "another-host-4",
    }.items():
        left[name] = path.with_name(f"{path.name}.{owner}-abc.partial")
        left[name].touch()
    os.utime(left["elsewhere, old"], (0, 0))
    others = path.with_name(f"another.ckpt.{here}-{ended.pid}-abc.partial")
    strange = path.with_name(f"{path.name}.strange.partial")
    others.touch()
    strange.touch()
    Keeper(Checkpoint(path), {})
    there = {name for name, file in left.items() if file.exists()}
    assert there == {"alive", "elsewhere"} | (
        {"ended"} if os.name != "posix" else set()
    )
    assert others.exists()
    assert strange.exists()


def test_another_fit_that_begins_leaves_a_write_alone(every_step, monkeypatch):
    """A second process on the same file must not end the first one."""
    fsync, begun = os.fsync, []

    def begin_another(handle):
        if not begun:
            begun.append(Keeper(every_step, {}))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", begin_another)
    model = make(max_iter=1, checkpoint=every_step).fit(X)
    assert begun
    assert_equal(model, make(max_iter=1).fit(X))


# --- going on -------------------------------------------------------------------------


@pytest.mark.parametrize("n_writes", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_fit_ends_as_if_it_had_not_been(
    kind, n_writes, every_step, monkeypatch
):
    args = data(kind)
    plain, model = make(kind).fit(*args), make(kind, checkpoint=every_step)
    fitted, n_kills = killed_fit(
        model, *args, n_writes=n_writes, monkeypatch=monkeypatch
    )
    assert n_kills > 10 / n_writes
    assert_equal(fitted, plain)


def test_without_a_seed_the_random_numbers_are_gone_on_with(every_step, monkeypatch):
    def use_seeds(first):
        seeds = iter(range(first, 1000))
        monkeypatch.setattr(
            "skae.estimators._watch.new_generator",
            lambda _: np.random.Generator(np.random.SFC64(next(seeds))),
        )

    use_seeds(7)
    plain = make("early stopping", random_state=None).fit(X)
    use_seeds(7)
    model = make("early stopping", random_state=None, checkpoint=every_step)
    fitted, n_kills = killed_fit(model, X, n_writes=3, monkeypatch=monkeypatch)
    assert n_kills > 3
    assert_equal(fitted, plain)


def test_the_state_is_complete(every_step):
    """Whatever a fit changes between two steps has to be in the file."""
    make("auxiliary", checkpoint=every_step).fit(X)
    state = read(Path(every_step.path))["state"]
    (record,) = state["stages"].values()
    assert set(state) == {"start", "stages", "theta", "generator"}
    names = {"moments", "epoch", "drops", "is_over", "n_seen", "sums", "own"}
    assert set(record["course"]) == names | {"generator"}


@pytest.mark.parametrize("kind", ["plain", "early stopping", "classifier"])
def test_a_fit_that_has_ended_is_found_again(kind, path, monkeypatch):
    model = make(kind, checkpoint=path).fit(*data(kind))

    def refuse(*args):
        raise AssertionError("a step was taken")

    monkeypatch.setattr(Trainer, "step", refuse)
    assert_equal(make(kind, checkpoint=path).fit(*data(kind)), model)


def test_a_warm_start_goes_on(every_step, monkeypatch):
    begun = make(max_iter=2).fit(X).set_params(warm_start=True, max_iter=3)
    plain = deepcopy(begun).fit(X)
    begun.set_params(checkpoint=every_step)
    model, n_kills = killed_fit(begun, X, n_writes=2, monkeypatch=monkeypatch)
    assert n_kills > 3
    assert_equal(model, plain)
    assert len(model.loss_curve_) == 5
    # Another model to start from is another fit.
    other = make(max_iter=1, random_state=1).fit(X)
    other.set_params(warm_start=True, max_iter=3, random_state=0, checkpoint=every_step)
    with pytest.raises(ValueError, match="the fitted model of warm_start differed"):
        other.fit(X)


def test_what_does_not_matter_may_change(path, monkeypatch, capsys):
    model = make(checkpoint=path).fit(X)
    other = Checkpoint(path, n_epochs=7)
    again = make(checkpoint=other, verbose=True).fit(np.array(X))
    np.testing.assert_array_equal(again._theta, model._theta)
    assert capsys.readouterr().out == ""  # no epoch was left


@pytest.mark.parametrize(
    ("params", "args", "named"),
    [
        ({"max_iter": 6}, (X,), "max_iter"),
        ({"alpha": 0.5, "solver": "sgd"}, (X,), "alpha, solver"),
        ({"random_state": 1}, (X,), "random_state"),
        ({"random_state": None}, (X,), "random_state"),
        ({"distribution": "laplace"}, (X,), "distribution"),
        ({}, (X + 1e-9,), "X"),
        ({}, (X[::-1],), "X"),
        ({}, (X, None, np.ones(len(X))), "sample_weight"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(params, args, named, path):
    make(checkpoint=path).fit(X)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=f"another fit: {named} differed"):
        make(checkpoint=path, **params).fit(*args)
    assert path.read_bytes() == content


def test_other_targets_and_classes_are_refused(path):
    make("classifier", checkpoint=path).fit(X, y)
    with pytest.raises(ValueError, match="another fit: y differed"):
        make("classifier", checkpoint=path).fit(X, (y + 1) % 10)
    with pytest.raises(ValueError, match="the class"):
        make("regressor", checkpoint=path).fit(X, y)


def test_a_search_is_resumed_from_a_folder(tmp_path, monkeypatch):
    model = make(checkpoint=tmp_path, max_iter=2)
    grid = {"n_components": [2, 3], "max_iter": [2, 1]}
    search = GridSearchCV(model, grid, cv=2).fit(X)
    assert len(list(tmp_path.glob("*.ckpt"))) == 2 * 2 * 2 + 1
    steps, step = [], Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda *args: steps.append(1) or step(*args))
    next(tmp_path.glob("*.ckpt")).unlink()
    again = GridSearchCV(model, grid, cv=2).fit(X)
    assert len(steps) in (2, 4, 8)  # of one fit: one or two epochs, on half or all rows
    scores = [found.cv_results_["mean_test_score"] for found in (search, again)]
    np.testing.assert_array_equal(*scores)


def test_a_fit_that_a_callback_has_stopped_goes_on(path):
    pytest.importorskip("sklearn.callback", reason="scikit-learn has none before 1.9")

    class Stop:
        place = "epoch", 1

        def setup(self, estimator, context): ...

        def teardown(self, estimator, context): ...

        def on_fit_task_begin(self, estimator, context): ...

        def on_fit_task_end(self, estimator, context):
            return (context.task_name, context.task_id) == self.place

    for kind, place in [("plain", ("epoch", 2)), ("stack", ("level 1", 0))]:
        Stop.place = place
        plain = make(kind).fit(X)
        stopped = make(kind, checkpoint=path).set_callbacks(Stop()).fit(X)
        assert stopped.n_iter_ < plain.n_iter_
        assert_equal(make(kind, checkpoint=path).fit(X), plain)
        path.unlink()


def test_divergence_after_going_on_names_the_epoch(every_step, monkeypatch):
    params = {"solver": "sgd", "momentum": 0.0, "learning_rate": "constant"}
    params |= {"learning_rate_init": 0.25, "max_iter": 200, "corruption_level": 0.0}
    model = make(hidden_layer_sizes=(50,), **params)
    with pytest.raises(ValueError, match=r"diverged in epoch \d+") as plain:
        model.fit(X)
    assert "epoch 1:" not in str(plain.value)
    model.set_params(checkpoint=every_step)
    with pytest.raises(ValueError, match=r"diverged in epoch \d+") as resumed:
        killed_fit(model, X, n_writes=5, monkeypatch=monkeypatch)
    assert str(resumed.value) == str(plain.value)


def test_a_fit_that_goes_on_is_compared_with_its_beginning(every_step, monkeypatch):
    """What is worse than at first is refused, and first is the step before the kill."""
    params = {"standardize": False, "learning_rate_init": 1.0, "max_iter": 2}
    model = make(hidden_layer_sizes=(50,), **params)
    with pytest.raises(ValueError, match="where the mean of the data costs") as plain:
        model.fit(X)
    model.set_params(checkpoint=every_step)
    with pytest.raises(ValueError, match="where the mean of the data costs") as resumed:
        killed_fit(model, X, n_writes=7, monkeypatch=monkeypatch)
    assert str(resumed.value) == str(plain.value)


# --- what a call is -------------------------------------------------------------------


class Weighted(Gaussian):
    """A component with a parameter that scikit-learn would not print in full."""

    def __init__(self, weights=None):
        self.weights = weights


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.int64(3), 3),
        (3.0, 3),
        (np.float64(0.1), 0.1),
        ((1, 2), [1, 2]),
        (np.array([1, 2]), [1, 2]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (Gaussian(), Gaussian()),
        (Masking(), Masking()),
    ],
)
def test_what_is_equal_is_described_as_equal(one, other):
    assert described(one) == described(other)
    with config_context(print_changed_only=False):
        assert described(one) == described(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (3, "3"),
        (True, "True"),
        (None, "None"),
        ([1, [2]], [[1], 2]),
        ({"a": 1}, {"a": 2}),
        (Gaussian(), Masking()),
        (TopK(3), TopK(4)),
        (Weighted([1] * 64), Weighted([1] * 63 + [2])),
        (Weighted(np.zeros(5000)), Weighted(np.arange(5000) == 2500)),
        (Weighted(np.ones(3)), Weighted(np.ones(3) + 1e-10)),
        (0.1, 0.1 + 1e-16),
    ],
)
def test_what_differs_is_described_as_different(one, other):
    assert described(one) != described(other)


def test_content_tells_arrays_apart_and_nothing_else():
    x = np.arange(12.0).reshape(3, 4)
    same = [x, np.asfortranarray(x), sparse.csr_matrix(x), np.repeat(x, 2, 0)[::2]]
    assert len({digest(array) for array in same}) == 1
    wide = np.zeros((3, checkpoints.ENTRIES // 2))
    changed = wide.copy()
    changed[2, -1] = 1.0
    assert digest(wide) != digest(changed)
    moved = (
        sparse.csr_matrix(([1.0], ([0], [0])), (2, 2)),
        sparse.csr_matrix(([1.0], ([0], [1])), (2, 2)),
    )
    assert digest(moved[0]) != digest(moved[1])
    other = [
        x.reshape(4, 3),
        x.T,
        x.astype(np.float32),
        x + 1e-9,
        x[::-1],
        x.ravel(),
        x[:2],
        None,
    ]
    assert len({digest(array) for array in [x, *other]}) == 9


# --- real processes -------------------------------------------------------------------

KILLING = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
from sklearn.datasets import load_digits
from skae import DenoisingAutoencoder
from skae.archives import read
from skae.checkpoints import Checkpoint

folder = Path(sys.argv[1])
path, random_ = folder / "it.ckpt", random.Random(0)
X = load_digits()["data"][:400]

def make(**params):
    return DenoisingAutoencoder(
        40, hidden_layer_sizes=(200,), batch_size=20, max_iter=20, early_stopping=True,
        n_iter_no_change=np.inf, random_state=0, **params
    )

def life():
    "Fit in a process of its own, which tells when it has done."
    child = os.fork()
    if child == 0:
        model = make(checkpoint=Checkpoint(path, n_minutes=1e-9)).fit(X)
        np.savez(folder / "result.npz", theta=model._theta, losses=model.loss_curve_,
                 scores=model.validation_scores_)
        os._exit(0)
    return child

def progress():
    "Return epochs and rows of the checkpoint, which has to be whole at any moment."
    if not path.exists():
        return 0, 0
    course = read(path)["state"]["stages"][""]["course"]
    return course["epoch"], course["n_seen"]

def stamp():
    "Tell one checkpoint from the next."
    return path.stat().st_mtime_ns if path.exists() else 0

def lived(child, before, waits):
    "Kill a life, maybe after it has written a checkpoint; return how it ended."
    while waits and stamp() == before:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.0005)
    time.sleep(random_.uniform(0.0, 0.03))
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]

def has_ended(status):
    "Tell whether a life came to its end, and was then what it would have been alone."
    if os.WIFSIGNALED(status):
        return False
    assert status == 0
    found = np.load(folder / "result.npz")
    assert np.array_equal(found["theta"], plain._theta)
    assert found["losses"].tolist() == plain.loss_curve_
    assert found["scores"].tolist() == plain.validation_scores_
    assert not list(folder.glob("*.partial"))
    return True

plain, kills, within, last, most = make().fit(X), 0, 0, (0, 0), (0, 0)
while kills < 100:
    status = lived(life(), stamp(), waits=random_.random() < 0.8)
    if has_ended(status):  # on a fast machine; begin another one
        path.unlink()
        last = 0, 0
        continue
    kills += 1
    within += any(folder.glob("*.partial"))
    assert progress() >= last, (progress(), last)
    last = progress()
    most = max(most, last)
_, status = os.waitpid(life(), 0)
assert has_ended(status)
print(kills, within, *most)
"""


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_hundred_kills_lose_nothing(tmp_path):
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLING, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    kills, within, n_epochs, n_rows = map(int, done.stdout.split())
    assert kills == 100
    assert within > 0  # some of the kills hit a write
    assert (n_epochs, n_rows) > (1, 0)  # it has seen validations
