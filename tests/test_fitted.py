"""Keeping a fitted model: in memory, in a file, and from one version to the next.

``python tests/test_fitted.py`` saves the models of this version beside the others, or
those of the kinds that it is given. It is run once for each release, and whenever the
form of the saved state changes.
"""

import copy
import pickle
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris

import skae
from skae import (
    AutoencoderOutlierDetector,
    DenoisingAutoencoder,
    SparseAutoencoder,
    StackedAutoencoder,
    StackedAutoencoderClassifier,
    StackedAutoencoderRegressor,
    VariationalAutoencoder,
)
from skae.distributions import StudentT

MODELS = Path(__file__).parent / "models"

#: What the stacks have in common.
STACK = {
    "hidden_layer_sizes": (3,),
    "activation": "tanh",
    "corruption": "masking",
    "corruption_level": [0.05, 0.0],
    "pretraining_max_iter": [20, 10],
    "pretraining_learning_rate_init": 0.005,
    "learning_rate": "constant",
    "learning_rate_init": 0.005,
    "max_iter": 300,
    "tol": 0.01,
    "random_state": 0,
}
#: One small model of each kind; all settings are given, whatever the defaults become.
KINDS = {
    "denoising": DenoisingAutoencoder(
        2,
        hidden_layer_sizes=(3,),
        activation="tanh",
        corruption="masking",
        corruption_level=0.05,
        learning_rate="constant",
        max_iter=300,
        tol=0.01,
        random_state=0,
    ),
    "sparse": SparseAutoencoder(
        5,
        penalty="batchtopk",
        k=2,
        learning_rate="constant",
        max_iter=300,
        tol=0.01,
        random_state=0,
    ),
    "stacked": StackedAutoencoder(2, code_activation="identity", **STACK),
    "classifier": StackedAutoencoderClassifier(
        2, code_activation="tanh", unlabeled=-1, class_weight="balanced", **STACK
    ),
    "regressor": StackedAutoencoderRegressor(
        2, code_activation="tanh", freeze_encoder=True, **STACK
    ),
    "variational": VariationalAutoencoder(
        2,
        distribution=[
            ("gaussian", [0]),
            (StudentT(df=5.0), [1]),
            ("gamma", slice(2, 4)),
        ],
        hidden_layer_sizes=(3,),
        decoder_layer_sizes=(4,),
        activation="tanh",
        learning_rate="constant",
        max_iter=300,
        tol=0.01,
        n_importance_samples=16,
        random_state=0,
    ),
}
KINDS["detector"] = AutoencoderOutlierDetector(
    KINDS["denoising"],
    contamination=0.1,
    anomaly_score={"log_likelihood": 1.0, "reconstruction_error": 0.5},
    calibration="split",
    validation_fraction=0.2,
    effective_features=8.0,
    n_exemplars=50,
    random_state=0,
)
X = load_iris().data
#: What the supervised ones learn; they have no target for every third row.
TARGETS = {
    "classifier": np.where(np.arange(150) % 3, load_iris().target, -1),
    "regressor": np.where(np.arange(150) % 3, X[:, 0] + X[:, 2], np.nan),
}
every = pytest.mark.parametrize("kind", KINDS)


def fitted(kind):
    return clone(KINDS[kind]).fit(X, TARGETS.get(kind))


def results(model):
    """Return what the model makes of the irises, by name."""
    found = {}
    if hasattr(model, "transform"):
        found["codes"] = model.transform(X)
    if hasattr(model, "inverse_transform"):
        found["reconstructions"] = model.inverse_transform(found["codes"])
        found["scores"] = model.score_samples(X)
    for name in ("predict", "predict_proba", "decision_function"):
        if hasattr(model, name):
            found[name] = getattr(model, name)(X)
    return found


def go_on(model):
    """Train the model further, if it can go on from where it is."""
    if hasattr(model, "partial_fit"):
        return model.partial_fit(X)
    if hasattr(model, "set_threshold"):
        return model.set_threshold(fpr=0.1)
    kind = "classifier" if hasattr(model, "classes_") else "regressor"
    return model.set_params(warm_start=True).fit(X, TARGETS[kind])


def through_file(dump, load):
    def through(model, folder):
        dump(model, folder / "model")
        return load(folder / "model")

    return through


def through_skops(model, folder):
    io = pytest.importorskip("skops.io", reason="skops is not installed")
    io.dump(model, folder / "model.skops")
    untrusted = io.get_untrusted_types(file=folder / "model.skops")
    return io.load(folder / "model.skops", trusted=untrusted)


WAYS = {
    "pickle": lambda model, folder: pickle.loads(pickle.dumps(model)),
    "copy": lambda model, folder: copy.deepcopy(model),
    "joblib": through_file(joblib.dump, joblib.load),
    "skops": through_skops,
}


def assert_same(one, other):
    ours, theirs = results(one), results(other)
    assert list(ours) == list(theirs)
    for name, expected in theirs.items():
        np.testing.assert_array_equal(ours[name], expected)


@every
@pytest.mark.parametrize("way", WAYS)
def test_a_kept_model_gives_the_same_results(kind, way, tmp_path):
    model = fitted(kind)
    kept = WAYS[way](model, tmp_path)
    assert_same(kept, model)
    assert repr(kept) == repr(model)
    method = "decision_function" if kind == "detector" else "transform"
    before = getattr(model, method)(X)
    assert_same(go_on(kept), go_on(model))
    frozen = getattr(model, "freeze_encoder", False)
    assert np.array_equal(getattr(model, method)(X), before) == frozen


@every
def test_public_classes_are_all_that_skops_must_trust(kind):
    io = pytest.importorskip("skops.io", reason="skops is not installed")
    model = go_on(fitted(kind))
    for name in io.get_untrusted_types(data=io.dumps(model)):
        module, _, member = name.rpartition(".")
        assert module.startswith("skae.")
        assert "._" not in module
        assert not member.startswith("_")


@every
def test_an_unfitted_model_can_be_kept(kind):
    model = pickle.loads(pickle.dumps(clone(KINDS[kind])))
    assert repr(model) == repr(KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("saved_by", [("9.0", 999), (None, None)])
def test_another_form_of_state_is_an_error_that_names_the_version(kind, saved_by):
    model = fitted(kind)
    state = model.__getstate__()
    state["_skae_version"], state["_skae_format"] = saved_by
    if saved_by[0] is None:
        del state["_skae_version"], state["_skae_format"]
    match = f"saved by skae {saved_by[0] or 'before 0.1.0'}, and skae"
    with pytest.raises(ValueError, match=match):
        type(model)().__setstate__(state)


SAVED = sorted(path.stem for path in MODELS.glob("*.skops"))


def test_this_version_has_saved_its_models():
    assert {f"{skae.__version__}-{kind}" for kind in KINDS} <= set(SAVED)


@pytest.mark.parametrize("stem", SAVED)
def test_models_of_earlier_versions_load(stem):
    io = pytest.importorskip("skops.io", reason="skops is not installed")
    path = MODELS / f"{stem}.skops"
    model = io.load(path, trusted=io.get_untrusted_types(file=path))
    with np.load(MODELS / f"{stem}.npz") as expected:
        found = results(model)
        scores = found.pop("scores", np.zeros(1))
        assert set(expected) <= set(found)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)
    assert np.isfinite(scores).all()


def save():
    """Write the models of this version, and what they make of the irises.

    Estimates of log p(x) are left out: a later version may make better ones.
    """
    from zipfile import ZIP_DEFLATED

    from skops import io

    for kind in KINDS.keys() & set(sys.argv[1:] or KINDS):
        stem, model = MODELS / f"{skae.__version__}-{kind}", fitted(kind)
        io.dump(model, f"{stem}.skops", compression=ZIP_DEFLATED)
        found = results(model)
        found.pop("scores", None)
        np.savez_compressed(f"{stem}.npz", **found)


if __name__ == "__main__":
    save()
