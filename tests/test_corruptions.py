import numpy as np
import pytest

from skae.corruptions import CORRUPTIONS, below, random_words

N_ROWS, N_FEATURES = 400, 50
BOUNDS = np.full(N_FEATURES, -9.0), np.full(N_FEATURES, 9.0)

every = pytest.mark.parametrize("name", CORRUPTIONS)
replacing = pytest.mark.parametrize("name", ["masking", "salt_and_pepper", "swap"])


def corrupt(name, x, level, seed=0):
    damaged = x.copy()
    corruption = CORRUPTIONS[name]()
    draws = corruption.draw(x.shape, level, np.random.default_rng(seed))
    corruption.corrupt(damaged, draws, level, BOUNDS)
    return damaged


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(size=(N_ROWS, N_FEATURES))


@every
def test_level_zero_changes_nothing(name, x):
    np.testing.assert_array_equal(corrupt(name, x, 0.0), x)


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_seed_same_damage(name, x, dtype):
    first, second = (corrupt(name, x.astype(dtype), 0.3, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == dtype


@every
def test_other_seed_other_damage(name, x):
    same = np.array_equal(corrupt(name, x, 0.3, seed=1), corrupt(name, x, 0.3, seed=2))
    assert same == (name == "none")


@replacing
@pytest.mark.parametrize("level", [0.01, 0.3, 0.9])
def test_level_is_the_share_of_replaced_entries(name, x, level):
    share = np.mean(corrupt(name, x, level) != x)
    assert abs(share - level) < 4 * np.sqrt(level * (1 - level) / x.size)


@replacing
def test_entries_are_replaced_independently(name, x):
    hit = corrupt(name, x, 0.5) != x
    rows, columns = hit.mean(axis=1), hit.mean(axis=0)
    assert np.var(rows) == pytest.approx(0.25 / N_FEATURES, rel=0.5)
    assert np.var(columns) == pytest.approx(0.25 / N_ROWS, rel=0.5)


@replacing
def test_level_one_replaces_everything(name, x):
    assert np.all(corrupt(name, x, 1.0) != x)


def test_masking_sets_to_zero_and_does_not_rescale(x):
    damaged = corrupt("masking", x, 0.4)
    assert set(np.unique(damaged[damaged != x])) == {0.0}


def test_salt_and_pepper_are_the_bounds_in_equal_shares(x):
    damaged = corrupt("salt_and_pepper", x, 0.5)
    salt, pepper = np.mean(damaged == 9.0), np.mean(damaged == -9.0)
    assert salt + pepper == pytest.approx(np.mean(damaged != x))
    assert salt == pytest.approx(0.25, abs=0.02)
    assert pepper == pytest.approx(0.25, abs=0.02)


def test_gaussian_noise_has_the_asked_deviation(x):
    noise = corrupt("gaussian", x, 0.7) - x
    assert np.std(noise) == pytest.approx(0.7, rel=0.02)
    assert abs(np.mean(noise)) < 0.02


def test_swap_keeps_to_the_column(x):
    damaged = corrupt("swap", x, 0.5)
    for j in range(N_FEATURES):
        assert np.isin(damaged[:, j], x[:, j]).all()


def test_swap_leaves_a_single_row_alone(x):
    np.testing.assert_array_equal(corrupt("swap", x[:1], 1.0), x[:1])


@every
def test_levels_hold_zero(name):
    assert 0.0 in CORRUPTIONS[name].levels


@every
def test_what_is_not_random_changes_nothing(name, x):
    changes = not np.array_equal(corrupt(name, x, 1.0), x)
    assert CORRUPTIONS[name].is_random == changes


def test_words_are_uniform():
    words = random_words((1000, 101), np.random.default_rng(0))
    assert words.shape == (1000, 101)
    counts = np.bincount(words.ravel() >> 12, minlength=16)
    assert np.abs(counts / words.size - 1 / 16).max() < 0.003


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (4, 1), (5, 5)])
def test_words_of_any_shape(shape):
    words = random_words(shape, np.random.default_rng(0))
    assert words.shape == shape
    assert below(words, 1.0).all()
    assert not below(words, 0.0).any()


@pytest.mark.parametrize("probability", [0.0, 1e-5, 0.05, 0.3, 0.50001, 0.99999, 1.0])
def test_words_below_a_probability_are_counted_exactly(probability):
    words = np.arange(2**16, dtype=np.uint16)
    assert below(words, probability).sum() == round(2**16 * probability)


@pytest.mark.parametrize("kind", [np.random.SFC64, np.random.PCG64, np.random.MT19937])
def test_words_are_uniform_whatever_the_generator(kind):
    words = random_words((300, 1001), np.random.Generator(kind(0)))
    assert words.shape == (300, 1001)
    for shift in range(16):  # every bit, in every place of a longer word
        bits = (words.ravel()[: 300 * 1000].reshape(-1, 4) >> shift) & 1
        np.testing.assert_allclose(bits.mean(axis=0), 0.5, atol=0.01)


def test_draws_can_be_used_again():
    corruption, x = CORRUPTIONS["gaussian"](), np.zeros((5, 3))
    draws = corruption.draw(x.shape, 0.5, np.random.default_rng(0))
    first, second = x.copy(), x.copy()
    corruption.corrupt(first, draws, 0.5, BOUNDS)
    corruption.corrupt(second, draws, 0.5, BOUNDS)
    np.testing.assert_array_equal(first, second)
