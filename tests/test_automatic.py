import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import datasets
from sklearn.preprocessing import OneHotEncoder

from skae.automatic import choose


@pytest.fixture
def rng():
    return np.random.default_rng(0)


#: Draws whose family is known.
DRAWS = {
    "gaussian": lambda rng, n: rng.normal(30.0, 3.0, n),
    "bernoulli": lambda rng, n: rng.random(n) < 0.3,
    "beta": lambda rng, n: rng.beta(2.0, 3.0, n),
    "exponential": lambda rng, n: rng.exponential(5.0, n),
    "gamma": lambda rng, n: rng.gamma(3.0, 1e-4, n),
    "log_normal": lambda rng, n: rng.lognormal(5.0, 1.0, n),
    "negative_binomial": lambda rng, n: rng.negative_binomial(2.0, 0.2, n),
    "poisson": lambda rng, n: rng.poisson(4.0, n),
    "student_t": lambda rng, n: 1e6 + rng.standard_t(4.0, n),
    "zero_inflated_negative_binomial": lambda rng, n: (
        rng.negative_binomial(5.0, 0.2, n) * (rng.random(n) < 0.6)
    ),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_recognised(name, seed):
    rng = np.random.default_rng(seed)
    X = np.column_stack([DRAWS[name](rng, 1500) for _ in range(5)]).astype(float)
    assert choose(X, None, None) == [(name, [0, 1, 2, 3, 4])]


def test_a_mixed_data_frame(rng):
    n = 1000
    columns = {name: draw(rng, n) for name, draw in DRAWS.items()}
    X = pd.DataFrame(columns).astype({"bernoulli": bool})
    colour = pd.Series(rng.choice(["red", "green", "dark_blue"], n))
    X = pd.concat([X, pd.get_dummies(colour, prefix="colour")], axis=1)
    found = choose(X.to_numpy(float), None, X.columns.to_numpy())
    chosen = {X.columns[j]: name for name, columns in found for j in columns}
    assert {name: chosen[name] for name in DRAWS} == {name: name for name in DRAWS}
    assert found[-1] == ("categorical", [10, 11, 12])


def test_families_come_in_the_order_of_their_columns(rng):
    X = np.column_stack([DRAWS["poisson"](rng, 500), DRAWS["gaussian"](rng, 500)] * 2)
    assert choose(X * 1.0, None, None) == [("poisson", [0, 2]), ("gaussian", [1, 3])]
    assert list(dict(choose(X[:, ::-1] * 1.0, None, None))) == ["gaussian", "poisson"]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([0, 1, 1, 0], "bernoulli"),
        ([0, 0, 0, 0], "gaussian"),
        ([1, 1, 1, 1], "gaussian"),
        ([7, 7, 7, 7], "gaussian"),
        ([0.5, 0.5, 0.5, 0.5], "gaussian"),
        ([1, 2, 2, 1], "gaussian"),
        ([0.1, 0.9, 0.1, 0.1], "gaussian"),
        ([-1, 0, 4, 2], "gaussian"),
        ([-1e300, 1e300, 0, 1e-300], "gaussian"),
        ([1e-300, 1e300, 3e200, 2.5], "gaussian"),
    ],
)
def test_special_columns(column, expected):
    X = np.repeat(np.array(column, float)[:, None], 30, axis=0)
    assert choose(X, None, None) == [(expected, [0])]


@pytest.mark.parametrize(
    ("shape", "expected"), [(25, "gamma"), (121, "gaussian"), (1e6, "gaussian")]
)
def test_narrow_columns_are_nearly_normal(rng, shape, expected):
    X = rng.gamma(shape, 3.0, (4000, 1))
    assert choose(X, None, None) == [(expected, [0])]


def test_narrow_columns_of_logarithms_are_not_log_normal(rng):
    X = np.exp(rng.normal(7.0, 0.09, (4000, 1)))
    assert choose(X, None, None)[0][0] in ("gaussian", "student_t")


def test_whole_numbers_may_be_normal(rng):
    years = rng.normal(2000, 10, 1000).round()
    signed = rng.normal(0, 10, 1000).round()
    found = choose(np.column_stack([years, signed]), None, None)
    assert found == [("gaussian", [0, 1])]


def test_one_value_in_most_rows_is_no_peak(rng):
    rare = np.where(rng.random(1000) < 0.95, 0.0, rng.exponential(size=1000))
    signed = rare * rng.choice([-1, 1], 1000)
    found = choose(np.column_stack([rare, signed]), None, None)
    assert found == [("gaussian", [0, 1])]


@pytest.mark.parametrize(
    ("zeros", "expected"), [(95, "exponential"), (105, "student_t")]
)
def test_how_many_zeros_may_be_exponential(rng, zeros, expected):
    x = rng.exponential(size=1000)
    x[:zeros] = 0.0
    assert choose(x[:, None], None, None) == [(expected, [0])]


@pytest.mark.parametrize(("equal", "expected"), [(490, "student_t"), (510, "gaussian")])
def test_how_many_equal_values_may_be_a_peak(rng, equal, expected):
    x = 5 * rng.standard_t(2, size=1000)
    x[:equal] = 0.0
    assert choose(x[:, None], None, None) == [(expected, [0])]


def test_some_zeros_may_be_exponential(rng):
    x = np.where(rng.random(1000) < 0.05, 0.0, rng.exponential(size=1000))
    assert choose(x[:, None], None, None) == [("exponential", [0])]


def test_every_row_counts_for_the_support(rng):
    X = rng.gamma(3.0, size=(20_000, 1))
    assert choose(X, None, None) == [("gamma", [0])]
    X[7] = 0.0
    assert dict(choose(X, None, None)).keys() <= {
        "gaussian",
        "exponential",
        "student_t",
    }
    counts = rng.poisson(3.0, (20_000, 1)) * 1.0
    assert choose(counts, None, None) == [("poisson", [0])]
    counts[7] = 0.5
    assert choose(counts, None, None)[0][0] in {"gaussian", "exponential", "student_t"}


def test_rows_of_weight_zero_are_absent(rng):
    X = rng.gamma(3.0, size=(500, 1))
    spoiled = np.insert(X, 3, -1e9, axis=0)
    weight = np.ones(501)
    weight[3] = 0.0
    assert choose(spoiled, weight, None) == choose(X, None, None) == [("gamma", [0])]


def test_weights_count(rng):
    x = np.append(rng.normal(30.0, 3.0, 1000), rng.lognormal(3.0, 1.5, 1000))[:, None]
    normal = np.repeat([1.0, 1e-9], 1000)
    assert choose(x, normal, None) == [("gaussian", [0])]
    assert choose(x, normal[::-1], None) == [("log_normal", [0])]
    assert choose(x, 1e6 * normal, None) == [("gaussian", [0])]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_storage_makes_no_difference(rng, dtype):
    X = np.column_stack(
        [DRAWS[name](rng, 400) for name in DRAWS if name != "student_t"]
    )
    X = np.hstack([X, np.eye(3)[rng.integers(3, size=400)]]).astype(dtype)
    found = choose(X, None, None)
    assert choose(sparse.csr_matrix(X), None, None) == found
    assert choose(X.astype(np.float64), None, None) == found


# --- groups of zeros and ones -----------------------------------------------------


def one_hot(rng, n_categories, n_rows=50):
    return np.eye(n_categories)[rng.integers(n_categories, size=n_rows)]


def test_groups_are_found_without_names(rng):
    flags = rng.integers(2, size=(50, 2)) * 1.0
    X = np.hstack([flags, one_hot(rng, 3), one_hot(rng, 2), flags])
    assert choose(X, None, None) == [
        ("bernoulli", [0, 1, 7, 8]),
        ("categorical", [2, 3, 4]),
        ("categorical", [5, 6]),
    ]


def test_groups_need_every_row(rng):
    X = one_hot(rng, 3)
    X[17] = 0
    assert choose(X, None, None) == [("bernoulli", [0, 1, 2])]
    X[17], X[20] = 0, [1, 1, 0]
    assert choose(X, None, None) == [("bernoulli", [0, 1, 2])]
    weight = np.ones(50)
    weight[[17, 20]] = 0
    assert choose(X, weight, None) == [("categorical", [0, 1, 2])]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["c_1", "c_2", "c_3"], [("categorical", [0, 1, 2])]),
        (["c_dark_red", "c_blue", "c_dark_green"], [("categorical", [0, 1, 2])]),
        (["c_1", "c_2", "d_3"], [("bernoulli", [0, 1, 2])]),
        (["c1", "c2", "c3"], [("bernoulli", [0, 1, 2])]),
    ],
)
def test_names_begin_alike(rng, names, expected):
    assert choose(one_hot(rng, 3), None, np.array(names)) == expected


def test_neighbours_with_one_beginning_are_told_apart(rng):
    X = np.hstack([one_hot(rng, 3), one_hot(rng, 2)])
    names = np.array(["f_a_1", "f_a_2", "f_a_3", "f_b_1", "f_b_2"])
    assert choose(X, None, names) == [
        ("categorical", [0, 1, 2]),
        ("categorical", [3, 4]),
    ]


def test_categories_that_never_occur(rng):
    zeros = np.zeros((50, 1))
    X = np.hstack([zeros, one_hot(rng, 2), zeros, zeros])
    names = np.array(["c_1", "c_2", "c_3", "c_4", "d_1"])
    assert choose(X, None, names) == [("categorical", [0, 1, 2, 3]), ("gaussian", [4])]
    expected = [("gaussian", [0, 3, 4]), ("categorical", [1, 2])]
    assert choose(X, None, None) == expected


def test_a_constant_one_is_no_group():
    X = np.repeat([[1.0, 0.0, 0.0]], 20, axis=0)
    assert choose(X, None, np.array(["c_1", "c_2", "c_3"])) == [("gaussian", [0, 1, 2])]


@pytest.mark.parametrize("sparse_output", [True, False])
def test_one_hot_encoder(rng, sparse_output):
    raw = rng.integers(4, size=(200, 3))
    encoder = OneHotEncoder(sparse_output=sparse_output)
    X = encoder.fit_transform(raw)
    groups = [("categorical", list(range(k, k + 4))) for k in (0, 4, 8)]
    assert choose(X, None, encoder.get_feature_names_out()) == groups


def test_many_flags_are_quick(rng):
    X = (rng.random((64, 5000)) < 0.2) * 1.0
    assert len(choose(X, None, None)[0][1]) > 4900


# --- the bundled data sets --------------------------------------------------------


def chosen_names(load):
    data = load()
    names = np.array(data.feature_names)
    return {
        family: [str(names[j]) for j in columns]
        for family, columns in choose(data.data, None, names)
    }


def test_wine():
    assert chosen_names(datasets.load_wine) == {
        "gaussian": [
            "alcohol",
            "ash",
            "alcalinity_of_ash",
            "total_phenols",
            "flavanoids",
            "proanthocyanins",
            "hue",
            "od280/od315_of_diluted_wines",
        ],
        "log_normal": ["malic_acid"],
        "negative_binomial": ["magnesium", "proline"],
        "gamma": ["nonflavanoid_phenols", "color_intensity"],
    }


def test_iris_and_diabetes():
    assert list(chosen_names(datasets.load_iris)) == ["gaussian"]
    assert list(chosen_names(datasets.load_diabetes)) == ["gaussian"]


def test_breast_cancer():
    found = chosen_names(datasets.load_breast_cancer)
    assert found.pop("gamma") == [
        "mean texture",
        "mean smoothness",
        "worst texture",
        "worst smoothness",
        "worst compactness",
    ]
    zeros = [
        "mean concavity",
        "mean concave points",
        "concavity error",
        "worst concavity",
    ]
    assert found.pop("exponential") == zeros
    assert found.pop("gaussian") == ["worst concave points"]
    assert found.pop("student_t") == ["concave points error"]
    assert {name: len(columns) for name, columns in found.items()} == {"log_normal": 19}


def test_digits():
    found = chosen_names(datasets.load_digits)
    assert {name: len(columns) for name, columns in found.items()} == {
        "bernoulli": 3,
        "gaussian": 6,
        "negative_binomial": 16,
        "poisson": 1,
        "student_t": 4,
        "zero_inflated_negative_binomial": 34,
    }
