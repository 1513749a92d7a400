import numpy as np
import pytest

from skae.bottlenecks import SparseCode
from skae.model import Plan
from skae.optimizers import Adam
from skae.penalties import L1, JumpReLU, TopK
from skae.revival import firing_floor, resample, worst_rows
from skae.rows import Rows
from skae.training import Trainer

N, D, K = 60, 5, 8


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def make(
    rng,
    penalty=None,
    hidden=(),
    tied=False,
    unit_norm=False,
    batch_size=20,
    weight=None,
):
    widths = [D, *hidden, K]
    acts = ["tanh"] * len(hidden)
    activations = [[*acts, "relu"], [*acts, "identity"]]
    plan = Plan(widths, widths[::-1], activations, tied, "gaussian", False)
    bottleneck = SparseCode(penalty or TopK(2))
    objective, size = plan.objective(bottleneck, unit_norm=unit_norm)
    theta = 0.3 * rng.standard_normal(size)
    objective.shared.of(theta)[...] = 0.0
    objective.own.of(theta)[...] = bottleneck.start(K)
    X = rng.standard_normal((N, D))
    trainer = Trainer(
        objective,
        theta,
        Rows(X),
        bounds=(X.min(axis=0), X.max(axis=0)),
        limits=(np.zeros(D), np.zeros(D)),
        batch_size=batch_size,
        shuffle=True,
        rng=rng,
    )
    moments = Adam().init(theta)
    moments.arrays += 1.0
    return trainer, moments


def dead_units():
    dead = np.zeros(K, dtype=bool)
    dead[[1, 4]] = True
    return dead


@pytest.mark.parametrize("hidden", [(), (6,)])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("unit_norm", [False, True])
@pytest.mark.parametrize("penalty", [TopK(2), L1(), JumpReLU()], ids=repr)
def test_only_dead_units_change(penalty, unit_norm, tied, hidden, rng):
    trainer, moments = make(rng, penalty, hidden, tied, unit_norm)
    trainer.objective.restore(trainer.params)
    before, dead = trainer.theta.copy(), dead_units()
    of = trainer.objective.of
    of(trainer.theta).own[0, dead] = 7.0
    resample(trainer, moments, dead)
    for flat, stays in ((trainer.theta, before), (moments.arrays[0], None)):
        now = of(flat)
        then = of(np.ones_like(flat) if stays is None else stays)
        (weight, bias), directions = now.encoder[-1], now.decoder[0][0]
        (weight_then, bias_then), directions_then = then.encoder[-1], then.decoder[0][0]
        np.testing.assert_array_equal(weight[:, ~dead], weight_then[:, ~dead])
        np.testing.assert_array_equal(bias[~dead], bias_then[~dead])
        np.testing.assert_array_equal(directions[~dead], directions_then[~dead])
        np.testing.assert_array_equal(now.own[:, ~dead], then.own[:, ~dead])
        for rest, rest_then in zip(
            now.encoder[:-1] + now.decoder[1:],
            then.encoder[:-1] + then.decoder[1:],
            strict=True,
        ):
            np.testing.assert_array_equal(rest[0], rest_then[0])
        if stays is None:
            past = weight.T, bias, directions, now.own.T
            assert not any(array[dead].any() for array in past)
        else:
            start = trainer.objective.bottleneck.start(K)
            np.testing.assert_array_equal(now.own[:, dead], start[:, dead])
            length = np.linalg.norm(directions, axis=1)
            expected = 1.0 if unit_norm else length[~dead].mean()
            np.testing.assert_allclose(length[dead], expected)


def test_a_new_unit_fires_at_a_badly_reconstructed_row_and_helps(rng):
    trainer, moments = make(rng, batch_size=N)
    trainer.rows.X[7] = 30.0  # the worst row by far
    mean, dead = trainer.rows.X.mean(axis=0), np.zeros(K, dtype=bool)
    dead[3] = True

    def state():
        batch = trainer.encode(np.array([7]), 1.0)
        own = trainer.objective.meet(trainer.params, batch)
        trainer.objective.decode_phase(trainer.params, own, batch)
        return batch.code[0, 0, 3], float(batch.misfit[0, 0])

    _, loss = state()
    resample(trainer, moments, dead)
    fires, less = state()
    assert fires > 0
    assert less < loss
    weight, _ = trainer.params.encoder[-1]
    towards = (30.0 - mean) / np.linalg.norm(30.0 - mean)
    cosine = towards @ weight[:, 3] / np.linalg.norm(weight[:, 3])
    assert cosine == pytest.approx(1.0)


@pytest.mark.parametrize("unit_norm", [False, True])
@pytest.mark.parametrize("sizes", [(), (5, 7)])
def test_a_new_unit_takes_back_the_error_of_its_row(sizes, unit_norm, rng):
    trainer, moments = make(rng, L1(), unit_norm=unit_norm, batch_size=N)
    trainer.change(bottleneck=SparseCode(L1(), sizes=sizes))
    trainer.objective.restore(trainer.params)
    weight, bias = trainer.params.encoder[-1]
    weight[:, 1:7] *= 30.0  # new weights may be large, too
    bias[...] = [5.0, *[-100.0] * 7]  # one unit of eight fires, in each row
    dead = np.arange(K) == 7
    resample(trainer, moments, dead)
    batch = trainer.encode(np.arange(N), float(N))
    trainer.objective.decode_phase(trainer.params, trainer.params.own, batch)
    least = np.log(2 * np.pi) * D / 2
    assert batch.misfit[:, 0].min() == pytest.approx(least, rel=1e-9)
    fires = np.mean(batch.code[:, 0, 7] > 0)
    assert fires == pytest.approx(1 / 8, abs=0.03)


def test_new_weights_are_not_larger_than_others(rng):
    trainer, moments = make(rng, L1(), batch_size=N)
    trainer.rows.X[7] = 1e3
    dead = np.arange(K) == 7
    weight = trainer.params.encoder[-1][0]
    trainer.params.decoder[0][0][...] *= 1e-3  # the error would need large outputs
    resample(trainer, moments, dead)
    length = np.linalg.norm(weight, axis=0)
    assert length[7] == pytest.approx(length[:7].mean())


def test_units_fire_at_few_rows_and_at_their_own(rng):
    reach = rng.standard_normal((1000, 2))
    at_rows = np.array([8.0, 0.1])  # the first row reaches far, the other does not
    floor = firing_floor(reach, at_rows, 0.05)
    assert np.mean(reach[:, 0] > floor[0]) == pytest.approx(0.05)
    assert floor[1] == pytest.approx((reach[:, 1].mean() + 0.1) / 2)
    assert (floor < at_rows).all()


def test_rows_are_drawn_by_weight_and_squared_loss(rng):
    trainer, _ = make(rng, batch_size=4)
    batch = trainer.batch
    batch.misfit[:, 0] = [1.0, 2.0, 3.0, 3.0]
    batch.weight[...] = [5.0, 1.0, 1.0, 0.5]
    drawn = np.concatenate([worst_rows(batch, 1, rng) for _ in range(4000)])
    share = np.bincount(drawn, minlength=4) / 4000
    np.testing.assert_allclose(share, np.array([0, 1, 4, 2]) / 7, atol=0.03)
    assert set(worst_rows(batch, 3, rng)) == {1, 2, 3}


def test_rows_that_are_equally_bad_are_equally_likely(rng):
    trainer, _ = make(rng, batch_size=4)
    trainer.batch.misfit.fill(2.0)
    trainer.batch.weight.fill(0.25)
    assert sorted(worst_rows(trainer.batch, 4, rng)) == [0, 1, 2, 3]


def test_all_units_may_be_dead_and_more_than_a_batch_has_rows(rng):
    trainer, moments = make(rng, batch_size=3)
    before = trainer.params.decoder[0][0].copy()
    resample(trainer, moments, np.ones(K, dtype=bool))
    assert np.isfinite(trainer.theta).all()
    assert (trainer.params.decoder[0][0] != before).any(axis=1).all()


def test_of_few_rows_few_units_are_made(rng):
    trainer, moments = make(rng)
    trainer.rows.index = trainer.rows.index[:9]
    before = trainer.params.decoder[0][0].copy()
    resample(trainer, moments, np.ones(K, dtype=bool))
    assert (trainer.params.decoder[0][0] != before).any(axis=1).sum() == 2


def test_the_same_generator_plants_the_same_units():
    thetas = []
    for _ in range(2):
        trainer, moments = make(np.random.default_rng(3))
        resample(trainer, moments, dead_units())
        thetas.append(trainer.theta)
    np.testing.assert_array_equal(*thetas)
