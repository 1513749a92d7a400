import numpy as np
import pytest
from scipy import linalg
from sklearn.datasets import load_digits, load_iris

from skae import SparseAutoencoder, StackedAutoencoder
from skae.activations import ACTIVATIONS
from skae.corruptions import CORRUPTIONS, Masking
from skae.penalties import PENALTIES, JumpReLU, KLDivergence, TopK
from skae.training import Trainer

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
NO_PRETRAINING = {"pretraining_max_iter": 0, "max_iter": 2}


@pytest.fixture(scope="module")
def X():
    return load_iris().data


@pytest.fixture(scope="module")
def digits():
    return load_digits().data[:200]


def make(n_components=2, **settings):
    given = {"hidden_layer_sizes": (6, 5), "max_iter": 3, "random_state": 0}
    given |= {"pretraining_max_iter": 3}
    return StackedAutoencoder(n_components, **(given | settings))


def layers(stack):
    return [*stack.coefs_, *stack.intercepts_]


def same(first, second):
    for ours, theirs in zip(layers(first), layers(second), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def of_level(stack, k):
    """Return weights and biases of a level, the way in and the way back."""
    pairs = list(zip(stack.coefs_, stack.intercepts_, strict=True))
    return pairs[k], pairs[-1 - k]


def pairs(first, second, k):
    """Return each array of a level of one stack beside that of another."""
    ours, theirs = (of_level(stack, k) for stack in (first, second))
    return zip([*ours[0], *ours[1]], [*theirs[0], *theirs[1]], strict=True)


def take_weights(stack, other):
    """Let a stack have the weights and biases of another."""
    for ours, theirs in zip(layers(stack), layers(other), strict=True):
        ours[...] = theirs


def standardized(X):
    return (X - X.mean(axis=0)) / X.std(axis=0)


# --- one level after the other --------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("activation", ["logistic", "relu", "tanh"])
def test_a_level_leaves_those_below_and_above_alone(activation, tied, X):
    stages = [[3, 0, 0], [3, 3, 0], [3, 3, 3]]
    settings = {"activation": activation, "tied_weights": tied, "fine_tune": False}
    found = [make(pretraining_max_iter=each, **settings).fit(X) for each in stages]
    for k in range(3):
        for later in found[k + 1 :]:
            for ours, theirs in pairs(later, found[k], k):
                np.testing.assert_array_equal(ours, theirs)
        for earlier in found[:k]:
            for ours, theirs in pairs(earlier, found[k], k):
                assert (ours != theirs).any()
    curves = [stack.loss_curve_ for stack in found]
    assert curves[0]["level 1"] == curves[1]["level 1"] == curves[2]["level 1"]
    assert curves[1]["level 2"] == curves[2]["level 2"]


@pytest.mark.parametrize("activation", ["logistic", "relu", "tanh"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("corruption_level", [0.0, [0.4, 0.0, 0.0]])
def test_a_level_learns_the_clean_code_below(corruption_level, tied, activation, X):
    settings = {"activation": activation, "tied_weights": tied, "fine_tune": False}
    settings |= {"corruption_level": corruption_level, "batch_size": 1000}
    settings["alpha"] = 0.02
    before = make(pretraining_max_iter=[4, 0, 0], **settings).fit(X)
    after = make(pretraining_max_iter=[4, 1, 0], **settings).fit(X)
    f = {"logistic": lambda a: 1 / (1 + np.exp(-a)), "tanh": np.tanh}.get(
        activation, lambda a: np.maximum(a, 0)
    )
    (w, b), _ = of_level(before, 0)
    h = f(standardized(X) @ w + b)
    (w, b), (v, c) = of_level(before, 1)
    y = f(f(h @ w + b) @ v + c)
    loss = np.square(h - y).sum(axis=1)
    if activation == "logistic":
        loss = -(h * np.log(y) + (1 - h) * np.log(1 - y)).sum(axis=1)
    penalty = 0.01 * (np.sum(w**2) + (0 if tied else np.sum(v**2)))
    assert after.loss_curve_["level 2"] == pytest.approx([loss.mean() + penalty])


def test_linear_levels_find_principal_components(digits):
    X = digits[:, 10:30]
    settings = {"activation": "identity", "solver": "lbfgs", "corruption_level": 0}
    settings |= {"alpha": 0.0, "tol": 1e-8, "standardize": False, "fine_tune": False}
    stack = StackedAutoencoder(
        2, hidden_layer_sizes=6, pretraining_max_iter=3000, random_state=0, **settings
    ).fit(X)
    variances = linalg.eigvalsh(np.cov(X.T, bias=True))
    first = 0.5 * variances[:-6].sum() + 10 * np.log(2 * np.pi)
    assert stack.loss_curve_["level 1"][-1] == pytest.approx(first, rel=1e-4)
    (w, b), _ = of_level(stack, 0)
    second = linalg.eigvalsh(np.cov((X @ w + b).T, bias=True))[:-2].sum()
    assert stack.loss_curve_["level 2"][-1] == pytest.approx(second, rel=1e-3)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("activation", ["elu", "logistic", "relu", "tanh"])
def test_the_loss_of_every_level_falls(activation, tied, digits):
    stack = make(
        4,
        hidden_layer_sizes=(30, 10),
        activation=activation,
        tied_weights=tied,
        pretraining_max_iter=20,
        fine_tune=False,
    ).fit(digits)
    for losses in stack.loss_curve_.values():
        assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_levels_are_damaged_each_by_its_own_amount(X, monkeypatch):
    draws = []

    def corrupt(self, x, words, level, bounds):
        draws.append((x.shape[1], level))

    monkeypatch.setattr(Masking, "corrupt", corrupt)
    make(corruption_level=[0.1, 0.2, 0.0], batch_size=1000).fit(X)
    assert draws == 3 * [(4, 0.1)] + 3 * [(6, 0.2)] + 3 * [(4, 0.1)]


def test_noise_of_salt_and_pepper_is_within_each_level_s_codes(X, monkeypatch):
    seen = []
    damage = CORRUPTIONS["salt_and_pepper"].corrupt

    def corrupt(self, x, draws, level, bounds):
        seen.append((x.copy(), bounds))
        damage(self, x, draws, level, bounds)

    monkeypatch.setattr(CORRUPTIONS["salt_and_pepper"], "corrupt", corrupt)
    settings = {"corruption": "salt_and_pepper", "batch_size": 1000}
    make(pretraining_max_iter=1, fine_tune=False, **settings).fit(X)
    assert [x.shape[1] for x, _ in seen] == [4, 6, 5]
    for x, (low, high) in seen:
        np.testing.assert_allclose(x.min(axis=0), low, rtol=1e-12)
        np.testing.assert_allclose(x.max(axis=0), high, rtol=1e-12)


# --- one value for each level ---------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("corruption_level", 0.3),
        ("pretraining_max_iter", 2),
        ("pretraining_learning_rate_init", 0.02),
    ],
)
@pytest.mark.parametrize("container", [list, tuple, np.array])
def test_one_value_stands_for_all_levels(container, name, value, X):
    each = container([value, value, value])
    same(make(**{name: value}).fit(X), make(**{name: each}).fit(X))


def test_each_level_has_its_own_rate(X, monkeypatch):
    rates, epoch = [], Trainer.epoch

    def recorded(self, optimizer, course, rate, watch):
        rates.append(rate)
        return epoch(self, optimizer, course, rate, watch)

    monkeypatch.setattr(Trainer, "epoch", recorded)
    settings = {"learning_rate": "constant", "learning_rate_init": 0.5}
    settings["pretraining_learning_rate_init"] = [0.1, 0.2, 0.3]
    make(pretraining_max_iter=[2, 0, 1], max_iter=2, **settings).fit(X)
    assert rates == [0.1, 0.1, 0.3, 0.5, 0.5]


def test_each_stage_has_its_own_cosine(X, monkeypatch):
    rates, epoch = [], Trainer.epoch

    def recorded(self, optimizer, course, rate, watch):
        rates.append(rate)
        return epoch(self, optimizer, course, rate, watch)

    monkeypatch.setattr(Trainer, "epoch", recorded)
    settings = {"learning_rate": "cosine", "pretraining_learning_rate_init": 1e-2}
    settings |= {"n_iter_no_change": 1, "tol": 1e9}  # the last epochs are the point
    settings["learning_rate_init"] = 5e-3
    make(pretraining_max_iter=[4, 0, 2], max_iter=3, **settings).fit(X)
    cosine = [[np.cos(np.pi * i / n) for i in range(n)] for n in (4, 2, 3)]
    first, third, tuned = ((1 + np.array(part)) / 2 for part in cosine)
    expected = [*(0.01 * first), *(0.01 * third), *(0.005 * tuned)]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


@pytest.mark.parametrize("learning_rate", ["adaptive", "constant"])
def test_every_level_may_stop_by_itself(learning_rate, X):
    settings = {"n_iter_no_change": 2, "tol": 1e9, "learning_rate": learning_rate}
    n_epochs = {"adaptive": 13, "constant": 3}[learning_rate]  # after five drops
    stack = make(pretraining_max_iter=50, max_iter=50, **settings).fit(X)
    lengths = {stage: len(losses) for stage, losses in stack.loss_curve_.items()}
    stages = ["level 1", "level 2", "level 3", "fine-tuning"]
    assert lengths == dict.fromkeys(stages, n_epochs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"corruption_level": [0.1, 0.2]},
            r"corruption_level=\[0.1, 0.2\] has 2 values, but there are 3 levels: one "
            r"for each of hidden_layer_sizes=\(6, 5\), and the code's.",
        ),
        ({"pretraining_max_iter": [1] * 4}, "pretraining_max_iter=.* has 4 values"),
        ({"pretraining_max_iter": []}, r"pretraining_max_iter=\[\] has 0 values"),
        (
            {"pretraining_learning_rate_init": [0.1], "hidden_layer_sizes": 4},
            "pretraining_learning_rate_init=.* has 1 values, but there are 2 levels",
        ),
        ({"pretraining_max_iter": -1}, "'pretraining_max_iter' parameter"),
        ({"pretraining_max_iter": 1.5}, "'pretraining_max_iter' parameter"),
        ({"pretraining_max_iter": "auto"}, "'pretraining_max_iter' parameter"),
        ({"pretraining_max_iter": None}, "'pretraining_max_iter' parameter"),
        (
            {"pretraining_max_iter": [1, -2, 1]},
            r"pretraining_max_iter=\[1, -2, 1\] must hold an int in the range .*, got "
            "-2.",
        ),
        ({"pretraining_max_iter": [1, 2.0, 1]}, "pretraining_max_iter=.*, got 2.0"),
        ({"pretraining_max_iter": [1, None, 1]}, "pretraining_max_iter=.*, got None"),
        ({"pretraining_max_iter": ["1", "2", "3"]}, "pretraining_max_iter=.*, got '1'"),
        ({"pretraining_max_iter": [[1], [2], [3]]}, "pretraining_max_iter=.* got "),
        ({"pretraining_max_iter": [True, 1, 1]}, "pretraining_max_iter=.*, got True"),
        (
            {"corruption_level": {0: 0.1, 1: 0.1, 2: 0.1}},
            r"corruption_level=\{0: 0.1, 1: 0.1, 2: 0.1\} must hold a float",
        ),
        ({"corruption_level": {0.1}}, r"corruption_level=\{0.1\} must hold a float"),
        (
            {"corruption_level": {0.1, 0.2, 0.3}},
            r"corruption_level=\{0.*\} must hold a float",
        ),
        (
            {"pretraining_learning_rate_init": 0},
            "'pretraining_learning_rate_init' parameter",
        ),
        (
            {"pretraining_learning_rate_init": [0.1, 0.1, 0]},
            "pretraining_learning_rate_init=.* must hold a float .*, got 0.",
        ),
        (
            {"pretraining_learning_rate_init": [0.1, np.nan, 0.1]},
            "pretraining_learning_rate_init=.*, got nan",
        ),
        ({"corruption_level": [0.1, -0.2, 0.1]}, "corruption_level=.*, got -0.2"),
        ({"corruption_level": [0.1, np.nan, 0.1]}, "corruption_level=.*, got nan"),
        (
            {"corruption_level": [0.1, 0.1, 1.5]},
            r"corruption_level=1.5 is outside \[0, 1\], the levels of "
            "corruption='masking'",
        ),
        ({"corruption_level": 1.5}, "corruption_level=1.5 is outside"),
        ({"corruption_level": "auto"}, "'corruption_level' parameter"),
        (
            {"fine_tune": False, "pretraining_max_iter": 0},
            "fine_tune=False and pretraining_max_iter=0 leave nothing to train",
        ),
        (
            {"fine_tune": False, "pretraining_max_iter": [0, 0, 0]},
            r"fine_tune=False and pretraining_max_iter=\[0, 0, 0\] leave nothing",
        ),
        (
            {"solver": "lbfgs", "corruption_level": [0, 0.1, 0]},
            "corruption_level=0, or choose another solver",
        ),
        ({"penalty": "l2"}, "'penalty' parameter"),
        (
            {"penalty": TopK(7)},
            r"penalty=TopK\(k=7\) lets more units fire .*: k must be at most 6",
        ),
        ({"penalty": KLDivergence(1.5), "activation": "logistic"}, "sparsity_target"),
        ({"sparsity_target": 1.0}, "sparsity_target"),
        ({"sparsity_weight": -1.0}, "sparsity_weight"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_left(settings, message, X):
    stack = make(**settings)
    with pytest.raises(ValueError, match=message):
        stack.fit(X)
    assert not hasattr(stack, "loss_curve_")
    assert not hasattr(stack, "n_features_in_")


@pytest.mark.parametrize("name", ["corruption_level", "pretraining_learning_rate_init"])
def test_settings_of_levels_that_do_not_learn_are_checked_too(name, X):
    with pytest.raises(ValueError, match=name):
        make(**{name: [0.1, -1.0, 0.1]}, **NO_PRETRAINING).fit(X)


@pytest.mark.parametrize(("levels", "merged"), [(0, True), ([0, 0, 0.3], False)])
def test_equal_rows_are_one_row_if_no_level_is_random(levels, merged, X):
    twice = np.repeat(X, 2, axis=0)
    stack = make(corruption_level=levels, batch_size=1000).fit(twice)
    n_rows = len(np.unique(X, axis=0)) if merged else len(twice)
    assert stack.t_ == 12 * n_rows


def test_lbfgs_takes_noise_that_no_level_sees(X):
    settings = {"solver": "lbfgs", "corruption_level": [0, 0.1, 0]}
    stack = make(pretraining_max_iter=[2, 0, 2], **settings).fit(X)
    assert list(stack.loss_curve_) == ["level 1", "level 3", "fine-tuning"]


def test_lbfgs_refuses_noise_before_it_trains_any_level(X, capsys):
    settings = {"solver": "lbfgs", "corruption_level": [0, 0.1, 0], "verbose": True}
    with pytest.raises(ValueError, match="set corruption_level=0, or choose another"):
        make(**settings).fit(X)
    assert capsys.readouterr().out == ""


# --- the first level's penalty --------------------------------------------------------

#: An activation that each penalty is made for, and one that it cannot have.
SPARSE = {
    "batchtopk": ("softplus", "tanh"),
    "gated": ("relu", "logistic"),
    "hoyer": ("tanh", None),
    "jumprelu": ("relu", "tanh"),
    "kl": ("logistic", "relu"),
    "l1": ("elu", None),
    "topk": ("tanh", None),
}


def test_every_penalty_is_tested():
    assert SPARSE.keys() == PENALTIES.keys()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("penalty", SPARSE)
def test_a_penalty_shapes_the_first_level_alone(penalty, tied, X):
    settings = {"activation": SPARSE[penalty][0], "tied_weights": tied}
    settings |= {"fine_tune": False, "batch_size": 50}
    plain = make(pretraining_max_iter=[5, 0, 3], **settings).fit(X)
    shaped = make(pretraining_max_iter=[5, 0, 3], penalty=penalty, **settings).fit(X)
    for k, changes in enumerate([True, False, True]):
        (ours, _), (theirs, _) = of_level(shaped, k)[0], of_level(plain, k)[0]
        assert (ours != theirs).any() == changes
    assert np.isfinite(shaped.score(X))
    assert shaped.transform(X).shape == plain.transform(X).shape


@pytest.mark.parametrize("penalty", [name for name in SPARSE if SPARSE[name][1]])
@pytest.mark.parametrize("n_epochs", [0, 3])
def test_a_penalty_says_which_activation_it_needs(n_epochs, penalty, X):
    good, bad = SPARSE[penalty]
    message = f"penalty='{penalty}' needs .*'{good}'.*, got '{bad}'"
    stack = make(penalty=penalty, activation=bad, pretraining_max_iter=n_epochs)
    with pytest.raises(ValueError, match=message):
        stack.fit(X)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_penalties_take_the_activations_that_they_say(activation, X):
    for penalty, (good, _) in SPARSE.items():
        stack = make(penalty=penalty, activation=activation, pretraining_max_iter=1)
        fits = activation == good or activation in PENALTIES[penalty].activations
        if fits:
            stack.fit(X)
        else:
            with pytest.raises(ValueError, match="first layer's activation"):
                stack.fit(X)


@pytest.mark.parametrize("penalty", ["gated", "jumprelu"])
def test_gates_and_thresholds_stand_for_the_rectifier(penalty, X, monkeypatch):
    seen, epoch = [], Trainer.epoch

    def recorded(self, optimizer, course, rate, watch):
        seen.append([layer.activation for layer in self.objective.encoder.layers])
        return epoch(self, optimizer, course, rate, watch)

    monkeypatch.setattr(Trainer, "epoch", recorded)
    settings = {"activation": "relu", "hidden_layer_sizes": 5, "max_iter": 1}
    make(penalty=penalty, pretraining_max_iter=1, **settings).fit(X)
    assert seen == [["identity"], ["identity"], ["relu", "identity"]]
    seen.clear()
    make(penalty="topk", pretraining_max_iter=1, **settings).fit(X)
    assert seen == [["relu"], ["identity"], ["relu", "identity"]]


def test_of_a_single_level_the_code_s_activation_counts(X):
    settings = {"hidden_layer_sizes": (), "penalty": "kl", "activation": "logistic"}
    with pytest.raises(ValueError, match=r"needs 'logistic' .* got 'identity'"):
        make(**settings).fit(X)
    make(code_activation="logistic", **settings).fit(X)


def test_kl_brings_the_first_level_s_mean_activations_to_their_target(digits):
    settings = {"penalty": "kl", "activation": "logistic", "fine_tune": False}
    settings |= {"pretraining_learning_rate_init": 0.03, "batch_size": 200}
    stack = StackedAutoencoder(
        2,
        hidden_layer_sizes=15,
        sparsity_target=0.2,
        sparsity_weight=100.0,
        pretraining_max_iter=[200, 0],
        standardize=False,
        random_state=0,
        **settings,
    ).fit(digits)
    (w, b), _ = of_level(stack, 0)
    activity = 1 / (1 + np.exp(-(digits @ w + b)))
    np.testing.assert_allclose(activity.mean(axis=0), 0.2, rtol=0.3)


@pytest.mark.parametrize("weight", [0.0, 5.0])
def test_the_penalty_counts_by_its_weight(weight, X):
    settings = {"fine_tune": False, "alpha": 0.0, "corruption_level": 0}
    settings |= {"pretraining_max_iter": [1, 0, 0], "batch_size": 1000}
    plain = make(**settings).fit(X)
    shaped = make(penalty="l1", sparsity_weight=weight, **settings).fit(X)
    settings |= {"pretraining_max_iter": 0, "fine_tune": True, "max_iter": 1}
    start = make(learning_rate_init=1e-300, **settings).fit(X)
    (w, b), _ = of_level(start, 0)
    cost = np.abs(np.tanh(standardized(X) @ w + b)).sum(axis=1).mean()
    (loss,), (without,) = shaped.loss_curve_["level 1"], plain.loss_curve_["level 1"]
    assert loss == pytest.approx(without + weight * cost)


def test_the_fraction_of_units_that_fire(X):
    settings = {"hidden_layer_sizes": 10, "fine_tune": False, "batch_size": 1000}
    fraction = make(penalty="topk", sparsity_target=0.3, **settings).fit(X)
    same(fraction, make(penalty=TopK(3), **settings).fit(X))


def test_as_many_units_may_fire_as_there_are(X):
    settings = {"activation": "tanh", "fine_tune": False}
    same(make(penalty=TopK(6), **settings).fit(X), make(**settings).fit(X))


@pytest.mark.parametrize("n_epochs", [0, 3])
@pytest.mark.parametrize("penalty", ["gated", "jumprelu"])
def test_lbfgs_refuses_penalties_without_a_gradient(penalty, n_epochs, X):
    settings = {"solver": "lbfgs", "corruption_level": 0, "activation": "relu"}
    stack = make(penalty=penalty, pretraining_max_iter=n_epochs, **settings)
    with pytest.raises(ValueError, match=f"which penalty='{penalty}' does not have"):
        stack.fit(X)


@pytest.mark.parametrize("penalty", [*PENALTIES, KLDivergence(memory=100.0)], ids=str)
def test_a_single_level_with_a_penalty_is_a_sparse_autoencoder(penalty, X):
    kind = PENALTIES[penalty] if isinstance(penalty, str) else penalty
    # Tied, so that both begin with the same weights.
    settings = {"penalty": penalty, "tied_weights": True, "batch_size": 50}
    settings |= {"random_state": 0, "code_activation": kind.code_activation}
    theirs = SparseAutoencoder(6, unit_norm=False, revival=None, max_iter=4, **settings)
    ours = StackedAutoencoder(
        6,
        hidden_layer_sizes=(),
        corruption_level=0,
        pretraining_max_iter=4,
        fine_tune=False,
        **settings,
    ).fit(X)
    assert ours.loss_curve_ == {"level 1": theirs.fit(X).loss_curve_}
    same(ours, theirs)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "topk"),
        ("topk", "jumprelu"),
        ("jumprelu", "topk"),
        ("jumprelu", JumpReLU(0.5)),
        ("gated", "gated"),
        ("l1", None),
    ],
    ids=str,
)
def test_a_warm_start_begins_with_new_numbers_of_the_penalty(before, after, X):
    settings = {"fine_tune": False, "warm_start": True, "activation": "relu"}
    settings |= {"distribution": "squared_error", "pretraining_max_iter": 3}
    stack = make(penalty=before, **settings).fit(X)
    other = make(penalty=after, **settings).fit(2 * X)
    take_weights(other.fit(X), stack)
    same(stack.set_params(penalty=after).fit(X), other.fit(X))
    assert stack.loss_curve_ == other.loss_curve_


def test_a_penalty_has_no_part_in_the_network_afterwards(X):
    stack = make(penalty="topk", activation="tanh").fit(X)
    h = standardized(X)
    for k in range(3):
        h = h @ stack.coefs_[k] + stack.intercepts_[k]
        h = np.tanh(h) if k < 2 else h
    np.testing.assert_allclose(stack.transform(X), h, atol=1e-12)


def test_a_penalty_without_pretraining_changes_nothing(X):
    same(make(penalty="l1", **NO_PRETRAINING).fit(X), make(**NO_PRETRAINING).fit(X))
