"""The variational autoencoder: factor analysis with a network inside."""

from __future__ import annotations

import warnings
from numbers import Integral
from os import PathLike
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from skae._validation import (
    NON_NEGATIVE,
    POSITIVE_INT,
    Interval,
    StrOptions,
    check_count,
    check_sizes,
    only_if,
)
from skae.activations import ACTIVATIONS
from skae.bottlenecks import Bottleneck, GaussianPosterior, ImportanceWeighted
from skae.checkpoints import Checkpoint
from skae.distributions import Distribution
from skae.estimators._base import BaseAutoencoder
from skae.estimators._fitted import has_likelihood, new_generator
from skae.layout import Array
from skae.marginal import Marginal
from skae.model import Plan
from skae.optimizers import OPTIMIZERS, Optimizer
from skae.rows import Rows
from skae.training import Monitor

__all__ = ["VariationalAutoencoder"]

#: A component is active if its posterior mean varies by more than this (Burda et al.).
ACTIVE = 0.01


class VariationalAutoencoder(BaseAutoencoder):
    r"""Generative model whose code is normal: factor analysis with a network inside.

    A row is drawn by drawing a code :math:`z \sim N(0, I)` and then the row from
    :math:`p(x | z)`, whose parameters are the decoder's outputs. The encoder gives the
    approximate posterior :math:`q(z | x) = N(\mu(x), \operatorname{diag}
    \sigma^2(x))`. Both are learnt by minimising [1]_

    .. math:: \frac{1}{\sum_i w_i} \sum_i w_i \, \bigl[
              -\mathrm{E}_{q(z | x_i)} \log p(x_i | z)
              + \beta \, \mathrm{KL}(q(z | x_i) \,\Vert\, N(0, I)) \bigr]
              + \frac{\alpha}{2} \lVert W \rVert^2

    in nats per row; with :math:`\beta = 1` that is minus the evidence lower bound on
    :math:`\log p(x)`. `score_samples` estimates :math:`\log p(x)` itself. Without
    hidden layers and with Gaussian columns the model is that of
    :class:`~sklearn.decomposition.FactorAnalysis`.

    Read more in the :ref:`User Guide <variational>`.

    Parameters
    ----------
    n_components : int, default=2
        Number of units of the code.

    hidden_layer_sizes : int or array-like of int, default=()
        Widths of the encoder's layers between the input and the code, outermost first.

    decoder_layer_sizes : int or array-like of int, default=None
        Widths of the decoder's layers between the code and the output, innermost
        first. None mirrors the encoder.

    activation : str, default=None
        Activation of the hidden layers: 'elu', 'identity', 'leaky_relu', 'logistic',
        'relu', 'selu', 'softplus', 'softsign' or 'tanh'. None stands for 'tanh'.

    latent_activation : str, default='identity'
        Activation of the encoder's last layer, which gives the mean and the
        log-variance of the code. 'tanh' and 'softsign' bound both; those that are
        never negative do not suit a mean.

    distribution : str, Distribution or list of tuple, default='gaussian'
        Distribution of a row given its code; it decides what X may hold.

        - A name for all columns: 'bernoulli', 'beta', 'categorical', 'exponential',
          'gamma', 'gaussian', 'heteroscedastic_gaussian', 'laplace', 'log_normal',
          'negative_binomial', 'poisson', 'student_t' or
          'zero_inflated_negative_binomial'; see :ref:`distributions`.
        - A loss without a probabilistic reading: 'absolute_error', 'huber',
          'log_cosh' or 'squared_error'. Likelihoods are then not available,
          `reconstruction_error` is.
        - A list of ``(distribution, columns)``, in which each column appears once.
          Columns are given by name, place, slice, boolean mask or a callable, as in
          :class:`~sklearn.compose.ColumnTransformer`.
        - 'auto' chooses for each column by its values; see `distribution_`.

    objective : {'elbo', 'iwae'}, default='elbo'
        The bound to maximise: the evidence lower bound, its divergence in closed form,
        or the importance-weighted bound of `n_samples` draws [2]_, which is tighter.

    n_samples : int, default=1
        Draws of the code for each row and step.

    beta : float, default=1.0
        Weight of the divergence. Below one, codes say more about their row; above one,
        components are disentangled at the expense of the fit [3]_.

    beta_warm_up : int, default=0
        Epochs of each fit in which `beta` rises linearly from zero; they are not judged
        by `tol`.

    free_bits : float, default=0.0
        What each component of each row may say for free, in nats: a divergence below
        counts as this much and has no gradient [4]_. For ``objective='elbo'`` only.

    n_importance_samples : int, default=64
        Draws of the code for each row in `score_samples`, `score_features`, `elbo`
        and the reconstruction probabilities, if not given there. Powers of two fill
        the space of codes most evenly.

    alpha : float, default=1e-4
        Strength of the L2 penalty on weights, in nats; biases are not penalised. With
        ``solver='adamw'`` it is the decoupled weight decay.

    standardize : bool, default=True
        Whether the columns of real-valued distributions are centred and divided by
        their standard deviation inside, and those of positive ones divided by it. It is
        undone outside: reconstructions, samples and scores are in the units of X.

    solver : str or Optimizer, default='adam'
        How the loss is minimised: 'adadelta', 'adagrad', 'adam', 'adamw', 'rmsprop' or
        'sgd'. The loss is random, so that 'lbfgs' is refused.

    batch_size : int or 'auto', default='auto'
        Rows in a minibatch; all rows if there are fewer. 'auto' is a 32nd of the rows,
        but at least 32 and at most 256. The short last batch is kept.

    learning_rate : str, default='adaptive'
        Course of the learning rate.

        - 'constant' stays at `learning_rate_init`;
        - 'invscaling' divides it by ``epoch ** power_t``;
        - 'adaptive' divides it by 5 each time the loss has not fallen by `tol` for
          `n_iter_no_change` epochs, up to five times;
        - 'cosine' lets it fall to zero over `max_iter` epochs, and then stops; only
          early stopping may end it before.

    learning_rate_init : float, default=0.01
        Initial learning rate; 'adadelta' wants a rate of about 1.

    power_t : float, default=0.5
        Exponent of 'invscaling'.

    max_iter : int, default=500
        Largest number of epochs.

    shuffle : bool, default=True
        Whether each epoch visits the rows in an order of its own.

    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of rows, the split for early stopping
        and the codes drawn in training. Pass an int for reproducible results; None
        draws a seed from the operating system and leaves NumPy's global state alone.

    tol : float, default=1e-4
        The least progress that counts, in nats per row.

    verbose : bool, default=False
        Whether to print the loss of each epoch.

    warm_start : bool, default=False
        Whether `fit` starts from the parameters of the fit before.

    momentum : float, default=0.9
        Momentum of 'sgd', in [0, 1).

    nesterovs_momentum : bool, default=True
        Whether 'sgd' uses Nesterov's momentum.

    early_stopping : bool, default=False
        Whether to hold out rows, watch their loss instead of the training loss, and
        keep the parameters with which it was smallest.

    validation_fraction : float, default=0.1
        Fraction of the rows that early stopping holds out.

    beta_1 : float, default=0.9
        Decay of the mean gradient in 'adam' and 'adamw', in [0, 1).

    beta_2 : float, default=0.999
        Decay of the mean squared gradient in 'adam' and 'adamw', in [0, 1).

    epsilon : float, default=1e-8
        Positive number that keeps the denominators of 'adam', 'adamw', 'rmsprop',
        'adagrad' and 'adadelta' away from zero.

    n_iter_no_change : int or numpy.inf, default=20
        Epochs without progress after which training stops or, with 'adaptive', slows
        down. With infinity, training goes on for `max_iter` epochs.

    checkpoint : str, path-like, Checkpoint or None, default=None
        File to which `fit` writes its complete state, once a minute or as a
        :class:`~skae.checkpoints.Checkpoint` says. If it is there, `fit` goes on from
        it, and ends as if it had not been interrupted.

    Attributes
    ----------
    coefs_ : list of ndarray of shape (n_inputs, n_outputs)
        Weights of each layer, the encoder's first, as views: writing to them changes
        the model. The encoder's last layer gives the means and then the log-variances
        of the code; the decoder's last gives the distribution's parameters, one block
        after the other.

    intercepts_ : list of ndarray of shape (n_outputs,)
        Biases of each layer, the encoder's first.

    distribution_ : str, Distribution or list of tuple
        The distribution of each column; what 'auto' chose. It can be given as
        `distribution`.

    noise_variance_ : ndarray of shape (n_features,) or None
        Learnt variance of each real-valued column given the code, in squared units of X
        (for other families than the Gaussian, the square of their scale). NaN for
        columns without such a scale, None if no column has one.

    kl_per_component_ : ndarray of shape (n_components,)
        Mean divergence of each component's posterior from N(0, 1) over the training
        rows, in nats.

    n_active_components_ : int
        Components whose posterior mean has a variance above 0.01 over the training
        rows [2]_. The others say nothing about a row.

    loss_ : float
        Training loss of the last epoch, in nats per row.

    best_loss_ : float or None
        Smallest training loss, epochs of `beta_warm_up` aside. None with
        ``early_stopping=True``.

    loss_curve_ : list of float
        Training loss of each epoch; it goes on through warm starts and `partial_fit`.

    reconstruction_curve_ : list of float
        Part of the loss: the mean of minus log p(x|z) over the draws of each epoch.

    kl_curve_ : list of float
        Part of the loss, before it is multiplied by beta: the mean divergence of each
        epoch, free bits included; for 'iwae', the mean of log q(z|x) - log p(z).

    validation_scores_ : list of float or None
        With early stopping, minus the loss of the held-out rows after each epoch, with
        the final beta and four fixed draws of the code.

    best_validation_score_ : float or None
        The largest validation score of the last fit.

    n_iter_ : int
        Epochs of the last fit.

    t_ : int
        Rows seen in training, over all epochs.

    n_features_in_ : int
        Number of columns seen in fit.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns. Defined only when X has column names that are all strings.

    See Also
    --------
    DenoisingAutoencoder : A deterministic code.
    sklearn.decomposition.FactorAnalysis : The linear Gaussian case, in closed form.

    Notes
    -----
    All methods but `sample` and `sample_latent` are deterministic: codes are
    represented by their posterior mean, and likelihoods use one fixed set of draws for
    all rows.

    The prior of the code is standard normal.

    Losses, in `loss_curve_` and its parts and in `validation_scores_`, are those of the
    columns as the network sees them, that is standardized; scores and bounds are in the
    units of X.

    References
    ----------
    .. [1] Kingma, D. P. & Welling, M. (2014). Auto-encoding variational Bayes. ICLR.
    .. [2] Burda, Y., Grosse, R. & Salakhutdinov, R. (2016). Importance weighted
       autoencoders. ICLR.
    .. [3] Higgins, I. et al. (2017). beta-VAE: learning basic visual concepts with a
       constrained variational framework. ICLR.
    .. [4] Kingma, D. P. et al. (2016). Improving variational inference with inverse
       autoregressive flow. NIPS.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import VariationalAutoencoder
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = VariationalAutoencoder(
    ...     8, distribution="bernoulli", hidden_layer_sizes=(64,), random_state=0
    ... ).fit(X / 16)
    >>> model.transform(X / 16).shape
    (1797, 8)
    >>> model.sample(3, random_state=0).shape
    (3, 64)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseAutoencoder._parameter_constraints,
        "solver": [StrOptions(set(OPTIMIZERS)), Optimizer],
        "decoder_layer_sizes": ["array-like", POSITIVE_INT, None],
        "latent_activation": [StrOptions(set(ACTIVATIONS))],
        "objective": [StrOptions({"elbo", "iwae"})],
        "n_samples": [POSITIVE_INT],
        "beta": [NON_NEGATIVE],
        "beta_warm_up": [Interval(Integral, 0, None, closed="left")],
        "free_bits": [NON_NEGATIVE],
        "n_importance_samples": [POSITIVE_INT],
    }
    del _parameter_constraints["max_fun"]  # a parameter of L-BFGS alone

    _has_random_code = True
    _cost_curve = "kl_curve_"

    def __init__(
        self,
        n_components: int = 2,
        *,
        hidden_layer_sizes: ArrayLike = (),
        decoder_layer_sizes: ArrayLike | None = None,
        activation: str | None = None,
        latent_activation: str = "identity",
        distribution: str | Distribution | list[Any] = "gaussian",
        objective: Literal["elbo", "iwae"] = "elbo",
        n_samples: int = 1,
        beta: float = 1.0,
        beta_warm_up: int = 0,
        free_bits: float = 0.0,
        n_importance_samples: int = 64,
        alpha: float = 1e-4,
        standardize: bool = True,
        solver: str | Optimizer = "adam",
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: str = "adaptive",
        learning_rate_init: float = 0.01,
        power_t: float = 0.5,
        max_iter: int = 500,
        shuffle: bool = True,
        random_state: int | RandomState | None = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 20,
        checkpoint: str | PathLike[str] | Checkpoint | None = None,
    ) -> None:
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.decoder_layer_sizes = decoder_layer_sizes
        self.activation = activation
        self.latent_activation = latent_activation
        self.distribution = distribution
        self.objective = objective
        self.n_samples = n_samples
        self.beta = beta
        self.beta_warm_up = beta_warm_up
        self.free_bits = free_bits
        self.n_importance_samples = n_importance_samples
        self.alpha = alpha
        self.standardize = standardize
        self.solver = solver
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.checkpoint = checkpoint

    # --- the parts that make it variational ---------------------------------------

    def _bottleneck(self) -> Bottleneck:
        if self.objective == "iwae":
            return ImportanceWeighted(self.n_samples)
        return GaussianPosterior(self.n_samples, self.free_bits)

    def _new_plan(self, n_features: int, family: Any) -> Plan:
        if self.free_bits > 0 and self.objective == "iwae":
            raise ValueError(
                f"free_bits={self.free_bits} needs objective='elbo': the draws of "
                f"objective='iwae' have no divergence per component."
            )
        return super()._new_plan(n_features, family)

    def _beta(self, epoch: float) -> float:
        rising = epoch / self.beta_warm_up if epoch < self.beta_warm_up else 1.0
        return float(self.beta * rising)

    def _code_activation(self, hidden: list[int]) -> str:
        return self.latent_activation

    def _decoder_sizes(self, hidden: list[int]) -> list[int]:
        if self.decoder_layer_sizes is None:
            return hidden[::-1]
        return check_sizes(self.decoder_layer_sizes, "decoder_layer_sizes")

    def _monitor(self, held_out: Rows | None) -> Monitor:
        monitor = super()._monitor(held_out)
        monitor.patience_from = self.beta_warm_up
        return monitor

    # --- what a fit reports --------------------------------------------------------

    def _finish(self, rows: Rows) -> None:
        """Find what each component says."""
        kl, variance = self._model().activity(rows)
        self.kl_per_component_ = kl
        self.n_active_components_ = int(np.count_nonzero(variance > ACTIVE))

    def _advise(self, n_rows: int) -> None:
        """Warn if the codes say nothing."""
        if self.n_active_components_ == 0:
            warnings.warn(
                f"Posterior collapse: none of the {self._n_features_out} components "
                f"says anything about a row; the largest mean divergence is "
                f"{self.kl_per_component_.max():.2g} nats. Unless the columns are "
                f"independent, train longer (max_iter={self.max_iter}, "
                f"learning_rate_init={self.learning_rate_init}), let beta={self.beta} "
                f"rise slowly (beta_warm_up={self.beta_warm_up}) or be smaller, or "
                f"grant free_bits={self.free_bits}.",
                stacklevel=4,
            )

    # --- codes -----------------------------------------------------------------------

    def posterior(self, X: ArrayLike) -> tuple[Array, Array]:
        """Return mean and standard deviation of the code of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        mean : ndarray of shape (n_samples, n_components)
            The mean of q(z|x), which `transform` returns.
        std : ndarray of shape (n_samples, n_components)
            Its standard deviation. The prior's is one.
        """
        data = self._check_fitted_rows(X)
        return self._model().posterior(data)

    def sample_latent(
        self, X: ArrayLike, random_state: int | RandomState | None = None
    ) -> Array:
        """Draw a code for each row from its posterior q(z|x).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to encode.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components)
            One code for each row.
        """
        mean, std = self.posterior(X)
        noise = new_generator(random_state).standard_normal(mean.shape)
        return np.asarray(mean + std * noise.astype(mean.dtype))

    def sample(
        self,
        n_samples: int = 1,
        Z: ArrayLike | None = None,
        random_state: int | RandomState | None = None,
    ) -> Array:
        """Draw rows from the model.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows to draw or, if codes are given, of rows for each code.
        Z : array-like of shape (n_codes, n_components), default=None
            Codes to draw rows for; None draws codes from the prior.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Rows drawn from p(x|z), in the units of the training data; for given codes
            of shape (n_codes * n_samples, n_features), the rows of each code together.
            Columns with a loss instead of a distribution are at its mean.
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples")
        rng, k = new_generator(random_state), self._n_features_out
        if Z is None:
            z = rng.standard_normal((n_samples, k)).astype(self._theta.dtype)
        else:
            z = np.repeat(self._check_codes(Z, "Z"), n_samples, axis=0)
        return self._model().sample(z, rng)

    # --- likelihoods -----------------------------------------------------------------

    @only_if(has_likelihood)  # type: ignore[untyped-decorator]
    def score_samples(self, X: ArrayLike) -> Array:
        """Return the log-likelihood log p(x) of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,)
            In nats and in the units of X; higher is better. It is the estimate of
            `log_likelihood` with `n_importance_samples` draws.
        """
        log_likelihood: Array = self.log_likelihood(X)
        return log_likelihood

    @only_if(has_likelihood)  # type: ignore[untyped-decorator]
    def log_likelihood(
        self, X: ArrayLike, n_samples: int | None = None, return_std: bool = False
    ) -> Array | tuple[Array, Array]:
        r"""Estimate log p(x) of each row by importance sampling.

        .. math:: \log \frac{1}{S} \sum_{s=1}^{S}
                  \frac{p(x | z_s) \, p(z_s)}{r(z_s | x)}

        Most codes come from a normal distribution that is made for each row: its mean
        is the encoder's, moved to where the posterior is, and its covariance the one
        that the decoder's slope and the distribution's Fisher information imply there.
        Unlike the encoder's q(z|x) it knows how components depend on each other given
        the row, so that few draws go a long way; in the linear Gaussian model its
        covariance is that of the posterior. From 64 draws on, an eighth each comes from
        a wider normal and from the prior, so that no region of codes is left out, and
        what they add to the error is removed by regression. All rows share one fixed
        set of draws, which is why the result is the same in every call.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.
        n_samples : int, default=None
            Draws S of the code for each row; None for `n_importance_samples`. The
            estimate rises towards log p(x) with their number, in expectation.
        return_std : bool, default=False
            Whether to return the estimates' standard errors.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,)
            In nats and in the units of X; higher is better.
        std : ndarray of shape (n_samples,)
            Standard error of the logarithm, in nats, as if the draws were independent;
            those of the Sobol sequence do better where components are few. It knows
            nothing of a mode of the posterior that no draw has met, it is rough for
            fewer than 64 draws, and NaN for one. Only if `return_std` is true.
        """
        data = self._check_fitted_rows(X)
        estimate, std = self._estimates(data, n_samples)
        return (estimate, std) if return_std else estimate

    def _log_likelihood(self, data: Any) -> Array:
        return self._estimates(data)[0]

    def _estimates(
        self, data: Any, n_samples: int | None = None
    ) -> tuple[Array, Array]:
        """Return estimates of log p(x) of validated rows, and their errors."""
        out = np.empty((2, data.shape[0]), data.dtype)
        for place, *estimate in self._marginal(n_samples, data).estimates(data):
            out[:, place] = estimate[:2]
        return out[0], out[1]

    @only_if(has_likelihood)  # type: ignore[untyped-decorator]
    def score_features(self, X: ArrayLike) -> Array:
        """Return each column's share of the log-likelihood of its row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples, n_features)
            In nats; each row sums to its entry in `score_samples`. The share of a
            column is the mean of log p(x_j|z) over the exact posterior of the code, and
            an equal part of the divergence of that posterior from the prior, which
            belongs to no column.
        """
        return self._shares(self._check_fitted_rows(X))

    def _shares(self, data: Any) -> Array:
        out = np.empty(data.shape, data.dtype)
        marginal = self._marginal(None, data)
        for place, _, _, shares in marginal.estimates(data, by_feature=True):
            out[place] = shares
        return out

    @only_if(has_likelihood)  # type: ignore[untyped-decorator]
    def elbo(self, X: ArrayLike, n_samples: int | None = None) -> Array:
        """Return the evidence lower bound of log p(x) of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.
        n_samples : int, default=None
            Draws of the code for each row; None for `n_importance_samples`.

        Returns
        -------
        elbo : ndarray of shape (n_samples,)
            The mean of log p(x|z) over the draws, less the divergence of q(z|x) from
            the prior, in nats and in the units of X; beta and free bits aside.
        """
        data = self._check_fitted_rows(X)
        out = np.empty(data.shape[0], data.dtype)
        for place, bound in self._marginal(n_samples, data).bounds(data):
            out[place] = bound
        return out

    @only_if(has_likelihood)  # type: ignore[untyped-decorator]
    def reconstruction_log_prob(
        self, X: ArrayLike, n_samples: int | None = None
    ) -> Array:
        r"""Return the mean of log p(x|z) over codes from each row's posterior.

        .. math:: \frac{1}{S} \sum_s \log p(x | z_s), \qquad z_s \sim q(z | x)

        It is one part of the evidence lower bound and leaves the other, the divergence
        of the code, out: no estimate of log p(x).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.
        n_samples : int, default=None
            Draws S of the code for each row; None for `n_importance_samples`.

        Returns
        -------
        log_prob : ndarray of shape (n_samples,)
            In nats and in the units of X; higher is better.
        """
        data = self._check_fitted_rows(X)
        out = np.empty(data.shape[0], data.dtype)
        for place, each in self._marginal(n_samples, data).reconstructions(data):
            out[place] = each.mean(axis=1)
        return out

    def _reconstruction_shares(self, data: Any) -> Array:
        out = np.empty(data.shape)
        for place, shares in self._marginal(None, data).reconstructed(data):
            out[place] = shares
        return out

    @only_if(has_likelihood)  # type: ignore[untyped-decorator]
    def reconstruction_prob(
        self,
        X: ArrayLike,
        n_samples: int | None = None,
        average: Literal["geometric", "arithmetic"] = "geometric",
    ) -> Array:
        r"""Return the reconstruction probability of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.
        n_samples : int, default=None
            Draws S of the code for each row; None for `n_importance_samples`.
        average : {'geometric', 'arithmetic'}, default='geometric'
            How the draws' :math:`p(x | z_s)` are averaged. 'geometric' is what
            Deeplearning4j computes, the exponential of `reconstruction_log_prob`;
            'arithmetic' is the definition of An & Cho [1]_, and never smaller.

        Returns
        -------
        prob : ndarray of shape (n_samples,), float64
            A density in the units of X, so that it may exceed one; for many columns it
            may be too small or too large for a number: prefer the logarithm.

        References
        ----------
        .. [1] An, J. & Cho, S. (2015). Variational autoencoder based anomaly detection
           using reconstruction probability. SNU Data Mining Center.
        """
        if average not in ("geometric", "arithmetic"):
            raise ValueError(
                f"average={average!r} must be 'geometric' or 'arithmetic'."
            )
        data = self._check_fitted_rows(X)
        out = np.empty(data.shape[0])
        with np.errstate(over="ignore", under="ignore"):
            for place, each in self._marginal(n_samples, data).reconstructions(data):
                if average == "geometric":
                    out[place] = np.exp(each.mean(axis=1))
                else:
                    out[place] = np.exp(each).mean(axis=1)
        return out

    def _marginal(self, n_samples: int | None, data: Any) -> Marginal:
        """Return the estimator of likelihoods with so many draws."""
        if n_samples is None:
            n_samples = self.n_importance_samples
        check_count(n_samples, "n_samples")
        return Marginal(self._model(), n_samples, data.dtype)
