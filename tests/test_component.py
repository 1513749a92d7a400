import pickle

import numpy as np
import pytest
from sklearn.base import clone

from skae.component import Range, resolve
from skae.corruptions import CORRUPTIONS
from skae.distributions import DISTRIBUTIONS
from skae.optimizers import OPTIMIZERS, SGD

MEMBERS = [
    pytest.param(cls, id=f"{family}-{name}")
    for family, registry in {
        "corruptions": CORRUPTIONS,
        "distributions": DISTRIBUTIONS,
        "optimizers": OPTIMIZERS,
    }.items()
    for name, cls in registry.items()
]


@pytest.mark.parametrize("cls", MEMBERS)
def test_members_clone_pickle_and_print(cls):
    member = cls()
    assert repr(clone(member)) == repr(member)
    assert pickle.loads(pickle.dumps(member)).get_params() == member.get_params()
    assert repr(member).startswith(cls.__name__)


@pytest.mark.parametrize("cls", MEMBERS)
def test_members_constrain_every_parameter(cls):
    assert set(cls._parameter_constraints) == set(cls._get_param_names())
    cls()._validate_params()


def test_resolve_passes_the_settings_that_fit():
    optimizer = resolve("sgd", OPTIMIZERS, momentum=0.5, beta_1=0.1)
    assert optimizer.get_params() == {"momentum": 0.5, "nesterovs_momentum": True}


def test_resolve_returns_an_instance_as_it_is():
    optimizer = SGD(momentum=0.1)
    assert resolve(optimizer, OPTIMIZERS, momentum=0.5) is optimizer


def test_resolve_validates_an_instance():
    with pytest.raises(ValueError, match="'momentum' parameter of SGD"):
        resolve(SGD(momentum=2.0), OPTIMIZERS)


@pytest.mark.parametrize(
    ("interval", "text", "inside", "outside"),
    [
        (Range(0.0, 1.0), "[0, 1]", [0.0, 0.5, 1.0], [-0.1, 1.1, np.nan]),
        (Range(0.0), "[0, inf)", [0.0, 1e300], [-1e-300]),
        (Range(), "(-inf, inf)", [-1e300, 1e300], [np.nan]),
        (Range(high=2.0), "(-inf, 2]", [-1e300, 2.0], [2.1]),
        (Range(0.0, 1.0, open=True), "(0, 1)", [1e-300, 0.5], [0.0, 1.0, np.nan]),
        (Range(0.0, open=True), "(0, inf)", [1e-300, 1e300], [0.0, -1.0]),
        (
            Range(0.0, whole=True),
            "whole numbers in [0, inf)",
            [0.0, 3.0, 1e300],
            [-1.0, 0.5, np.nan],
        ),
        (Range(0.0, 1.0, whole=True), "whole numbers in [0, 1]", [0, 1], [0.5, 2]),
    ],
)
def test_range(interval, text, inside, outside):
    assert str(interval) == text
    assert all(value in interval for value in inside)
    assert not any(value in interval for value in outside)
    values = np.array([[*inside, *outside]])
    expected = [[*(len(inside) * [False]), *(len(outside) * [True])]]
    np.testing.assert_array_equal(interval.outside(values), expected)
    assert interval.outside(values).dtype == bool
