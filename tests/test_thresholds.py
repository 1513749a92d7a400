import numpy as np
import pytest

from skae.thresholds import fence, p_values, quantile, threshold

ONE = np.ones(1)


def cases(n_cases=60, seed=0):
    """Yield scores with ties, and numbers of rows as weights, some of them zero."""
    rng = np.random.default_rng(seed)
    for _ in range(n_cases):
        n = int(rng.integers(1, 12))
        scores = rng.choice(rng.standard_normal(6), n)
        weight = rng.integers(0, 4, n).astype(float)
        weight[rng.integers(n)] = 1.0
        yield scores, weight, np.repeat(scores, weight.astype(int)), rng


def ones(scores):
    return np.ones(len(scores))


# --- weights are numbers of rows ------------------------------------------------------


def test_weights_count_like_rows():
    new = np.random.default_rng(1).standard_normal(9)
    for scores, weight, rows, rng in cases():
        asked = np.concatenate([new, scores])
        for share in (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, *rng.random(3)):
            expected = quantile(rows, ones(rows), share)
            assert quantile(scores, weight, share) == expected
            below = share * len(rows)
            expected = threshold(rows, ones(rows), below)
            assert threshold(scores, weight, below) == expected
        assert fence(scores, weight) == fence(rows, ones(rows))
        np.testing.assert_array_equal(
            p_values(asked, scores, weight), p_values(asked, rows, ones(rows))
        )


def test_the_order_of_scores_does_not_matter():
    for scores, weight, _, rng in cases():
        order = rng.permutation(len(scores))
        for function in (fence, lambda s, w: threshold(s, w, 2.0)):
            assert function(scores, weight) == function(scores[order], weight[order])


def test_quantiles_are_those_of_numpy():
    for scores, weight, rows, rng in cases():
        # Multiples of the steps too, where rounding could go to either side.
        shares = [*rng.random(5), *np.arange(len(rows) + 1) / len(rows)]
        expected = [np.quantile(rows, s, method="inverted_cdf") for s in shares]
        assert [quantile(scores, weight, s) for s in shares] == expected


# --- lines ----------------------------------------------------------------------------


def test_as_much_as_possible_is_below_the_line():
    for scores, weight, rows, rng in cases():
        for below in (*range(len(rows) + 2), *(rng.random(3) * len(rows))):
            line = threshold(scores, weight, below)
            under = weight[scores < line].sum()
            assert under <= below
            # The next score up would be too much.
            rest = rows[rows >= line]
            assert not len(rest) or under + np.sum(rest == rest.min()) > below


def test_a_line_is_half_way_between_two_scores():
    scores = np.array([5.0, 1.0, 2.0, 11.0])
    lines = [threshold(scores, np.ones(4), below) for below in (1, 1.9, 2, 3, 3.5)]
    assert lines == [1.5, 1.5, 3.5, 8.0, 8.0]


def test_a_line_below_all_scores_is_as_far_as_the_second():
    scores = np.array([3.0, 2.0, 9.0])
    assert threshold(scores, np.ones(3), 0.0) == 1.5
    assert threshold(scores, np.ones(3), 0.99) == 1.5


def test_ties_are_on_the_same_side():
    scores = np.array([1.0, 1.0, 1.0, 4.0])
    assert [threshold(scores, np.ones(4), below) for below in (0, 1, 2)] == [-0.5] * 3
    assert threshold(scores, np.ones(4), 3) == 2.5


@pytest.mark.parametrize("value", [0.0, 3.5, -3.5, 1e300, -1e300, 1.0, -1.0, 5e-324])
@pytest.mark.parametrize("n", [1, 3])
def test_lines_among_equal_scores(value, n):
    scores = np.full(n, value)
    below, above = (threshold(scores, np.ones(n), most) for most in (n - 0.5, n))
    assert below < value < above
    assert [below, above] == pytest.approx([value] * 2, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("value", [1.0, -1.0, 0.3, -1e9, 1e-300])
def test_a_line_between_adjacent_numbers(value):
    scores = np.array([value, np.nextafter(value, np.inf)])
    line = threshold(scores, np.ones(2), 1.0)
    np.testing.assert_array_equal(scores < line, [True, False])
    line = threshold(scores, np.ones(2), 0.0)
    assert line < scores[0]


@pytest.mark.parametrize(("n", "each"), [(10, 0.1), (12, 0.1), (5, 0.3), (8, 1 / 3)])
def test_rounding_of_weights_moves_no_line(n, each):
    scores, weight = np.arange(float(n)), np.full(n, each)
    for k in range(1, n):
        # Ten times a tenth are less than one, and three more than 0.3.
        for below in (k * each, sum([each] * k), np.nextafter(k * each, 0)):
            assert threshold(scores, weight, below) == k - 0.5
        assert quantile(scores, weight, k / n) == k - 1


# --- what stands out ------------------------------------------------------------------


def test_the_fence_by_hand():
    # The quartiles of eight are the second and the sixth: 2 - 1.5 (6 - 2) = -4.
    scores = np.array([-4.1, 2, 3, 4, 5, 6, 7, 8])
    assert fence(scores, np.ones(8)) == 1.0
    scores[0] = -4.0
    assert fence(scores, np.ones(8)) == 0.0
    scores[[0, -1]] = 2.0, 1e9  # only low scores stand out
    assert fence(scores, np.ones(8)) == 0.0
    # With weight 3 of 10 it is itself the lower quartile.
    scores[0], weight = -1e9, np.array([3.0, 1, 1, 1, 1, 1, 1, 1])
    assert fence(scores, weight) == 0.0
    weight[0] = 0.5
    assert fence(scores, weight) == 0.5


@pytest.mark.parametrize(("factor", "shift"), [(1e-3, 0.0), (1e6, -3e6), (1.0, 1e3)])
def test_the_fence_does_not_depend_on_units(factor, shift):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        scores, weight = rng.standard_t(2, 50), rng.random(50)
        found.append(fence(scores, weight))
        assert fence(factor * scores + shift, weight) == found[-1]
    assert np.count_nonzero(found) > 10


def test_equal_scores_do_not_stand_out():
    assert fence(np.full(9, -3.0), np.ones(9)) == 0.0
    assert fence(np.full(1, -3.0), ONE) == 0.0


# --- p-values -------------------------------------------------------------------------


def test_p_values_follow_their_formula():
    for known, weight, _, rng in cases():
        scores = np.concatenate([rng.standard_normal(5), known, [-np.inf, np.inf]])
        expected = [
            (1 + weight[known <= score].sum()) / (1 + weight.sum()) for score in scores
        ]
        np.testing.assert_allclose(
            p_values(scores, known, weight), expected, rtol=1e-14
        )


def test_p_values_by_hand():
    known = np.array([3.0, 1.0, 2.0, 2.0])
    found = p_values(np.array([0.5, 1.0, 2.0, 2.5, 3.0]), known, np.ones(4))
    np.testing.assert_allclose(found, [1 / 5, 2 / 5, 4 / 5, 4 / 5, 1])
