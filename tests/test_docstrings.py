"""Public docstrings follow numpydoc and name what is really there."""

import inspect

import numpy as np
import pytest

import skae
from skae import corruptions, distributions, optimizers

validate = pytest.importorskip(
    "numpydoc.validate", reason="numpydoc is absent"
).validate
ClassDoc = pytest.importorskip(
    "numpydoc.docscrape", reason="numpydoc is absent"
).ClassDoc

#: What scikit-learn ignores too: return names, and the first line's place.
EVERYWHERE = {"RT02", "GL01", "GL02"}
OUTSIDE_CLASSES = {"EX01", "SA01", "ES01"}
INHERITED = {
    "fit_transform",
    "get_feature_names_out",
    "get_metadata_routing",
    "get_params",
    "set_output",
    "set_params",
}
ESTIMATORS = [
    name for name in skae.__all__ if hasattr(getattr(skae, name), "get_params")
]


def public():
    yield "skae.checkpoints.Checkpoint"
    yield "skae.distributed.fit_distributed"
    for name in skae.__all__:
        cls = getattr(skae, name)
        yield f"skae.{name}"
        for member, value in inspect.getmembers(cls):
            hidden = member.startswith("_") or member.endswith("_request")
            if not hidden and member not in INHERITED and callable(value):
                yield f"skae.{name}.{member}"


@pytest.mark.parametrize("path", list(public()))
def test_docstring(path):
    is_class = path.rsplit(".", 1)[1][0].isupper()
    ignored = EVERYWHERE | (set() if is_class else OUTSIDE_CLASSES)
    errors = [error for error in validate(path)["errors"] if error[0] not in ignored]
    assert not errors


@pytest.mark.parametrize("name", ESTIMATORS)
def test_attributes_and_defaults_are_documented(name):
    cls = getattr(skae, name)
    X = np.random.default_rng(0).normal(size=(40, 4))
    y = np.arange(40) % 2
    settings = {"max_iter": 1, "n_iter_no_change": np.inf}
    if name == "AutoencoderOutlierDetector":
        settings = {"estimator": skae.DenoisingAutoencoder(**settings)}
    fitted = cls(**settings).fit(X, y)
    documented = {attribute.name for attribute in ClassDoc(cls)["Attributes"]}
    present = {
        attribute
        for attribute, _ in inspect.getmembers(fitted)
        if attribute.endswith("_") and not attribute.startswith("_")
    }
    assert present == documented - {"feature_names_in_"}
    for parameter in ClassDoc(cls)["Parameters"]:
        default = inspect.signature(cls).parameters[parameter.name].default
        stated = parameter.type.rsplit("default=", 1)[1]
        assert eval(stated) == default, parameter.name


@pytest.mark.parametrize(
    "cls",
    [
        *corruptions.CORRUPTIONS.values(),
        *distributions.DISTRIBUTIONS.values(),
        *optimizers.OPTIMIZERS.values(),
    ],
)
def test_members_of_families_are_described(cls):
    assert cls.__doc__ is not None
    assert cls.__doc__.split("\n")[0].rstrip().endswith(".")
