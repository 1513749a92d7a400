"""The sparse autoencoder: many units, of which few fire."""

from __future__ import annotations

import warnings
from numbers import Integral
from os import PathLike
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.random import Generator, RandomState
from numpy.typing import ArrayLike
from scipy import sparse

from skae._validation import (
    NON_NEGATIVE,
    OPEN_FRACTION,
    POSITIVE,
    POSITIVE_INT,
    Interval,
    StrOptions,
    check_count,
    check_sizes,
    clone,
    validate_parameters,
)
from skae.activations import ACTIVATIONS
from skae.bottlenecks import SparseCode
from skae.checkpoints import Checkpoint
from skae.component import resolve
from skae.distributions import Distribution
from skae.estimators._base import BaseAutoencoder, check_differentiable
from skae.estimators._fitted import check_codes
from skae.layout import Array
from skae.model import Model, Plan
from skae.optimizers import Moments, Optimizer
from skae.penalties import PENALTIES, Penalty
from skae.revival import resample
from skae.rows import Columns, Rows, geometric_median
from skae.training import Monitor, Trainer

__all__ = ["SparseAutoencoder"]

#: A batch size of "auto" is made no larger than this for the sake of a mean over it.
MOST_POOLED = 1000

#: Dead units that the auxiliary loss lets learn from a row, for each column.
REVIVED = 0.5


class SparseAutoencoder(BaseAutoencoder):
    r"""Autoencoder whose code has many units, of which few fire for a row.

    An encoder maps a row to the code :math:`a(x)`, a decoder maps the code to the
    distribution of the row. Both are learnt by minimising

    .. math:: \frac{1}{\sum_i w_i} \sum_i w_i \,
              \bigl[-\log p(x_i \mid \eta(a(x_i)))
              + \lambda \, \mathrm{cost}(a(x_i))\bigr]
              + \frac{\alpha}{2} \lVert W \rVert^2 ,

    in nats per row, where :math:`\lambda` is the `sparsity_weight` and the `penalty`
    says what a code costs or which of its units may fire at all. Each unit comes to
    stand for something that rows share, and the decoder's `components_` say for what.

    Read more in the :ref:`User Guide <sparse>`.

    Parameters
    ----------
    n_components : int, default=None
        Number of units of the code. None stands for an overcomplete code, of twice as
        many units as X has columns.

    hidden_layer_sizes : int or array-like of int, default=()
        Widths of the encoder's layers between the input and the code, outermost first.
        The decoder mirrors them.

    activation : str, default=None
        Activation of the hidden layers: 'elu', 'identity', 'leaky_relu', 'logistic',
        'relu', 'selu', 'softplus', 'softsign' or 'tanh'. None stands for 'tanh'.

    code_activation : str, default='auto'
        Activation of the encoder's output, on which the penalty works: one of those
        above that the penalty allows, or 'auto'. That is 'logistic' for 'kl',
        'identity' for 'gated' and 'jumprelu', and 'relu' for the others.

    penalty : str or Penalty, default='topk'
        What makes the code sparse.

        - 'kl' draws each unit's mean activation over a batch to `sparsity_target`, by
          their Kullback-Leibler divergence [1]_. Codes lie in (0, 1). Batches have to
          be large, or the mean is not accurate; a
          :class:`~skae.penalties.KLDivergence` with a `memory` lifts that.
        - 'l1' adds up absolute values [2]_.
        - 'hoyer' takes the squared ratio of the L1 and L2 norms, which does not depend
          on the code's scale [3]_.
        - 'topk' lets the `k` largest units of each row fire [4]_, [5]_.
        - 'batchtopk' lets `k` units fire in a row of a batch, on average, and in the
          fitted model those above one threshold [6]_.
        - 'jumprelu' learns a threshold for each unit, and counts units that fire [7]_.
        - 'gated' learns which units fire and how much in two ways, so that the penalty
          does not shrink the code [8]_.

        A :class:`~skae.penalties.Penalty` has settings of its own; `k` and
        `sparsity_target` are then not used.

    k : int, default=None
        For 'topk' and 'batchtopk': units that fire in a row, at most `n_components`.
        None stands for `sparsity_target` times `n_components`, at least one. It can be
        changed after the fit, to let more units fire.

    sparsity_target : float, default=0.1
        For 'kl': the mean activation wanted, in (0, 1). It also sets `k`.

    sparsity_weight : float, default=1.0
        What a code's cost counts in the loss. For 'topk' and 'batchtopk' codes cost
        nothing.

    sparsity_warm_up : int, default=0
        Epochs in which the penalty comes in: `sparsity_weight` rises from zero, and `k`
        falls from `n_components`, by the same factor each time. Units then find their
        place before they compete. These epochs neither stop training nor lower the
        learning rate. 'lbfgs' knows no epochs, and uses the whole penalty.

    nested_sizes : 'auto' or array-like of int, default=None
        Sizes of leading parts of the code that have to reconstruct a row as well as
        the whole does [9]_: the first units stand for what is most common, and the
        code can be cut. 'auto' halves `n_components` four times. None trains the whole
        alone. Each size costs as much time as the whole decoder.

    revival : {'resampling', 'auxiliary'} or None, default='resampling'
        What becomes of dead units. 'resampling' gives them new weights between epochs,
        which point to rows that are badly reconstructed [2]_, in the first half of
        `max_iter` and until the learning rate has first been divided. 'auxiliary' lets
        them learn from what the living units leave over [5]_, as far as their encoder
        outputs are positive at all. None leaves them dead, as
        ``solver='lbfgs'`` always does.

    dead_after : float, default=2.0
        Epochs after which a unit that has not fired is dead; more precisely, rows seen
        in training, divided by the number of training rows. In `partial_fit` that
        number is taken to be a quarter of the rows seen so far, but at least 1000 and
        at least the chunk's.

    unit_norm : bool or 'auto', default='auto'
        Whether the decoder's directions for the units have length one. 'auto' does so
        for penalties that look at how large outputs are, that is for all but 'kl',
        unless weights are tied or ``solver='lbfgs'``.

    decoder_bias_init : {'mean', 'geometric_median', 'zero'}, default='mean'
        What the decoder says at first: the mean of the rows; the point with the least
        mean distance from them, which outliers hardly move; or a row of zeros, so that
        units learn the parts that a row is made of, not its departures from the mean.
        For columns that are standardized, 'zero' is their mean.

    transform_n_components : int, default=None
        Number of units, the first ones, that `transform` returns; None for all. It can
        be changed after the fit. `inverse_transform` takes the others for zeros.

    sparse_output : bool, default=False
        Whether `transform` returns a CSR matrix. It can be changed after the fit.

    distribution : str, Distribution or list of tuple, default='gaussian'
        Distribution of a row given its code; it decides the loss and what X may hold.

        - A name for all columns: 'bernoulli', 'beta', 'categorical', 'exponential',
          'gamma', 'gaussian', 'heteroscedastic_gaussian', 'laplace', 'log_normal',
          'negative_binomial', 'poisson', 'student_t' or
          'zero_inflated_negative_binomial'; see :ref:`distributions`. Of 'gaussian',
          'laplace', 'log_normal' and 'student_t', the scale is one while training and
          then estimated from the residuals.
        - A loss without a probabilistic reading: 'absolute_error', 'huber',
          'log_cosh' or 'squared_error'. Likelihoods are then not available,
          `reconstruction_error` is.
        - A list of ``(distribution, columns)``, in which each column appears once.
          Columns are given by name, place, slice, boolean mask or a callable, as in
          :class:`~sklearn.compose.ColumnTransformer`.
        - 'auto' chooses for each column by its values; see `distribution_`.

    tied_weights : bool, default=False
        Whether the decoder's weights are the encoder's, transposed. Biases are never
        tied.

    alpha : float, default=1e-4
        Strength of the L2 penalty on weights, in nats; biases are not penalised. With
        ``solver='adamw'`` it is the decoupled weight decay.

    standardize : bool, default=True
        Whether the columns of real-valued distributions are centred and divided by
        their standard deviation inside, and those of positive ones divided by it. It is
        undone outside: reconstructions and scores are in the units of X.

    solver : str or Optimizer, default='adam'
        How the loss is minimised: 'adadelta', 'adagrad', 'adam', 'adamw', 'rmsprop',
        'sgd' or 'lbfgs'. The last uses all rows at each step and cannot be
        used with a penalty of 'gated' or 'jumprelu'.

    batch_size : int or 'auto', default='auto'
        Rows in a minibatch; all rows if there are fewer. 'auto' is a 32nd of the rows,
        but at least 32 and at most 256; for 'kl' without a memory, at least
        ``4 * (1 - sparsity_target) / sparsity_target``, but for its sake no more than
        1000. The short last batch is kept.

    learning_rate : str, default='adaptive'
        Course of the learning rate.

        - 'constant' stays at `learning_rate_init`;
        - 'invscaling' divides it by ``epoch ** power_t``;
        - 'adaptive' divides it by 5 each time the loss has not fallen by `tol` for
          `n_iter_no_change` epochs, up to five times;
        - 'cosine' lets it fall to zero over `max_iter` epochs, and then stops; only
          early stopping may end it before.

    learning_rate_init : float, default=0.005
        Initial learning rate. Ignored by 'lbfgs'; 'adadelta' wants a rate of about 1.

    power_t : float, default=0.5
        Exponent of 'invscaling'.

    max_iter : int, default=300
        Largest number of epochs (of iterations for 'lbfgs').

    shuffle : bool, default=True
        Whether each epoch visits the rows in an order of its own.

    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of rows, the split for early stopping
        and the resampling of dead units. Pass an int for reproducible results; None
        draws a seed from the operating system and leaves NumPy's global state alone.

    tol : float, default=1e-4
        The least progress that counts, in nats per row. 'lbfgs' also stops when no
        entry of the gradient is larger.

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

    n_iter_no_change : int or numpy.inf, default=10
        Epochs without progress after which training stops or, with 'adaptive', slows
        down. With infinity, training goes on for `max_iter` epochs.

    max_fun : int, default=15000
        Largest number of evaluations for 'lbfgs'.

    checkpoint : str, path-like, Checkpoint or None, default=None
        File to which `fit` writes its complete state, once a minute or as a
        :class:`~skae.checkpoints.Checkpoint` says. If it is there, `fit` goes on from
        it, and ends as if it had not been interrupted. Not for 'lbfgs'.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Direction in which each unit moves the decoder's output, in units of X for
        real-valued columns. Only without hidden layers.

    density_ : ndarray of shape (n_components,)
        How often each unit fires: the fraction of the training rows, or of their
        weight, in which it is not zero. For 'kl', the mean activation.

    n_dead_ : int
        Units that fire for no training row; for 'kl' none, as no unit is ever zero.
        After `partial_fit` this and `density_` are those of the newest chunk.

    thresholds_ : ndarray of shape (n_components,) or None
        Encoder outputs above which each unit fires, for 'batchtopk', 'jumprelu' and
        'gated'. None for other penalties.

    coefs_ : list of ndarray of shape (n_inputs, n_outputs)
        Weights of each layer, the encoder's first, as views: writing to them changes
        the model.

    intercepts_ : list of ndarray of shape (n_outputs,)
        Biases of each layer, the encoder's first.

    distribution_ : str, Distribution or list of tuple
        The distribution of each column; what 'auto' chose. It can be given as
        `distribution`.

    noise_variance_ : ndarray of shape (n_features,) or None
        Variance of each real-valued column around its reconstruction, in squared units
        of X (for other families than the Gaussian, the square of their scale). NaN for
        columns without such a scale, None if no column has one.

    loss_ : float
        Training loss of the last epoch, in nats per row.

    best_loss_ : float or None
        Smallest training loss, epochs of `sparsity_warm_up` aside. None with
        ``early_stopping=True``.

    loss_curve_ : list of float
        Training loss of each epoch; it goes on through warm starts and `partial_fit`.

    reconstruction_curve_ : list of float
        Part of the loss: the mean of minus log p(x | code) of each epoch, over the
        leading parts of a nested code, too.

    sparsity_curve_ : list of float
        Part of the loss, before it is multiplied by `sparsity_weight`: what the codes
        of each epoch cost.

    validation_scores_ : list of float or None
        With early stopping, minus the loss of the held-out rows, after each epoch;
        of the whole code, auxiliary losses and the penalty on weights aside.

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
    DenoisingAutoencoder : A code without a penalty.
    StackedAutoencoder : Several levels, of which the first may have a penalty.
    sklearn.decomposition.DictionaryLearning : Sparse codes by optimisation, one problem
        for each row.
    sklearn.decomposition.MiniBatchDictionaryLearning : The same, faster.

    Notes
    -----
    Codes do not depend on the rows that they are computed with: of equal units the
    first ones count as larger, and the threshold of 'batchtopk' lies half-way between
    two values. Where a last bit could decide whether a unit fires, the encoder's
    products are held to one thread, so that the number of threads decides nothing.

    Unless ``shuffle=False``, rows are first put in an order that depends on their
    content alone: shuffling X changes nothing.

    The log-likelihood is that of a row given its own code.

    References
    ----------
    .. [1] Ng, A. (2011). Sparse autoencoder. CS294A lecture notes, Stanford.
    .. [2] Bricken, T. et al. (2023). Towards monosemanticity: decomposing language
       models with dictionary learning. Transformer Circuits Thread.
    .. [3] Yang, H., Wen, W. & Li, H. (2020). DeepHoyer: learning sparser neural network
       with differentiable scale-invariant sparsity measures. ICLR.
    .. [4] Makhzani, A. & Frey, B. (2014). k-sparse autoencoders. ICLR.
    .. [5] Gao, L. et al. (2025). Scaling and evaluating sparse autoencoders. ICLR.
    .. [6] Bussmann, B., Leask, P. & Nanda, N. (2024). BatchTopK sparse autoencoders.
       arXiv:2412.06410.
    .. [7] Rajamanoharan, S. et al. (2024). Jumping ahead: improving reconstruction
       fidelity with JumpReLU sparse autoencoders. arXiv:2407.14435.
    .. [8] Rajamanoharan, S. et al. (2024). Improving dictionary learning with gated
       sparse autoencoders. arXiv:2404.16014.
    .. [9] Bussmann, B. et al. (2025). Learning multi-level features with Matryoshka
       sparse autoencoders. ICML.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import SparseAutoencoder
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = SparseAutoencoder(100, k=5, sparse_output=True, random_state=0).fit(X)
    >>> codes = model.transform(X)
    >>> codes.shape
    (1797, 100)
    >>> int(codes.getnnz(axis=1).max())
    5
    >>> model.components_.shape
    (100, 64)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseAutoencoder._parameter_constraints,
        "n_components": [POSITIVE_INT, None],
        "code_activation": [StrOptions({"auto", *ACTIVATIONS})],
        "penalty": [StrOptions(set(PENALTIES)), Penalty],
        "k": [POSITIVE_INT, None],
        "sparsity_target": [OPEN_FRACTION],
        "sparsity_weight": [NON_NEGATIVE],
        "sparsity_warm_up": [Interval(Integral, 0, None, closed="left")],
        "nested_sizes": [StrOptions({"auto"}), "array-like", None],
        "revival": [StrOptions({"auxiliary", "resampling"}), None],
        "dead_after": [POSITIVE],
        "unit_norm": ["boolean", StrOptions({"auto"})],
        "decoder_bias_init": [StrOptions({"geometric_median", "mean", "zero"})],
        "transform_n_components": [POSITIVE_INT, None],
        "sparse_output": ["boolean"],
        "tied_weights": ["boolean"],
    }

    _cost_curve = "sparsity_curve_"

    _fitted_penalty: str
    density_: Array
    n_dead_: int

    def __init__(
        self,
        n_components: int | None = None,
        *,
        hidden_layer_sizes: ArrayLike = (),
        activation: str | None = None,
        code_activation: str = "auto",
        penalty: str | Penalty = "topk",
        k: int | None = None,
        sparsity_target: float = 0.1,
        sparsity_weight: float = 1.0,
        sparsity_warm_up: int = 0,
        nested_sizes: Literal["auto"] | ArrayLike | None = None,
        revival: Literal["resampling", "auxiliary"] | None = "resampling",
        dead_after: float = 2.0,
        unit_norm: bool | Literal["auto"] = "auto",
        decoder_bias_init: Literal["mean", "geometric_median", "zero"] = "mean",
        transform_n_components: int | None = None,
        sparse_output: bool = False,
        distribution: str | Distribution | list[Any] = "gaussian",
        tied_weights: bool = False,
        alpha: float = 1e-4,
        standardize: bool = True,
        solver: str | Optimizer = "adam",
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: str = "adaptive",
        learning_rate_init: float = 0.005,
        power_t: float = 0.5,
        max_iter: int = 300,
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
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        checkpoint: str | PathLike[str] | Checkpoint | None = None,
    ) -> None:
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.code_activation = code_activation
        self.penalty = penalty
        self.k = k
        self.sparsity_target = sparsity_target
        self.sparsity_weight = sparsity_weight
        self.sparsity_warm_up = sparsity_warm_up
        self.nested_sizes = nested_sizes
        self.revival = revival
        self.dead_after = dead_after
        self.unit_norm = unit_norm
        self.decoder_bias_init = decoder_bias_init
        self.transform_n_components = transform_n_components
        self.sparse_output = sparse_output
        self.distribution = distribution
        self.tied_weights = tied_weights
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
        self.max_fun = max_fun
        self.checkpoint = checkpoint

    # --- the parts that make it sparse ----------------------------------------------

    def _bottleneck(self) -> SparseCode:
        return SparseCode(self._penalty(np.inf), self._sizes())

    def _penalty(self, epoch: float) -> Penalty:
        """Return the penalty of an epoch, counted from one."""
        n, k = int(self._plan["down"][-1]), self.k
        settings = {"sparsity_target": self.sparsity_target}
        settings["k"] = max(1, round(self.sparsity_target * n)) if k is None else k
        penalty: Penalty = resolve(self.penalty, PENALTIES, **settings)
        validate_parameters(penalty)
        if type(penalty).__name__ != self._fitted_penalty:
            raise ValueError(
                f"penalty={self.penalty!r} is not what the model was fitted with, "
                f"{self._fitted_penalty}: use fit with warm_start=False."
            )
        if epoch < self.sparsity_warm_up and hasattr(penalty, "k"):
            slack = (n / penalty.k) ** (1.0 - epoch / self.sparsity_warm_up)
            penalty = clone(penalty).set_params(k=round(slack * penalty.k))
        return penalty

    @property
    def _kind(self) -> Penalty:
        """The penalty, whatever the size of the code."""
        target = self.sparsity_target
        return resolve(self.penalty, PENALTIES, sparsity_target=target)

    def _sizes(self) -> tuple[int, ...]:
        """Return the sizes of the code's leading parts, the whole aside."""
        n, sizes = int(self._plan["down"][-1]), self.nested_sizes
        if sizes is None:
            return ()
        if isinstance(sizes, str):
            halves = {n >> i for i in range(1, 5)}
            return tuple(sorted(halves - {0}))
        sizes = check_sizes(sizes, "nested_sizes", f"between 1 and n_components={n}")
        if max(sizes, default=0) > n:
            raise ValueError(
                f"nested_sizes={self.nested_sizes!r} must not exceed n_components={n}."
            )
        return tuple(sorted({*sizes} - {n}))

    def _beta(self, epoch: float) -> float:
        rising = epoch / self.sparsity_warm_up if epoch < self.sparsity_warm_up else 1
        return float(self.sparsity_weight * rising)

    def _change(self, trainer: Trainer, epoch: int) -> None:
        """Let the penalty come in, and dead units learn, if they shall."""
        super()._change(trainer, epoch)
        n_revived = 0
        if self.revival == "auxiliary" and self._dead(trainer).any():
            n_revived = max(1, round(REVIVED * trainer.objective.n_features))
        code = self._penalty(epoch), self._sizes(), n_revived, self._patience(trainer)
        trainer.change(bottleneck=SparseCode(*code))

    def _renew(
        self, trainer: Trainer, epoch: int, drops: int, moments: Moments
    ) -> bool:
        """Let dead units begin anew, if they shall."""
        dead = self._dead(trainer)
        # New units need time to learn, and a learning rate to do so.
        endless = getattr(self, "_memory", None) is not None
        early = endless or (drops == 0 and epoch <= self.max_iter // 2)
        resampled = bool(dead.any() and early and self.revival == "resampling")
        if resampled:
            resample(trainer, moments, dead)
        return resampled

    def _patience(self, trainer: Trainer) -> float:
        """Return after how many rows without firing a unit counts as dead."""
        return float(self.dead_after * trainer.n_rows)

    def _dead(self, trainer: Trainer) -> Array:
        """Return which units are dead."""
        return np.asarray(trainer.params.own[-1] >= self._patience(trainer))

    def _monitor(self, held_out: Rows | None) -> Monitor:
        monitor = super()._monitor(held_out)
        monitor.patience_from = self.sparsity_warm_up
        return monitor

    def _rows_per_step(self, n_rows: int) -> int:
        """Return the batch size; with "auto", means over a batch are accurate."""
        size, fewest = super()._rows_per_step(n_rows), self._kind.fewest_rows
        if self.batch_size == "auto":
            return max(size, min(MOST_POOLED, int(np.ceil(fewest))))
        return size

    def _code_size(self, n_features: int) -> int:
        if self.n_components is None:
            return 2 * n_features
        return super()._code_size(n_features)

    def _code_activation(self, hidden: list[int]) -> str:
        kind = self._kind
        if self.code_activation == "auto":
            return kind.code_activation
        if self.code_activation not in kind.activations:
            fit = " or ".join(map(repr, sorted(kind.activations)))
            raise ValueError(
                f"penalty={self.penalty!r} needs code_activation={fit}, got "
                f"{self.code_activation!r}."
            )
        return self.code_activation

    def _has_unit_norm(self) -> bool:
        """Tell whether the decoder's directions have length one."""
        if self.unit_norm == "auto":
            free = self.tied_weights or self.solver == "lbfgs"
            return self._kind.compares_sizes and not free
        return bool(self.unit_norm)

    def _options(self) -> dict[str, Any]:
        return {"unit_norm": self._has_unit_norm()}

    def _prepare(
        self, rows: Rows, family: Any, columns: Columns, rng: Generator, keep: bool
    ) -> Any:
        if not (keep and hasattr(self, "_theta")):
            self._fitted_penalty = type(self._kind).__name__
        return super()._prepare(rows, family, columns, rng, keep)

    def _new_plan(self, n_features: int, family: Any) -> Plan:
        plan = super()._new_plan(n_features, family)
        n, kind = plan.n_components, self._kind
        k = self.k if isinstance(self.penalty, str) else getattr(kind, "k", None)
        if hasattr(kind, "k") and k is not None:
            check_count(k, "k")
            if k > n:
                raise ValueError(f"k={k} must be at most n_components={n}.")
        check_cut(self.transform_n_components, n)
        if self.solver == "lbfgs":
            self._check_lbfgs()
        return plan

    def _check_lbfgs(self) -> None:
        """Refuse what has no gradient over all rows."""
        check_differentiable(self._kind, self.penalty)
        if self.unit_norm is True:
            raise ValueError("solver='lbfgs' cannot be used with unit_norm=True.")

    def _start(self, model: Model, rows: Rows) -> None:
        """Let the encoder's weights be the decoder's directions at first."""
        objective, theta = model.objective, model.theta
        directions = objective.decoder.layers[0].weight.of(theta)
        if self._has_unit_norm():
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        if self._kind.compares_sizes:
            if len(model.plan.up) == 2:  # of several outputs for a column, the mean
                directions = directions[:, model.mean_outputs()]
            objective.encoder.layers[-1].weight.of(theta)[...] = directions.T
        if self.decoder_bias_init != "mean":
            is_zero = self.decoder_bias_init == "zero"
            center = np.zeros(rows.X.shape[1]) if is_zero else geometric_median(rows)
            n_rows = model.columns.n_rows
            bias, _ = model.family.start(center, model.variance, n_rows)
            objective.decoder.layers[-1].bias.of(theta)[...] = bias

    # --- what a fit reports ---------------------------------------------------------

    def _finish(self, rows: Rows) -> None:
        """Find how often each unit fires."""
        self.density_, count = self._model().firing(rows)
        self.n_dead_ = int(np.count_nonzero(count < 1.0))

    def _advise(self, n_rows: int) -> None:
        """Warn of small batches and of many dead units."""
        fewest, n_batch = self._kind.fewest_rows, self._rows_per_step(n_rows)
        if self.solver != "lbfgs" and n_batch < min(fewest, n_rows):
            warnings.warn(
                f"penalty={self.penalty!r} takes the mean activation over batches of "
                f"{n_batch} rows, where it is not accurate: use batch_size="
                f"{int(np.ceil(fewest))} or more, or a penalty=KLDivergence(...) with "
                f"a memory, such as memory=1000.",
                stacklevel=4,
            )
        if 2 * self.n_dead_ > len(self.density_):
            warnings.warn(
                f"{self.n_dead_} of {len(self.density_)} units fire for no row. Choose "
                f"a smaller n_components, or train longer (max_iter={self.max_iter}).",
                stacklevel=4,
            )

    @property
    def components_(self) -> Array:
        """Direction in which each unit moves the decoder's output."""
        self._check_has_numbers()
        if len(self._plan["up"]) > 2:
            raise AttributeError(
                f"components_ needs a decoder without hidden layers, but "
                f"hidden_layer_sizes={self.hidden_layer_sizes!r}."
            )
        return self._model().directions()

    @property
    def thresholds_(self) -> Array | None:
        """Encoder outputs above which each unit fires; None if there are none."""
        self._check_has_numbers()
        model = self._model()
        return model.bottleneck.thresholds(model.own)

    # --- codes ------------------------------------------------------------------------

    def transform(self, X: ArrayLike) -> Array | sparse.csr_matrix:
        """Return the code of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        X_new : {ndarray, csr_matrix} of shape (n_samples, n_components)
            The codes, in the floating-point type of X: a CSR matrix with
            ``sparse_output=True``, and only the first `transform_n_components` units
            if that is given.
        """
        data, n, model = self._check_fitted_rows(X), self._n_features_out, self._model()
        if self.sparse_output:
            return model.encode_sparse(data, n)
        return model.encode(data, n)

    def _check_codes(
        self, codes: Any, name: str, accept_sparse: str | bool = False
    ) -> Any:
        """Validate codes, and fill them up with zeros."""
        z, n = check_codes(codes, name, accept_sparse), int(self._plan["down"][-1])
        if z.shape[1] > n:
            raise ValueError(
                f"{name} has {z.shape[1]} columns, but codes have at most "
                f"n_components={n} columns."
            )
        if sparse.issparse(z):
            return sparse.csr_matrix((z.data, z.indices, z.indptr), (z.shape[0], n))
        return np.pad(z, ((0, 0), (0, n - z.shape[1])))

    @property
    def _n_features_out(self) -> int:
        n = int(self._plan["down"][-1])
        check_cut(self.transform_n_components, n)
        return self.transform_n_components or n


def check_cut(n_kept: int | None, n_components: int) -> None:
    """Refuse to return more units than there are."""
    if n_kept is None:
        return
    check_count(n_kept, "transform_n_components")
    if n_kept > n_components:
        raise ValueError(
            f"transform_n_components={n_kept} must be at most n_components="
            f"{n_components}."
        )
