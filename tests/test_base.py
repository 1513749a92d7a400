"""What scikit-learn asks of every estimator, asked of every kind of autoencoder."""

import pytest
from sklearn.base import clone
from sklearn.utils import estimator_checks

from skae import (
    DenoisingAutoencoder,
    SparseAutoencoder,
    StackedAutoencoder,
    StackedAutoencoderClassifier,
    StackedAutoencoderRegressor,
    VariationalAutoencoder,
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
SHORT = {**BRIEFLY, "n_components": 8, "max_iter": 100, "learning_rate_init": 0.01}
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
    "classifier, minibatches": StackedAutoencoderClassifier(batch_size=8, **SHORT),
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
}

#: The only checks that may fail, and the only estimators for which they may.
MINIBATCHES = dict.fromkeys(
    (
        "check_sample_weight_equivalence_on_dense_data",
        "check_sample_weight_equivalence_on_sparse_data",
    ),
    "a row of weight two and a row given twice share no minibatches",
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


def yielded():
    """Pair every estimator with every check."""
    for name, estimator in ESTIMATORS.items():
        for pair in estimator_checks.estimator_checks_generator(
            estimator,
            expected_failed_checks=MINIBATCHES if "minibatches" in name else {},
            mark="xfail",
        ):
            values, marks = getattr(pair, "values", pair), getattr(pair, "marks", ())
            label = f"{name}-{values[1].func.__name__}"
            yield pytest.param(*values, id=label, marks=marks)


@pytest.mark.parametrize(("estimator", "check"), list(yielded()))
def test_check(estimator, check):
    check(estimator)


@pytest.mark.parametrize("check", NOT_YIELDED)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_check_that_is_not_yielded(name, check):
    if "pandas" in check or "dataframe" in check:
        pytest.importorskip("pandas")
    if "polars" in check:
        pytest.importorskip("polars")
    estimator = clone(ESTIMATORS[name])
    getattr(estimator_checks, check)(type(estimator).__name__, estimator)
