"""What scikit-learn asks of every estimator, asked of every kind of autoencoder."""

import tracemalloc
from itertools import product

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.utils import estimator_checks
from threadpoolctl import threadpool_limits

from skae import (
    AutoencoderOutlierDetector,
    DenoisingAutoencoder,
    SparseAutoencoder,
    StackedAutoencoder,
    StackedAutoencoderClassifier,
    StackedAutoencoderRegressor,
    VariationalAutoencoder,
    crew,
)
from skae.penalties import PENALTIES

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning",
    "ignore:X (does not have valid|has) feature names:UserWarning",
    # The checks feed noise, and train for a few epochs: codes have nothing to say.
    r"ignore:\d+ of \d+ units fire for no row:UserWarning",
    r"ignore:penalty='kl' takes the mean activation over batches:UserWarning",
    r"ignore:Posterior collapse\x3a none of the \d+ components says:UserWarning",
)

MEDIAN = "geometric_median"

# Bernoulli models are absent: the checks feed values above one, which they refuse.
WHOLE = {"corruption_level": 0, "batch_size": 10_000}
BRIEFLY = {"hidden_layer_sizes": (6,), "pretraining_max_iter": 3}
SHORT = {**BRIEFLY, "n_components": 8, "max_iter": 50, "learning_rate_init": 0.02}
ESTIMATORS = {
    "default": DenoisingAutoencoder(max_iter=5),
    "plain, whole batch": DenoisingAutoencoder(max_iter=50, **WHOLE),
    "tied, whole batch": DenoisingAutoencoder(max_iter=5, tied_weights=True, **WHOLE),
    "deep, whole batch": DenoisingAutoencoder(
        max_iter=5, hidden_layer_sizes=(6, 4), activation="relu", **WHOLE
    ),
    "sgd, whole batch": DenoisingAutoencoder(
        max_iter=5, solver="sgd", learning_rate="invscaling", alpha=0.1, **WHOLE
    ),
    "adamw, not standardized, whole batch": DenoisingAutoencoder(
        max_iter=5, solver="adamw", standardize=False, **WHOLE
    ),
    "L-BFGS": DenoisingAutoencoder(solver="lbfgs", corruption_level=0),
    "minibatches": DenoisingAutoencoder(max_iter=5, batch_size=4),
    "swap noise": DenoisingAutoencoder(max_iter=5, corruption="swap"),
    "early stopping": DenoisingAutoencoder(max_iter=5, early_stopping=True),
    "sparse": SparseAutoencoder(max_iter=5),
    "sparse, minibatches": SparseAutoencoder(max_iter=5, batch_size=4),
    "sparse, early stopping": SparseAutoencoder(
        3, max_iter=5, early_stopping=True, nested_sizes="auto"
    ),
    "sparse, auxiliary loss": SparseAutoencoder(
        max_iter=8, revival="auxiliary", dead_after=1.0, decoder_bias_init=MEDIAN
    ),
    "sparse, L-BFGS": SparseAutoencoder(3, penalty="kl", solver="lbfgs", max_iter=20),
    **{
        f"sparse, {penalty}": SparseAutoencoder(4, penalty=penalty, max_iter=5)
        for penalty in PENALTIES
    },
    "stacked": StackedAutoencoder(max_iter=5, **BRIEFLY),
    "stacked, minibatches": StackedAutoencoder(max_iter=5, batch_size=4, **BRIEFLY),
    "stacked, deep, whole batch": StackedAutoencoder(
        max_iter=5,
        hidden_layer_sizes=(6, 4),
        activation="logistic",
        penalty="kl",
        tied_weights=True,
        pretraining_max_iter=[3, 0, 2],
        **WHOLE,
    ),
    "stacked, not fine-tuned": StackedAutoencoder(
        fine_tune=False, corruption="gaussian", corruption_level=[0.1, 0], **BRIEFLY
    ),
    "stacked, early stopping": StackedAutoencoder(
        max_iter=5, early_stopping=True, **BRIEFLY
    ),
    "stacked, L-BFGS": StackedAutoencoder(
        solver="lbfgs", max_iter=20, corruption_level=0, **BRIEFLY
    ),
    "classifier": StackedAutoencoderClassifier(**SHORT),
    "classifier, minibatches": StackedAutoencoderClassifier(
        batch_size=16, **SHORT | {"max_iter": 20}
    ),
    "classifier, whole batch": StackedAutoencoderClassifier(
        activation="relu", tied_weights=True, class_weight="balanced", **SHORT, **WHOLE
    ),
    "classifier, early stopping": StackedAutoencoderClassifier(
        early_stopping=True, **SHORT
    ),
    "classifier, frozen": StackedAutoencoderClassifier(freeze_encoder=True, **SHORT),
    "regressor": StackedAutoencoderRegressor(**SHORT),
    "regressor, whole batch": StackedAutoencoderRegressor(
        activation="relu", early_stopping=True, **SHORT, **WHOLE
    ),
    "regressor, L-BFGS": StackedAutoencoderRegressor(
        solver="lbfgs", corruption_level=0, alpha=0.1, **SHORT
    ),
    "variational": VariationalAutoencoder(max_iter=5),
    "variational, whole batch": VariationalAutoencoder(max_iter=5, batch_size=10_000),
    "variational, minibatches": VariationalAutoencoder(max_iter=5, batch_size=4),
    "variational, deep, iwae": VariationalAutoencoder(
        max_iter=5, hidden_layer_sizes=(6, 4), objective="iwae", n_samples=3
    ),
    "variational, early stopping": VariationalAutoencoder(
        max_iter=5, early_stopping=True, beta_warm_up=3
    ),
    "variational, student_t, free bits": VariationalAutoencoder(
        max_iter=5, distribution="student_t", free_bits=0.1, batch_size=10_000
    ),
    "detector": AutoencoderOutlierDetector(DenoisingAutoencoder(max_iter=5)),
    "detector, trained rows": AutoencoderOutlierDetector(
        DenoisingAutoencoder(max_iter=5), calibration="train"
    ),
    "detector, variational, split, trimmed": AutoencoderOutlierDetector(
        VariationalAutoencoder(max_iter=5),
        calibration="split",
        n_folds=2,
        trimming=0.3,
    ),
}

#: One of each class, and SciPy's solver. The oldest libraries are spared the others,
#: which call scikit-learn in the same way.
ONE_OF_EACH = (
    "default",
    "L-BFGS",
    "sparse",
    "stacked",
    "classifier",
    "regressor",
    "variational",
    "detector",
)

#: The only checks that may fail, and the only estimators for which they may.
MINIBATCHES = dict.fromkeys(
    (
        "check_sample_weight_equivalence_on_dense_data",
        "check_sample_weight_equivalence_on_sparse_data",
    ),
    "a row of weight two and a row given twice share no minibatches",
)
HELD_OUT = dict.fromkeys(
    ("check_outliers_fit_predict", "check_outliers_train"),
    "the line is drawn by held-out rows, so that the share is that of new rows",
)

#: Checks that scikit-learn runs on its own estimators only.
NOT_YIELDED = [
    "check_get_feature_names_out_error",
    "check_dataframe_column_names_consistency",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_param_validation",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_global_set_output_transform_polars",
    "check_inplace_ensure_writeable",
]


def may_fail(name):
    """Return the checks that an estimator must fail, with the reason."""
    if "minibatches" in name:
        return MINIBATCHES
    return HELD_OUT if name == "detector" or "split" in name else {}


def marks_of(name):
    """Return what marks the checks of an estimator."""
    return [] if name in ONE_OF_EACH else [pytest.mark.thorough]


def yielded():
    """Pair every estimator with every check."""
    for name, estimator in ESTIMATORS.items():
        for pair in estimator_checks.estimator_checks_generator(
            estimator,
            expected_failed_checks=may_fail(name),
            mark="xfail",
        ):
            values, marks = getattr(pair, "values", pair), getattr(pair, "marks", ())
            label = f"{name}-{values[1].func.__name__}"
            yield pytest.param(*values, id=label, marks=[*marks, *marks_of(name)])


@pytest.mark.parametrize(("estimator", "check"), list(yielded()))
def test_check(estimator, check):
    check(estimator)


def applies(name, check):
    """Tell whether an estimator has what a check asks for."""
    transforms = "output" in check or "names_out" in check
    return hasattr(ESTIMATORS[name], "transform") or not transforms


@pytest.mark.parametrize(
    ("name", "check"),
    [
        pytest.param(*pair, marks=marks_of(pair[0]))
        for pair in product(ESTIMATORS, NOT_YIELDED)
        if applies(*pair)
    ],
)
def test_check_that_is_not_yielded(name, check):
    if "pandas" in check or "dataframe" in check:
        pytest.importorskip("pandas")
    if "polars" in check:
        pytest.importorskip("polars")
    estimator = clone(ESTIMATORS[name])
    getattr(estimator_checks, check)(type(estimator).__name__, estimator)


# --- threads and memory ---------------------------------------------------------------

#: Wide enough for a crew.
WIDE = {"max_iter": 2, "batch_size": 64, "random_state": 0}
CREWED = {
    "denoising": DenoisingAutoencoder(300, **WIDE),
    "swap, tied": DenoisingAutoencoder(
        300, corruption="swap", tied_weights=True, **WIDE
    ),
    "L-BFGS": DenoisingAutoencoder(
        300, solver="lbfgs", corruption_level=0, max_iter=2, random_state=0
    ),
    "early stopping": DenoisingAutoencoder(300, early_stopping=True, **WIDE),
    "sparse": SparseAutoencoder(300, revival="auxiliary", dead_after=1.0, **WIDE),
    "batch top-k": SparseAutoencoder(300, penalty="batchtopk", **WIDE),
    "stacked": StackedAutoencoder(
        20, hidden_layer_sizes=(300,), pretraining_max_iter=1, **WIDE
    ),
    "classifier": StackedAutoencoderClassifier(
        20, hidden_layer_sizes=(300,), pretraining_max_iter=1, **WIDE
    ),
    "variational": VariationalAutoencoder(20, hidden_layer_sizes=(300,), **WIDE),
}


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 5)) @ rng.standard_normal((5, 40))
    return X + 0.1 * rng.standard_normal(X.shape), (X[:, 0] > 0).astype(int)


@pytest.fixture
def crews(monkeypatch):
    """The sizes of all crews that are hired, and the threads that they have."""
    found = []

    class Watched(crew.Crew):
        def __init__(self, size, n_threads=None):
            super().__init__(size, n_threads)
            found.append((size, 1 + len(self._others)))

    monkeypatch.setattr(crew, "Crew", Watched)
    return found


@pytest.mark.parametrize("name", CREWED)
def test_threads_change_a_fit_by_rounding_only(name, rows, crews, monkeypatch):
    monkeypatch.setattr("skae._validation.cpu_count", lambda: 2)
    monkeypatch.setattr("skae.estimators._trained.LEAST_WORK", 1)
    scores = []
    for n_threads in (1, 2, 2):
        with threadpool_limits(n_threads, user_api="blas"):
            model = clone(CREWED[name]).fit(*rows)
        scores.append([model.loss_, *np.ravel(model.transform(rows[0]))])
    assert {(1, 1), (2, 2)} <= set(crews)
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(scores[2], scores[1])


def test_fits_side_by_side_take_one_thread_each(rows, crews, monkeypatch):
    # No limit is set here: while a block of the main thread holds one, no other thread
    # can hold products to one thread, and their sums are rounded otherwise.
    monkeypatch.setattr("skae._validation.allowed_threads", lambda: 2)
    monkeypatch.setattr("skae.estimators._trained.LEAST_WORK", 1)
    search = GridSearchCV(CREWED["denoising"], {"alpha": [0, 1e-4]}, cv=2, refit=False)
    search.fit(rows[0])
    assert (2, 2) in crews
    alone = search.cv_results_["mean_test_score"]
    crews.clear()
    with joblib.parallel_config("threading"):
        search.set_params(n_jobs=2).fit(rows[0])
    assert {n_threads for _, n_threads in crews} == {1}
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], alone)


def test_small_models_take_one_thread(rows, crews):
    with threadpool_limits(2, user_api="blas"):
        DenoisingAutoencoder(8, **WIDE).fit(rows[0])
    assert set(crews) == {(1, 1)}


def peak_memory(model, X):
    """Return the largest memory that a fit has allocated at any time."""
    tracemalloc.start()
    try:
        model.fit(X)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("hidden", [(), (512, 128)])
def test_memory_is_a_few_times_the_parameters(hidden, early_stopping):
    X = np.random.default_rng(0).random((1500, 512), dtype=np.float32)
    settings = WIDE | {"batch_size": 128, "early_stopping": early_stopping}
    model = DenoisingAutoencoder(1024, hidden_layer_sizes=hidden, **settings)
    model.fit(X[:128])  # imports, and what is kept for good
    peak, size = peak_memory(model, X), model._theta.nbytes
    activations = 128 * 4 * (sum(model._plan["down"]) + sum(model._plan["up"]))
    assert peak <= (4 + early_stopping) * size + 4 * activations


@pytest.mark.parametrize("standardize", [False, True])
def test_rows_are_not_copied(standardize):
    X = np.random.default_rng(0).random((100_000, 40), dtype=np.float32)
    model = DenoisingAutoencoder(8, standardize=standardize, **WIDE)
    model.fit(X[:100])
    assert peak_memory(model.set_params(max_iter=1), X) < X.nbytes / 2
