import copy
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numerical import check_gradient, support_sample
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import make_column_selector

from skae.composite import (
    Composite,
    as_distribution,
    culprits,
    named,
    plain,
)
from skae.distributions import (
    DISTRIBUTIONS,
    Gamma,
    Huber,
    Poisson,
)

#: Three columns for every family: adjacent ones, and then in any order.
ORDER = np.random.default_rng(0).permutation(range(6, 3 * len(DISTRIBUTIONS)))
PLACES = np.concatenate([np.arange(6), ORDER]).reshape(-1, 3).tolist()
PARTS = list(zip(sorted(DISTRIBUTIONS), PLACES, strict=True))
D = sum(len(columns) for _, columns in PARTS)
NAMES = np.array(["a", "b", "c", "d"], dtype=object)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def family():
    return Composite(PARTS)


def apart(family):
    """Yield each part by itself: its member, columns and places in eta and shared."""
    outputs = shared = 0
    for name, columns in family.members:
        member, n = as_distribution(name), len(columns)
        ends = outputs + member.n_outputs(n), shared + member.n_shared(n)
        yield member, columns, slice(outputs, ends[0]), slice(shared, ends[1])
        outputs, shared = ends


def draws(family, rng, n_rows=7, n_samples=3):
    x = np.empty((n_rows, 1, D))
    for member, columns, _, _ in apart(family):
        x[..., columns] = support_sample(member, (n_rows, 1, len(columns)), rng)
    eta = rng.standard_normal((n_rows, n_samples, family.n_outputs(D)))
    return x, eta, rng.uniform(-0.7, 0.7, family.n_shared(D))


# --- one distribution of many -----------------------------------------------------


def test_composite_equals_its_parts(family, rng):
    x, eta, shared = draws(family, rng)
    shape = (*eta.shape[:-1], D)
    nll, deviation, inputs = np.full(shape, np.nan), np.full(shape, np.nan), np.copy(x)
    d_eta, d_shared = np.full_like(eta, np.nan), np.full((7, 3, len(shared)), np.nan)
    family.nll(x, eta, shared, nll)
    family.gradient(x, eta, shared, d_eta, d_shared)
    family.deviation(x, eta, deviation)
    family.inputs(x, inputs)
    mean, scale = family.mean(eta, shared), family.scale(np.full(D, 0.3))
    for member, columns, outputs, places in apart(family):
        own = x[..., columns], eta[..., outputs], shared[places]
        out, d_out = np.empty((7, 3, len(columns))), np.empty_like(own[1])
        d_places = np.empty((7, 3, len(own[2])))
        member.nll(*own, out)
        np.testing.assert_array_equal(nll[..., columns], out)
        member.gradient(*own, d_out, d_places)
        np.testing.assert_array_equal(d_eta[..., outputs], d_out)
        np.testing.assert_array_equal(d_shared[..., places], d_places)
        np.testing.assert_array_equal(mean[..., columns], member.mean(*own[1:]))
        clean = np.empty_like(own[0])
        member.inputs(own[0], clean)
        np.testing.assert_array_equal(inputs[..., columns], clean)
        if member.has_scale:
            member.deviation(*own[:2], out)
            expected = member.scale(np.full(len(columns), 0.3))
        else:
            out[...], expected = 0.0, 1.0
        np.testing.assert_array_equal(deviation[..., columns], out)
        np.testing.assert_array_equal(scale[columns], expected)


def test_gradient(family, rng):
    x, eta, shared = draws(family, rng)
    nll, d_eta = np.empty((7, 3, D)), np.empty_like(eta)
    d_shared = np.empty((7, 3, len(shared)))

    def total(eta, shared):
        family.nll(x, eta, shared, nll)
        return nll.sum()

    family.gradient(x, eta, shared, d_eta, d_shared)
    again = np.empty_like(eta)
    family.gradient(x, eta, shared, again)
    np.testing.assert_array_equal(again, d_eta)
    check_gradient(lambda eta: total(eta, shared), d_eta, eta)
    check_gradient(lambda s: total(eta, s), d_shared.sum(axis=(0, 1)), shared)


def test_start_and_limits_equal_those_of_the_parts(family, rng):
    mean, variance = rng.uniform(0.2, 0.8, D), rng.uniform(0.05, 0.1, D)
    eta, shared = family.start(mean, variance, 50)
    low, high = family.limits(variance)
    assert (len(eta), len(shared)) == (family.n_outputs(D), family.n_shared(D))
    for member, columns, outputs, places in apart(family):
        expected = member.start(mean[columns], variance[columns], 50)
        np.testing.assert_array_equal(eta[outputs], expected[0])
        np.testing.assert_array_equal(shared[places], expected[1])
        expected = member.limits(variance[columns])
        np.testing.assert_array_equal(low[places], expected[0])
        np.testing.assert_array_equal(high[places], expected[1])


def test_curvature_equals_that_of_the_parts(rng):
    likely = [(name, j) for name, j in PARTS if DISTRIBUTIONS[name].is_likelihood]
    family = Composite(likely)
    eta = rng.standard_normal((4, family.n_outputs(D)))
    shared = rng.uniform(-0.7, 0.7, family.n_shared(D))
    tangents = rng.standard_normal((4, 2, eta.shape[1]))
    information, white = family.information(eta, shared), tangents.copy()
    family.whiten(eta, shared, white)
    for member, _, outputs, places in apart(family):
        own = eta[:, outputs], shared[places]
        expected = tangents[..., outputs].copy()
        member.whiten(*own, expected)
        np.testing.assert_array_equal(white[..., outputs], expected)
        np.testing.assert_array_equal(
            information[:, outputs],
            np.broadcast_to(member.information(*own), own[0].shape),
        )


def test_samples_are_inside_the_support(family, rng):
    _, eta, shared = draws(family, rng)
    drawn = family.sample(eta, shared, rng)
    assert drawn.shape == (7, 3, D)
    for member, columns in family.parts(D):
        assert not member.support.outside(drawn[..., columns]).any()


def test_single_precision_stays(family, rng):
    _, eta, shared = (a.astype(np.float32) for a in draws(family, rng))
    assert family.mean(eta, shared).dtype == np.float32
    assert family.sample(eta, shared, rng).dtype == np.float32


def test_permuted_columns_permute_the_losses(rng):
    x, eta = rng.gamma(2.0, size=(5, 4)), rng.standard_normal((5, 4))
    out, swapped = np.empty_like(x), np.empty_like(x)
    Composite([("gamma", [0, 2]), ("poisson", [1, 3])]).nll(x, eta, np.zeros(2), out)
    order = [3, 2, 1, 0]
    other = Composite([("gamma", [3, 1]), ("poisson", [2, 0])])
    other.nll(x[:, order], eta, np.zeros(2), swapped)
    np.testing.assert_array_equal(swapped, out[:, order])


@pytest.mark.parametrize("question", ["centred", "scaled"])
def test_masks(family, question):
    mask = getattr(family, question)(D)
    for member, columns in family.parts(D):
        np.testing.assert_array_equal(mask[columns], getattr(member, question)(3))


def test_parts_are_slices_where_columns_are_adjacent():
    family = Composite([("gamma", [2, 3]), ("poisson", [0, 1]), ("beta", [5, 4])])
    columns = [columns for _, columns in family.parts(6)]
    assert columns[:2] == [slice(2, 4), slice(0, 2)]
    np.testing.assert_array_equal(columns[2], [5, 4])


def test_sizes_are_those_of_the_members_whatever_is_asked():
    members = [("zero_inflated_negative_binomial", [0]), ("gaussian", [1, 2])]
    family = Composite(members)
    assert [family.n_outputs(n) for n in (0, 3, 9)] == [4, 4, 4]
    assert [family.n_shared(n) for n in (0, 3, 9)] == [3, 3, 3]
    assert family.centred(9).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("names", "is_likelihood", "changes_inputs"),
    [
        (("gaussian", "beta"), True, False),
        (("gaussian", "poisson"), True, True),
        (("huber", "poisson"), False, True),
    ],
)
def test_what_the_parts_make_of_the_whole(names, is_likelihood, changes_inputs):
    family = Composite([(name, [j]) for j, name in enumerate(names)])
    assert family.is_likelihood is is_likelihood
    assert family.changes_inputs is changes_inputs


def test_composite_is_a_component(family):
    family.n_outputs(D)
    for other in (clone(family), copy.deepcopy(family), clone(family, safe=False)):
        assert other.get_params() == family.get_params()
    with_instance = Composite([(Huber(2.0), [1, 0])])
    other = pickle.loads(pickle.dumps(with_instance))
    assert (
        repr(other)
        == repr(with_instance)
        == "Composite(members=[(Huber(delta=2.0), [1, 0])])"
    )
    assert other.n_outputs(2) == 2
    assert clone(with_instance).members[0][0] is not with_instance.members[0][0]


def test_new_members_are_noticed(family):
    family.n_outputs(D)
    assert family.set_params(members=[("gaussian", [0])]).n_outputs(1) == 1


# --- plain descriptions -----------------------------------------------------------


def test_as_distribution():
    assert isinstance(as_distribution("poisson"), Poisson)
    gamma = Gamma()
    assert as_distribution(gamma) is gamma
    family = as_distribution([("poisson", [1]), (gamma, [0])])
    assert [type(member) for member, _ in family.parts(2)] == [Poisson, Gamma]


@pytest.mark.parametrize(
    "value", [Huber(-1.0), [(Huber(-1.0), [0])], Composite([(Huber(-1.0), [0])])]
)
def test_as_distribution_validates_instances(value):
    with pytest.raises(ValueError, match="'delta' parameter of Huber"):
        as_distribution(value)


def test_as_distribution_knows_the_names():
    with pytest.raises(
        ValueError, match=r"'auto' is not known. .*'absolute_error', 'b"
    ):
        as_distribution("auto")


def test_names_and_instances_stay():
    data = np.ones((2, 2))
    assert plain("gamma", data, data, None) == "gamma"
    huber = Huber(3.0)
    kept = plain(huber, data, data, None)
    assert kept is not huber
    assert repr(kept) == repr(huber)


def frame(kind):
    columns = {
        "a": [1.0, 2.0, 3.0],
        "b": [0, 1, 5],
        "c": [0.5, 1.5, 2.5],
        "d": [3, 0, 0],
    }
    return kind(columns)


def of_type(kind):
    """Select columns in the words of each library."""

    def select(X):
        if isinstance(X, pd.DataFrame):
            return make_column_selector(dtype_include=kind)(X)
        types = {float: pl.Float64, int: pl.Int64}
        return [name for name, dtype in X.schema.items() if dtype == types[kind]]

    return select


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame])
@pytest.mark.parametrize(
    ("gamma", "poisson"),
    [
        (["a", "c"], ["b", "d"]),
        (of_type(float), of_type(int)),
        ([0, -2], [1, -1]),
        ([True, False, True, False], np.array([False, True, False, True])),
        (np.array(["a", "c"]), slice(1, None, 2)),
        (slice(None, None, 2), pd.Index(["b", "d"])),
        (lambda X: [0, 2], lambda X: slice(1, 4, 2)),
    ],
)
def test_selections(kind, gamma, poisson):
    X = frame(kind)
    found = plain([("gamma", gamma), ("poisson", poisson)], X, X.to_numpy(), NAMES)
    assert found == [("gamma", [0, 2]), ("poisson", [1, 3])]
    assert all(type(j) is int for _, columns in found for j in columns)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (slice("a", "b"), slice("c", "d")),
        (slice(None, "b"), slice("c", None)),
        (slice(0, 2), slice(2, None)),
        (slice(-2), slice(-2, None)),
        (["b", "a"], (3, 2)),
    ],
)
def test_slices_and_order(left, right):
    X = frame(pd.DataFrame)
    spec = [["gamma", left], ("poisson", right)]
    found = plain(spec, X, X.to_numpy(), NAMES)
    expected = ([1, 0], [3, 2]) if left == ["b", "a"] else ([0, 1], [2, 3])
    assert found == [("gamma", expected[0]), ("poisson", expected[1])]


def test_everything_and_nothing():
    data = np.ones((2, 3))
    spec = [("gamma", []), (Huber(2.0), slice(None)), ("beta", lambda X: [])]
    found = plain(spec, data, data, None)
    assert [(repr(member), columns) for member, columns in found] == [
        ("Huber(delta=2.0)", [0, 1, 2])
    ]
    assert found[0][0] is not spec[1][0]
    assert plain([("gamma", 0), ("beta", [1, 2])], [[1, 1, 1]], data, None)


@pytest.mark.parametrize("kind", [sparse.csr_array, np.asarray])
def test_selections_without_names(kind):
    data = kind(np.ones((2, 3)))
    found = plain(
        [("gamma", [-1, 0]), ("beta", lambda X: X.shape[1] - 2)], data, data, None
    )
    assert found == [("gamma", [2, 0]), ("beta", [1])]


def test_names_are_remembered_where_an_array_follows_a_data_frame():
    data = np.ones((2, 4))
    found = plain([("gamma", slice("a", "c")), ("beta", "d")], data, data, NAMES)
    assert found == [("gamma", [0, 1, 2]), ("beta", [3])]


def test_composite_as_a_parameter_is_a_list():
    data = np.ones((2, 2))
    assert plain(Composite([("gamma", [1, 0])]), data, data, None) == [
        ("gamma", [1, 0])
    ]
    with pytest.raises(ValueError, match="Column 2 is in no part"):
        plain(Composite([("gamma", [1, 0])]), np.ones((2, 3)), np.ones((2, 3)), None)


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ([], r"distribution=\[\] has no part"),
        (["gamma"], r"Part 0 of distribution is 'gamma'; it must be a pair"),
        ([("gamma",)], r"Part 0 .* must be a pair \(distribution, columns\)"),
        (
            [("gamme", [0])],
            r"Part 0 .*'gamme' is not known. .* one of 'absolute_error'",
        ),
        ([("auto", [0])], r"distribution='auto' is not known"),
        ([(Gamma, [0])], r"is not known. It must be a Distribution or one of"),
        ([([("gamma", [0])], [0])], "lists cannot be nested"),
        ([(Composite([("gamma", [0])]), [0])], "lists cannot be nested"),
        ([("gamma", [0, 1]), ("beta", [2])], "Column 'd' is in no part"),
        ([("gamma", [0])], "Columns 'b', 'c', 'd' are in no part of distribution"),
        (
            [("gamma", [0, 1]), (Huber(2.0), [1, 2, 3])],
            r"Column 1 \('b'\) is given twice in distribution, in part 0 \('gamma'\) "
            r"and in part 1 \(Huber\(delta=2.0\)\)",
        ),
        ([("gamma", [0, 0])], r"Column 0 \('a'\) is given twice"),
        ([("gamma", "e")], "Part 0 .*'e' is the name of 0 columns. Names are 'a', 'b'"),
        ([("gamma", slice("a", "z"))], "'z' is the name of 0 columns"),
        ([("gamma", slice("a", "c", 2))], "cannot have a step"),
        ([("gamma", 4)], r"Part 0 .* columns 4 .*\[0, 3\]"),
        ([("gamma", [-5])], r"\[-5\] are not to be found"),
        ([("gamma", [True, False])], r"\[True, False\] are not to be found"),
        ([("gamma", None)], "give names, positions, a slice or a mask"),
        ([("gamma", True)], "give names, positions, a slice or a mask"),
        ([("gamma", 1.0)], "columns 1.0 are not to be found"),
        ([("gamma", [[0], [1]])], "are not to be found"),
        ([("gamma", ["a", 1])], "are not to be found"),
    ],
)
def test_errors(spec, match):
    X = frame(pd.DataFrame)
    with pytest.raises(ValueError, match=match):
        plain(spec, X, X.to_numpy(), NAMES)


def test_names_need_names():
    data = np.ones((2, 2))
    with pytest.raises(ValueError, match=r"X has no column names\. Give positions"):
        plain([("gamma", ["a"])], data, data, None)


def test_many_missing_columns_are_counted():
    data = np.ones((2, 28))
    expected = "Columns 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ... and 17 more are in no part"
    with pytest.raises(ValueError, match=expected):
        plain([("gamma", 0)], data, data, None)


def test_named():
    huber = Huber(2.0)
    description = [("gamma", [1, 0]), (huber, [2])]
    assert named("gamma", NAMES) == "gamma"
    assert named(huber, NAMES) is not huber
    by_name = named(description, NAMES)
    assert repr(by_name) == "[('gamma', ['b', 'a']), (Huber(delta=2.0), ['c'])]"
    assert named(description, None)[0] == ("gamma", [1, 0])
    assert named(description, np.array(["a", "a", "b"]))[0] == ("gamma", [1, 0])
    X = frame(pd.DataFrame).iloc[:, :3]
    assert repr(plain(by_name, X, X.to_numpy(), NAMES[:3])) == repr(description)


@pytest.mark.parametrize(
    ("spec", "names", "expected"),
    [
        ("gaussian", None, None),
        ("auto", None, None),
        (Gamma(), None, None),
        ("huber", None, "'huber'"),
        (Huber(2.0), NAMES, "Huber(delta=2.0)"),
        ([("gaussian", [0])], None, None),
        ([("huber", [0, 1]), ("gamma", [2])], NAMES, "'huber' (columns 'a', 'b')"),
        ([("huber", [0, 1])], None, "'huber' (columns 0, 1)"),
        ([("huber", ["a"])], None, "'huber' (column 'a')"),
        ([("huber", "a")], None, "'huber' (column 'a')"),
        ([("huber", slice(2))], None, "'huber' (columns slice(None, 2, None))"),
        ([("huber", [-1])], None, "'huber' (columns [-1])"),
        ([("huber", [True])], None, "'huber' (columns [True])"),
        (
            [("huber", [0]), ("log_cosh", list(range(1, 14)))],
            None,
            "'huber' (column 0) and 'log_cosh' (columns 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, "
            "... and 3 more)",
        ),
        (Composite([("huber", [0])]), None, "'huber' (column 0)"),
        ("nonsense", None, None),
        (["nonsense", ("huber",), 3], None, None),
    ],
)
def test_culprits(spec, names, expected):
    assert culprits(spec, names) == expected
