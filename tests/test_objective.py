import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from numerical import check_gradient, support_sample
from scipy import special

from skae.activations import ACTIVATIONS
from skae.bottlenecks import (
    Deterministic,
    GaussianPosterior,
    ImportanceWeighted,
    SparseCode,
)
from skae.corruptions import CORRUPTIONS
from skae.distributions import DISTRIBUTIONS
from skae.model import Plan
from skae.network import Chain
from skae.penalties import (
    L1,
    BatchTopK,
    Gated,
    Hoyer,
    JumpReLU,
    KLDivergence,
    TopK,
)

N_ROWS, N_FEATURES = 9, 6
BOTTLENECKS = {
    "deterministic": Deterministic(),
    "gaussian": GaussianPosterior(),
    "two draws": GaussianPosterior(n_samples=2),
    "three draws": GaussianPosterior(n_samples=3),
    "free bits": GaussianPosterior(n_samples=2, free_bits=0.3),
    "importance": ImportanceWeighted(),
    "five of importance": ImportanceWeighted(n_samples=5),
    "kl": SparseCode(KLDivergence(0.2)),
    "l1": SparseCode(L1()),
    "hoyer, nested": SparseCode(Hoyer(), sizes=(1, 2)),
    "topk": SparseCode(TopK(2)),
    "topk, nested": SparseCode(TopK(2), sizes=(2,)),
    "batchtopk": SparseCode(BatchTopK(1)),
}
#: Those with numbers that are learnt, or with auxiliary codes: see `SparseCase`.
TEACHING = {
    "gated": SparseCode(Gated(), sizes=(2,)),
    "jumprelu": SparseCode(JumpReLU(0.2, bandwidth=1.0)),
    "dead units": SparseCode(TopK(1), n_revived=2, dead_after=0.0),
}
COMPOSITE = [
    ("gaussian", [5]),
    ("categorical", [2, 0]),
    ("bernoulli", [3]),
    ("negative_binomial", [4, 1]),
]
FAMILIES = {name: name for name in DISTRIBUTIONS} | {"composite": COMPOSITE}


def data(family, rng, n_rows):
    """Draw rows that a distribution, or each part of a composite, can have."""
    x = np.empty((n_rows, N_FEATURES))
    for member, columns in family.parts(N_FEATURES):
        shape = x[:, columns].shape
        x[:, columns] = support_sample(member, shape, rng)
    return x


class Case:
    """An objective with a drawn batch, ready to be evaluated at any parameters."""

    def __init__(
        self,
        distribution="gaussian",
        bottleneck="deterministic",
        activation="tanh",
        tied=False,
        corruption="masking",
        level=0.3,
        alpha=0.1,
        beta=0.5,
        learns_shared=True,
        n_rows=N_ROWS,
        dtype=np.float64,
        hidden=((5,), (5,)),
        code_activation=None,
    ):
        rng, (into, back) = np.random.default_rng(0), hidden
        if bottleneck.startswith("kl"):  # its codes are probabilities
            code_activation = "logistic"
        into_code = [activation] * len(into) + [code_activation or activation]
        plan = Plan(
            [N_FEATURES, *into, 3],
            [3, *back, N_FEATURES],
            [into_code, [activation] * len(back) + ["identity"]],
            tied,
            FAMILIES[distribution],
            False,
        )
        self.objective, size = plan.objective(
            (BOTTLENECKS | TEACHING)[bottleneck],
            CORRUPTIONS[corruption](),
            level,
            alpha=alpha,
            beta=beta,
            learns_shared=learns_shared,
        )
        self.theta = (0.4 * rng.standard_normal(size)).astype(dtype)
        own = (BOTTLENECKS | TEACHING)[bottleneck].start(3)
        self.objective.own.of(self.theta)[...] = own
        self.batch = self.objective.batch(n_rows, self.theta.dtype)
        family = self.objective.distribution
        self.batch.x[...] = data(family, rng, n_rows)
        weight = rng.uniform(0.5, 2.0, n_rows)
        self.batch.weight[...] = weight / weight.sum()
        bounds = np.array([self.batch.x.min(axis=0), self.batch.x.max(axis=0)])
        family.inputs(bounds, bounds)
        self.objective.draw(self.batch, rng)
        self.objective.see(self.batch, tuple(bounds))

    def evaluate(self, theta):
        grad = np.zeros_like(theta)
        params, grads = self.objective.of(theta), self.objective.of(grad)
        self.objective.encode_phase(params, self.batch)
        own = self.objective.meet(params, self.batch)
        loss = self.objective.loss_and_gradient(params, own, self.batch, grads)
        penalty = self.objective.decay(params, grads)
        return loss.total + penalty, grad

    def loss(self, theta):
        return self.evaluate(theta)[0]

    def entries(self, x=None):
        """Return ``-log p(x | z)`` of every entry, as evaluated last."""
        x, shape = self.batch.x if x is None else x, self.batch.code.shape[:2]
        eta = self.batch.decoder.outputs[-1].reshape(*shape, -1)
        shared, out = (
            self.objective.shared.of(self.theta),
            np.empty((*shape, x.shape[1])),
        )
        self.objective.distribution.nll(x[:, None], eta, shared, out)
        return out

    def check(self):
        """Check the gradient, with respect to what is learned."""
        grad, shared = self.evaluate(self.theta)[1], self.objective.shared
        assert not self.objective.own.of(grad).any()
        cut = shared.start + self.objective.learns_shared * shared.size
        assert not grad[cut:].any()
        fixed = self.theta[cut:]
        check_gradient(
            lambda free: self.loss(np.concatenate([free, fixed])),
            grad[:cut],
            self.theta[:cut],
        )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("distribution", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient(activation, corruption, distribution, tied):
    Case(distribution, "deterministic", activation, tied, corruption).check()


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
@pytest.mark.parametrize("distribution", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("level", [0.0, 0.4])
def test_gradient_of_every_bottleneck(level, alpha, distribution, bottleneck):
    Case(distribution, bottleneck, alpha=alpha, level=level).check()


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
@pytest.mark.parametrize("distribution", FAMILIES)
@pytest.mark.parametrize("learns_shared", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_gradient_of_every_family(beta, alpha, learns_shared, distribution, bottleneck):
    case = Case(
        distribution,
        bottleneck,
        alpha=alpha,
        beta=beta,
        learns_shared=learns_shared,
        level=0.0,
    )
    case.check()


@pytest.mark.parametrize("alpha", [0.0, 0.1])
@pytest.mark.parametrize("back", [(4,), (5, 4)])
@pytest.mark.parametrize("into", [(5,), (4, 7)])
@pytest.mark.parametrize("bottleneck", ["gaussian", "two draws"])
@pytest.mark.parametrize("code_activation", ["identity", "tanh"])
@pytest.mark.parametrize(
    "distribution",
    ["gaussian", "bernoulli", "exponential", "composite", "squared_error"],
)
def test_gradient_of_networks_with_two_shapes(
    distribution, code_activation, bottleneck, into, back, alpha
):
    """The grid over which Deeplearning4j checks its variational autoencoder."""
    case = Case(
        distribution,
        bottleneck,
        alpha=alpha,
        hidden=(into, back),
        code_activation=code_activation,
        level=0.0,
        beta=1.0,
    )
    assert [layer.widths[1] for layer in case.objective.encoder.layers] == [*into, 6]
    assert [layer.widths[0] for layer in case.objective.decoder.layers] == [3, *back]
    case.check()


#: A code with two outputs per unit cannot be tied.
STRUCTURES = [
    ("deterministic", False),
    ("deterministic", True),
    ("gaussian", False),
    ("three draws", False),
    ("free bits", False),
    ("importance", False),
    ("five of importance", False),
    ("kl", False),
    ("l1", True),
    ("hoyer, nested", False),
    ("topk", False),
    ("topk, nested", True),
    ("batchtopk", False),
]


@pytest.mark.parametrize(("bottleneck", "tied"), STRUCTURES)
def test_old_content_of_the_memory_does_not_matter(bottleneck, tied):
    case = Case(bottleneck=bottleneck, tied=tied)
    loss, grad = case.evaluate(case.theta)
    batch = case.batch
    inputs = {"x", "x_in", "target", "weight", "damage", "noise"}
    if case.objective.bottleneck.is_plain:
        inputs |= {"cost", "share"}  # zero once and for all, and the weight
    for name, array in vars(batch).items():
        if name not in inputs and isinstance(array, np.ndarray):
            array.fill(np.nan)
    for tape in (batch.encoder, batch.decoder):
        for array in itertools.chain(tape.outputs, tape.deltas, tape.scratch):
            array.fill(np.nan)
    again, grad_again = case.evaluate(case.theta)
    assert again == loss
    np.testing.assert_array_equal(grad_again, grad)


@pytest.mark.parametrize("bottleneck", BOTTLENECKS | TEACHING)
@pytest.mark.parametrize("distribution", ["gaussian", "composite"])
def test_row_phases_split_over_rows(distribution, bottleneck):
    case = Case(distribution, bottleneck)
    _, grad = case.evaluate(case.theta)
    loss = case.batch.loss.copy()
    case.batch.loss.fill(np.nan)
    params, split = case.objective.of(case.theta), np.zeros_like(grad)
    parts = [case.batch.rows(*ends) for ends in ((0, 2), (2, 3), (3, N_ROWS))]
    for part in parts:
        case.objective.encode_phase(params, part)
    own = case.objective.meet(params, case.batch)
    for part in parts:
        case.objective.decode_phase(params, own, part)
    for part in ((0, 2), (1, 2)):
        case.objective.weight_phase(
            case.batch,
            case.objective.of(split),
            case.objective.rows(part),
        )
    case.objective.decay(params, case.objective.of(split))
    np.testing.assert_allclose(case.batch.loss, loss, rtol=1e-12)
    np.testing.assert_allclose(split, grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("bottleneck", ["three draws", "five of importance", *TEACHING])
def test_phases_run_in_threads(bottleneck):
    case = Case(bottleneck=bottleneck)
    loss, grad = case.evaluate(case.theta)
    case.batch.loss.fill(np.nan)
    params, split = case.objective.of(case.theta), np.zeros_like(grad)
    parts = [case.batch.rows(3 * i, 3 * i + 3) for i in range(3)]

    def weights(i):
        grads = case.objective.of(split)
        rows = case.objective.rows((i, 3))
        case.objective.weight_phase(case.batch, grads, rows)

    with ThreadPoolExecutor(3) as executor:
        encode = partial(case.objective.encode_phase, params)
        list(executor.map(encode, parts))
        own = case.objective.meet(params, case.batch)
        decode = partial(case.objective.decode_phase, params, own)
        list(executor.map(decode, parts))
        list(executor.map(weights, range(3)))
    penalty = case.objective.decay(params, case.objective.of(split))
    assert case.batch.weight @ case.batch.loss + penalty == pytest.approx(loss)
    np.testing.assert_allclose(split, grad, rtol=1e-10, atol=1e-14)


def test_weights_are_repetitions():
    case = Case(level=0.0, n_rows=4)
    case.batch.weight[...] = np.array([3, 1, 0, 2]) / 6
    loss, grad = case.evaluate(case.theta)
    repeated = Case(level=0.0, n_rows=6)
    repeated.batch.x[...] = case.batch.x[[0, 0, 0, 1, 3, 3]]
    repeated.batch.weight.fill(1 / 6)
    loss_repeated, grad_repeated = repeated.evaluate(case.theta)
    assert loss_repeated == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(grad_repeated, grad, rtol=1e-10, atol=1e-14)


def test_the_target_is_the_clean_row():
    clean, damaged = Case(level=0.0), Case(level=1.0)
    damaged.evaluate(clean.theta)
    np.testing.assert_array_equal(damaged.batch.x, clean.batch.x)
    assert not damaged.batch.x_in.any()
    expected = damaged.entries(clean.batch.x).sum(axis=2)
    np.testing.assert_allclose(damaged.batch.misfit, expected, rtol=1e-12)


def test_nothing_is_copied_without_corruption():
    batch = Case(level=0.0).batch
    assert batch.x_in is batch.x


def test_counts_are_seen_by_their_logarithms():
    batch = Case("composite", level=0.0).batch
    expected = batch.x.copy()
    expected[:, [1, 4]] = np.log1p(batch.x[:, [1, 4]])
    assert batch.x[:, [1, 4]].max() > 1
    np.testing.assert_array_equal(batch.x_in, expected)


def test_loss_per_row_is_the_sum_over_features():
    case = Case()
    case.evaluate(case.theta)
    np.testing.assert_allclose(case.batch.loss, case.entries().sum(axis=(1, 2)))


def test_penalty_is_half_alpha_times_the_squared_weights():
    case, without = Case(alpha=0.7), Case(alpha=0.0)
    weights = case.theta[case.objective.weights()[0]]
    difference = case.loss(case.theta) - without.loss(case.theta)
    assert difference == pytest.approx(0.35 * np.sum(weights**2))
    grads = case.evaluate(case.theta)[1] - without.evaluate(case.theta)[1]
    np.testing.assert_allclose(grads[: weights.size], 0.7 * weights, rtol=1e-9)
    assert not grads[weights.size :].any()


def test_shared_parameters_that_are_not_learned_take_no_memory():
    case = Case("composite", "three draws", learns_shared=False)
    assert case.batch.d_shared.shape == (N_ROWS, 3, 0)
    assert case.objective.shared.size == 3
    learned = Case("composite", "three draws")
    assert learned.batch.d_shared.shape == (N_ROWS, 3, 3)
    grad, theirs = case.evaluate(case.theta)[1], learned.evaluate(case.theta)[1]
    np.testing.assert_array_equal(grad[:-3], theirs[:-3])
    assert theirs[-3:].all()


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
@pytest.mark.parametrize("beta", [1.0, 0.3, 0.0])
def test_parts_of_the_loss(beta, bottleneck):
    case = Case(bottleneck=bottleneck, beta=beta)
    case.evaluate(case.theta)
    batch, loss = case.batch, case.objective.loss(case.batch)
    np.testing.assert_allclose(batch.misfit, case.entries().sum(axis=2), rtol=1e-12)
    np.testing.assert_allclose(batch.total, batch.misfit + beta * batch.cost)
    assert loss.reconstruction == pytest.approx(batch.weight @ batch.misfit.mean(1))
    assert loss.cost == pytest.approx(batch.weight @ batch.cost.mean(1))
    free = "deterministic", "topk", "topk, nested", "batchtopk"
    assert (loss.cost == 0) == (bottleneck in free)
    total = loss.reconstruction + beta * loss.cost
    if bottleneck == "five of importance":
        assert loss.total < total
    else:
        assert loss.total == pytest.approx(total, rel=1e-12)


def test_what_may_differ_between_two_evaluations():
    certain = Case(level=0.0)
    assert not certain.objective.is_random
    assert Case(level=0.1).objective.is_random
    assert Case(level=0.0, bottleneck="gaussian").objective.is_random
    sizes = certain.objective.n_components, certain.objective.n_features
    assert sizes == (3, N_FEATURES)


@pytest.mark.parametrize("tied", [False, True])
def test_places_are_what_a_step_may_change(tied):
    case = Case("gaussian", "batchtopk", tied=tied)
    objective, size = case.objective, case.theta.size
    assert objective.trained == (*objective.encoder.layers, *objective.decoder.layers)
    assert objective.places() == [slice(0, size - objective.own.size)]
    (weights,) = objective.weights()
    n_weights = N_FEATURES * 5 + 5 * 3
    assert weights == slice(0, n_weights if tied else 2 * n_weights)
    frozen = replace(objective, is_frozen=True)
    assert frozen.trained == objective.decoder.layers
    slots = [objective.own, *(layer.bias for layer in objective.encoder.layers)]
    slots += [] if tied else [layer.weight for layer in objective.encoder.layers]
    stays = np.zeros(size, dtype=bool)
    for slot in slots:
        slot.of(stays)[...] = True
    for place in frozen.places():
        assert not stays[place].any()
        stays[place] = True
    assert stays.all()


@pytest.mark.parametrize("distribution", ["bernoulli", "composite", "gaussian"])
def test_a_frozen_encoder_has_no_gradient(distribution):
    case = Case(distribution, level=0.0, alpha=0.3)
    loss, grad = case.evaluate(case.theta)
    params = case.objective.of(case.theta)
    square = sum(np.sum(weight**2) for weight, _ in params.encoder)
    case.objective = replace(case.objective, is_frozen=True)
    less, frozen = case.evaluate(case.theta)
    assert loss - less == pytest.approx(0.15 * square)
    mask = np.zeros(len(grad), dtype=bool)
    for place in case.objective.places():
        mask[place] = True
    assert not frozen[~mask].any()
    np.testing.assert_array_equal(frozen[mask], grad[mask])


def test_another_target_has_memory_of_its_own():
    case = Case(level=0.0)
    assert case.batch.target is case.batch.x
    other = replace(case.objective, n_targets=2).batch(N_ROWS, np.float32)
    assert other.target.shape == (N_ROWS, 2)
    assert other.decoder.outputs[-1].shape == case.batch.decoder.outputs[-1].shape
    assert other.target.dtype == np.float32
    assert other.rows(2, 5).target.shape == (3, 2)
    assert not np.shares_memory(other.target, other.x)


def test_the_target_alone_is_explained():
    case, twin = Case("gaussian", level=0.0), Case("gaussian", level=0.0)
    other = np.random.default_rng(3).standard_normal(case.batch.x.shape)
    case.objective = replace(case.objective, n_targets=N_FEATURES)
    weight, x = case.batch.weight, case.batch.x
    case.batch = case.objective.batch(N_ROWS, case.theta.dtype)
    case.batch.x[...], case.batch.weight[...] = x, weight
    case.objective.draw(case.batch, np.random.default_rng(0))
    case.objective.see(case.batch, (x, x))
    case.batch.target[...] = x
    loss, grad = case.evaluate(case.theta)
    assert loss == twin.loss(case.theta)
    np.testing.assert_array_equal(grad, twin.evaluate(case.theta)[1])
    case.batch.target[...] = other
    assert case.loss(case.theta) != loss
    case.check()


# --- several draws --------------------------------------------------------------------


def test_the_loss_is_averaged_over_draws():
    case = Case(bottleneck="three draws")
    case.evaluate(case.theta)
    h, batch = case.batch.encoder.outputs[-1], case.batch
    cost = np.empty_like(batch.cost)
    own = case.objective.of(case.theta).own
    case.objective.bottleneck.forward(h, batch.noise, own, batch.code, cost)
    expected = (case.entries().sum(axis=2) + 0.5 * cost).mean(axis=1)
    np.testing.assert_allclose(batch.loss, expected)


def test_one_weighted_draw_is_the_sampled_lower_bound():
    case = Case(bottleneck="importance", beta=1.0)
    case.evaluate(case.theta)
    mu, log_variance = np.hsplit(case.batch.encoder.outputs[-1], 2)
    z, noise = case.batch.code[:, 0], case.batch.noise[:, 0]
    np.testing.assert_allclose(z, mu + np.exp(0.5 * log_variance) * noise)
    log_ratio = 0.5 * (z**2 - noise**2 - log_variance).sum(axis=1)
    expected = case.entries().sum(axis=(1, 2)) + log_ratio
    np.testing.assert_allclose(case.batch.loss, expected, rtol=1e-12)
    np.testing.assert_array_equal(case.batch.share[:, 0], case.batch.weight)


@pytest.mark.parametrize("distribution", FAMILIES)
def test_the_bound_of_several_draws_is_a_log_mean_exp(distribution):
    case = Case(distribution, "five of importance", beta=1.0)
    case.evaluate(case.theta)
    batch, total = case.batch, case.batch.total
    identity = math.log(5) - special.logsumexp(-total, axis=1)
    np.testing.assert_allclose(batch.loss, identity, rtol=1e-12)
    assert (batch.loss <= identity + 1e-12 * np.abs(identity)).all()
    assert (batch.loss < total.mean(axis=1)).all()
    np.testing.assert_allclose(batch.share.sum(axis=1), batch.weight, rtol=1e-12)
    expected = special.softmax(-total, axis=1) * batch.weight[:, None]
    np.testing.assert_allclose(batch.share, expected, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("log_variance", [3.0, -3.0])
def test_draws_that_underflow_do_no_harm(log_variance, dtype):
    """Far out a wide posterior is much denser than the prior, a narrow one less so."""
    case = Case(bottleneck="five of importance", dtype=dtype, level=0.0)
    case.objective.encoder.layers[-1].bias.of(case.theta)[3:] = log_variance
    case.batch.noise[:, 2] = 1e3
    loss, grad = case.evaluate(case.theta)
    gone = np.arange(5) == 2 if log_variance > 0 else np.arange(5) != 2
    np.testing.assert_array_equal(case.batch.share == 0, np.tile(gone, (N_ROWS, 1)))
    share = case.batch.share.sum(axis=1)
    np.testing.assert_allclose(share, case.batch.weight, rtol=1e-6)
    assert math.isfinite(loss)
    assert np.isfinite(grad).all()
    if dtype == np.float64:
        case.check()


# --- other floating-point numbers, and another library --------------------------------


def test_float32_agrees_with_float64():
    single, double = Case(dtype=np.float32, level=0.0), Case(level=0.0)
    loss, grad = single.evaluate(single.theta)
    loss64, grad64 = double.evaluate(single.theta.astype(np.float64))
    assert grad.dtype == np.float32
    assert loss == pytest.approx(loss64, rel=1e-5)
    np.testing.assert_allclose(grad, grad64, atol=1e-5)


def torch_nll(torch, name, family, x, eta, shared):
    """Return minus the log-density of each row by PyTorch's own distributions."""
    law, scale = torch.distributions, shared.exp()
    half = eta.shape[-1] // 2
    if name == "bernoulli":  # of grey levels too, where there is no distribution
        logits = torch.nn.functional.binary_cross_entropy_with_logits
        return logits(eta, x.expand_as(eta), reduction="none").sum(-1)
    if name == "categorical":
        return -law.OneHotCategorical(logits=eta).log_prob(x.expand_as(eta))
    found = {
        "beta": lambda: law.Beta(
            eta.sigmoid() * scale, torch.sigmoid(-eta) * scale, validate_args=False
        ),
        "exponential": lambda: law.Exponential(1 / (family.min_mean + torch.exp(-eta))),
        "gamma": lambda: law.Gamma(scale.expand_as(eta), scale * torch.exp(-eta)),
        "gaussian": lambda: law.Normal(eta, scale),
        "heteroscedastic_gaussian": lambda: law.Normal(
            eta[..., :half], (family.min_scale**2 + eta[..., half:].exp()).sqrt()
        ),
        "laplace": lambda: law.Laplace(eta, scale),
        "log_normal": lambda: law.LogNormal(eta, scale),
        "negative_binomial": lambda: law.NegativeBinomial(scale, logits=eta - shared),
        "poisson": lambda: law.Poisson(eta.exp()),
        "student_t": lambda: law.StudentT(family.df, eta, scale),
    }
    return -found[name]().log_prob(x).sum(-1)


def torch_code(torch, bottleneck, h, noise, weight):
    """Return the codes and what they cost by PyTorch's own distributions."""
    if isinstance(bottleneck, Deterministic):
        return h[:, None], torch.zeros(len(h), 1, dtype=h.dtype)
    if isinstance(bottleneck, SparseCode):
        return torch_sparse_code(torch, bottleneck, h, weight)
    normal = torch.distributions.Normal
    posterior = normal(h[:, None, :3], torch.exp(h[:, None, 3:] / 2))
    prior = normal(torch.zeros(3, dtype=h.dtype), torch.ones(3, dtype=h.dtype))
    z = posterior.loc + posterior.scale * torch.tensor(noise)
    if isinstance(bottleneck, ImportanceWeighted):
        return z, (posterior.log_prob(z) - prior.log_prob(z)).sum(-1)
    kl = torch.distributions.kl_divergence(posterior, prior)
    return z, kl.clamp(min=bottleneck.free_bits).sum(-1)


def torch_sparse_code(torch, bottleneck, h, weight):
    """Return a sparse code, its leading parts, and what they cost."""
    penalty, cost = bottleneck.penalty, torch.zeros(len(h), 1, dtype=h.dtype)
    z = h
    if isinstance(penalty, TopK):
        top = h.topk(penalty.k, dim=1)
        z = torch.zeros_like(h).scatter(1, top.indices, top.values)
    elif isinstance(penalty, BatchTopK):
        order = torch.argsort(h.flatten(), descending=True)
        counted = weight.repeat_interleave(3)[order].cumsum(0)
        last = int((counted < penalty.k * (1 - 1e-9)).sum())
        z = h * (h >= h.flatten()[order[last]])
    elif isinstance(penalty, L1):
        cost = cost + h.norm(p=1, dim=1, keepdim=True)
    elif isinstance(penalty, Hoyer):
        ratio = h.norm(p=1, dim=1, keepdim=True) / h.norm(dim=1, keepdim=True)
        cost = cost + ratio**2
    else:
        law = torch.distributions.Bernoulli
        target = torch.full((3,), penalty.sparsity_target, dtype=h.dtype)
        kl = torch.distributions.kl_divergence(law(target), law(weight @ h))
        cost = cost + kl.sum()
    parts = [z] + [z * (torch.arange(3) < size) for size in bottleneck.sizes]
    return torch.stack(parts, 1), cost.expand(-1, len(parts))


#: A family with two outputs for a column has no tied decoder.
AGREEMENTS = [
    (distribution, bottleneck, tied)
    for bottleneck, tied in STRUCTURES
    for distribution in (
        "bernoulli",
        "beta",
        "categorical",
        "exponential",
        "gamma",
        "gaussian",
        "heteroscedastic_gaussian",
        "laplace",
        "log_normal",
        "negative_binomial",
        "poisson",
        "student_t",
    )
    if DISTRIBUTIONS[distribution].outputs_per_feature == 1 or not tied
]


@pytest.mark.parametrize(("distribution", "bottleneck", "tied"), AGREEMENTS)
def test_loss_and_gradient_agree_with_pytorch(distribution, bottleneck, tied):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    case = Case(distribution, bottleneck, "tanh", tied)
    batch, objective = case.batch, case.objective
    theta = torch.tensor(case.theta, requires_grad=True)

    def take(slot):
        view = theta[slot.start : slot.start + slot.size].reshape(slot.shape)
        return view.T if slot.transposed else view

    def dense(x, chain):
        for layer in chain.layers:
            x = x @ take(layer.weight) + take(layer.bias)
            x = torch.tanh(x) if layer.activation == "tanh" else x
            x = torch.sigmoid(x) if layer.activation == "logistic" else x
        return x

    h, weight = dense(torch.tensor(batch.x_in), objective.encoder), batch.weight
    z, cost = torch_code(
        torch, objective.bottleneck, h, batch.noise, torch.tensor(weight)
    )
    eta, x = dense(z, objective.decoder), torch.tensor(batch.x)[:, None]
    family, shared = objective.distribution, take(objective.shared)
    nll = torch_nll(torch, distribution, family, x, eta, shared)
    total = nll + objective.beta * cost
    if isinstance(objective.bottleneck, ImportanceWeighted):
        each = math.log(total.shape[1]) - torch.logsumexp(-total, 1)
    else:
        each = total.mean(1)
    weights = theta[objective.weights()[0]]
    loss = torch.tensor(batch.weight) @ each
    loss = loss + 0.5 * objective.alpha * (weights**2).sum()
    loss.backward()

    value, grad = case.evaluate(case.theta)
    assert value == pytest.approx(loss.item(), rel=1e-12)
    np.testing.assert_allclose(grad, theta.grad.numpy(), rtol=1e-9, atol=1e-13)
    if objective.shared.size:
        assert objective.shared.of(grad).all()


# --- gradients by definition ----------------------------------------------------------


class SparseCase:
    """A sparse code whose gradient is that of a loss with some parts held fixed."""

    def __init__(self, bottleneck, hidden=(), n_rows=N_ROWS):
        rng, widths = np.random.default_rng(1), [N_FEATURES, *hidden, 4]
        acts = ["tanh"] * len(hidden) + ["identity"]
        plan = Plan(widths, widths[::-1], [acts, acts], False, "bernoulli", False)
        self.objective, size = plan.objective(bottleneck, beta=0.7)
        self.bottleneck, self.theta = bottleneck, 0.4 * rng.standard_normal(size)
        own = self.objective.own.of(self.theta)
        own[...] += bottleneck.start(4)
        own[-1] = [0, 99, 0, 99]
        self.batch = self.objective.batch(n_rows, self.theta.dtype)
        self.batch.x[...] = rng.uniform(size=self.batch.x.shape)
        self.batch.weight[...] = rng.dirichlet(np.ones(n_rows))

    def params(self, theta):
        return self.objective.of(theta)

    def gradient(self):
        grad = np.zeros_like(self.theta)
        params, grads = self.params(self.theta), self.params(grad)
        self.objective.encode_phase(params, self.batch)
        own = self.objective.meet(params, self.batch)
        loss = self.objective.loss_and_gradient(params, own, self.batch, grads)
        return loss.total, grad

    def outputs(self, theta):
        self.objective.encode_phase(self.params(theta), self.batch)
        return self.batch.encoder.outputs[-1].copy()

    def code(self, theta):
        return self.bottleneck.code(self.outputs(theta), self.params(theta).own)

    def cost(self, theta):
        z = np.empty((N_ROWS, 1, 4))
        cost, own = np.empty((N_ROWS, 1)), self.params(theta).own
        self.bottleneck.forward(self.outputs(theta), NO_NOISE, own, z, cost)
        return cost[:, 0]

    def eta(self, theta, z):
        h = z
        for layer, (weight, bias) in zip(
            self.objective.decoder.layers, self.params(theta).decoder, strict=True
        ):
            h = h @ weight + bias
            h = np.tanh(h) if layer.activation == "tanh" else h
        return h

    def misfit(self, eta):
        x = self.batch.x
        return (np.logaddexp(0, eta) - x * eta).sum(axis=1)


NO_NOISE = np.empty((N_ROWS, 0))


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_gates_learn_from_a_frozen_decoder(hidden):
    case = SparseCase(SparseCode(Gated()), hidden)
    start = case.theta.copy()

    def loss(theta):
        gates = np.maximum(case.outputs(theta), 0)
        main = case.misfit(case.eta(theta, case.code(theta))) + 0.7 * case.cost(theta)
        return float(case.batch.weight @ (main + case.misfit(case.eta(start, gates))))

    total, grad = case.gradient()
    assert total == pytest.approx(loss(case.theta), rel=1e-12)
    check_gradient(loss, grad, case.theta)
    # What the gates are decoded to is no reconstruction, and costs nothing.
    found, weight = case.objective.loss(case.batch), case.batch.weight
    misfit = case.misfit(case.eta(case.theta, case.code(case.theta)))
    assert found.reconstruction == pytest.approx(weight @ misfit)
    assert found.cost == pytest.approx(weight @ case.cost(case.theta))


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_dead_units_learn_what_the_living_leave_over(hidden):
    case = SparseCase(SparseCode(TopK(2), n_revived=1, dead_after=50.0), hidden)
    case.params(case.theta).encoder[-1][1][...] = [1.0, 0.7, 1.0, 0.7]
    start, weight = case.theta.copy(), case.batch.weight
    living = case.code(start)
    fixed = case.misfit(case.eta(start, living))

    def dead(theta):
        h = np.where((living == 0) & [False, True, False, True], case.outputs(theta), 0)
        h = np.maximum(h, 0)
        return h * (h == h.max(axis=1, keepdims=True))

    def loss(theta):
        main = case.misfit(case.eta(theta, case.code(theta)))
        # The first layer learns for dead units; what comes after is held fixed.
        (first, _), layer = case.params(start).decoder[0], case.objective.decoder.layers
        weight_now, bias_now = case.params(theta).decoder[0]
        h = living @ first + dead(theta) @ weight_now + bias_now
        for k, (after, bias) in enumerate(case.params(start).decoder[1:]):
            h = (np.tanh(h) if layer[k].activation == "tanh" else h) @ after + bias
        eta = h
        return float(weight @ (main + (case.misfit(eta) - fixed) / 32))

    assert dead(start).any(axis=1).sum() > 2
    total, grad = case.gradient()
    assert total == pytest.approx(loss(case.theta), rel=1e-12)
    check_gradient(loss, grad, case.theta)


def test_a_running_mean_is_held_fixed_but_for_the_batch():
    # The slope of the divergence is taken at the running mean.
    case = SparseCase(SparseCode(KLDivergence(0.2, memory=30.0)))
    params = case.params(case.theta)
    params.own[0] = [0.3, 0.5, 0.2, 0.4]
    case.objective = replace(
        case.objective, encoder=with_logistic_code(case.objective.encoder)
    )
    met = case.objective.meet
    case.objective.encode_phase(params, case.batch)
    mean = met(params, case.batch)[0]
    slope = 0.8 / (1 - mean) - 0.2 / mean
    weight = case.batch.weight

    def loss(theta):
        code = case.outputs(theta)
        return float(weight @ (case.misfit(case.eta(theta, code)) + 0.7 * code @ slope))

    check_gradient(loss, case.gradient()[1], case.theta)


def with_logistic_code(chain):
    return Chain((*chain.layers[:-1], replace(chain.layers[-1], activation="logistic")))


# --- directions of length one ---------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_directions_keep_their_length(tied):
    case = Case("gaussian", "l1", tied=tied, hidden=((), ()))
    objective = replace(case.objective, unit_norm=True)
    params = objective.of(case.theta)
    objective.restore(params)
    directions = params.decoder[0][0]
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0)
    grad = case.evaluate(case.theta)[1]
    grads = objective.of(grad)
    free = grads.decoder[0][0].copy()
    objective.constrain(params, grads)
    along = np.sum(grads.decoder[0][0] * directions, axis=1)
    np.testing.assert_allclose(along, 0.0, atol=1e-12)
    taken = free - grads.decoder[0][0]
    size = np.sum(taken * directions, axis=1)[:, None]
    np.testing.assert_allclose(taken, size * directions, atol=1e-12)


def test_a_direction_of_length_zero_stays():
    case = Case("gaussian", "l1", hidden=((), ()))
    objective = replace(case.objective, unit_norm=True)
    params = objective.of(case.theta)
    params.decoder[0][0][1] = 0.0
    objective.restore(params)
    assert np.isfinite(case.theta).all()
    assert not params.decoder[0][0][1].any()
