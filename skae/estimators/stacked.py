"""The stacked autoencoder: a deep network that learns level by level."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from numpy.random import Generator, RandomState
from numpy.typing import ArrayLike

from skae.checkpoints import Checkpoint
from skae.corruptions import Corruption
from skae.distributions import Distribution
from skae.estimators._mlp import autoencoder_mlp
from skae.estimators._stack import BaseStack
from skae.estimators._watch import FitWatch
from skae.layout import Array
from skae.model import Model
from skae.network import Dense
from skae.optimizers import Optimizer
from skae.penalties import Penalty
from skae.rows import Rows
from skae.training import Monitor, Trainer

if TYPE_CHECKING:
    from sklearn.neural_network import MLPRegressor

__all__ = ["StackedAutoencoder"]


class StackedAutoencoder(BaseStack):
    r"""Deep autoencoder whose layers learn one after the other.

    Level :math:`k` is one layer of the encoder with the layer of the decoder that
    mirrors it. It learns to reconstruct :math:`h_{k-1}`, the clean code of the level
    below, from a damaged one, by minimising

    .. math:: \frac{1}{\sum_i w_i} \sum_i w_i \,
              \ell_k\bigl(h_{k-1}(x_i), g_k(f_k(\tilde h_{k-1}(x_i)))\bigr)
              + \frac{\alpha}{2} \lVert W_k, V_k \rVert^2 ,

    in nats per row, where :math:`W_k` and :math:`V_k` are the weights of the two
    layers, while all other levels stay as they are [1]_, [2]_. At the first
    level :math:`h_0` is the row itself and :math:`\ell_1` its negative log-likelihood.
    Above it is the cross-entropy for logistic units and the squared error for all
    others. Then the whole network is trained together, as a
    :class:`DenoisingAutoencoder` is.

    Read more in the :ref:`User Guide <stacked>`.

    Parameters
    ----------
    n_components : int, default=2
        Number of units of the code, that is of the last level.

    hidden_layer_sizes : int or array-like of int, default=(100,)
        Widths of the levels below the code, outermost first. The decoder mirrors them.

    activation : str, default=None
        Activation of the hidden layers: 'elu', 'identity', 'leaky_relu', 'logistic',
        'relu', 'selu', 'softplus', 'softsign' or 'tanh'. None stands for 'tanh'.

    code_activation : str, default='auto'
        Activation of the code: one of those above, or 'auto', which is the identity.

    corruption : str or Corruption, default='masking'
        The damage done to the input of each level while it is pretrained, drawn anew
        for every row in every epoch: 'gaussian', 'masking', 'none', 'salt_and_pepper'
        or 'swap', as in :class:`DenoisingAutoencoder`. Levels above the first have the
        clean code below as their input, and it is damaged alike.

    corruption_level : float or array-like of float, default=0.05
        Probability that an entry is replaced, in [0, 1]; for 'gaussian', the standard
        deviation of the noise. One value for all levels, or one for each of them.

    penalty : str or Penalty, default=None
        What makes the first level's code sparse while it is pretrained: 'batchtopk',
        'gated', 'hoyer', 'jumprelu', 'kl', 'l1' or 'topk', as in
        :class:`SparseAutoencoder`. The penalty shapes the weights that the level ends
        with; it has no part in the network afterwards.

    sparsity_target : float, default=0.1
        For 'kl' the mean activation wanted, for 'topk' and 'batchtopk' the fraction of
        the first level's units that fire. A Penalty has settings of its own.

    sparsity_weight : float, default=1.0
        What the cost of the first level's code counts in its loss.

    pretraining_max_iter : int or array-like of int, default=10
        Largest number of epochs for each level (of iterations for 'lbfgs'): one value
        for all levels, or one for each of them. With zero a level keeps the weights
        that it starts from.

    pretraining_learning_rate_init : float or array-like of float, default=0.005
        Initial learning rate for each level, likewise. It follows the same
        `learning_rate` schedule as fine-tuning does.

    fine_tune : bool, default=True
        Whether, after the levels, the whole network is trained together, on input that
        is damaged as the first level's is.

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
        'sgd' or 'lbfgs'. The last uses all rows at each step and needs
        objectives without randomness, that is ``corruption_level=0``.

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

    learning_rate_init : float, default=0.001
        Initial learning rate of fine-tuning. Ignored by 'lbfgs'; 'adadelta' wants a
        rate of about 1.

    power_t : float, default=0.5
        Exponent of 'invscaling'.

    max_iter : int, default=300
        Largest number of epochs of fine-tuning (of iterations for 'lbfgs').

    shuffle : bool, default=True
        Whether each epoch visits the rows in an order of its own.

    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of rows, the split for early stopping
        and the corruption. Pass an int for reproducible results; None draws a seed
        from the operating system and leaves NumPy's global state alone.

    tol : float, default=1e-4
        The least progress that counts, in nats per row. 'lbfgs' also stops when no
        entry of the gradient is larger.

    verbose : bool, default=False
        Whether to print the loss of each epoch.

    warm_start : bool, default=False
        Whether `fit` starts from the parameters of the fit before; levels are then not
        pretrained again, unless there is no fine-tuning.

    momentum : float, default=0.9
        Momentum of 'sgd', in [0, 1).

    nesterovs_momentum : bool, default=True
        Whether 'sgd' uses Nesterov's momentum.

    early_stopping : bool, default=False
        Whether to hold out rows from all stages, watch their loss in fine-tuning
        instead of the training loss, and keep the parameters with which it was
        smallest. It has no use without fine-tuning.

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
        Smallest training loss of fine-tuning. None with ``early_stopping=True`` or
        without fine-tuning.

    loss_curve_ : dict of {str: list of float}
        Training loss of each epoch, for the stages 'level 1', 'level 2' and so on, and
        'fine-tuning'. Stages without epochs are absent.

    validation_scores_ : list of float or None
        With early stopping, minus the loss of the held-out rows, not corrupted, after
        each epoch of fine-tuning.

    best_validation_score_ : float or None
        The largest validation score of the last fit.

    n_iter_ : int
        Epochs of fine-tuning in the last fit; without fine-tuning, of pretraining.

    t_ : int
        Rows seen in training, over all epochs of all stages.

    n_features_in_ : int
        Number of columns seen in fit.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns. Defined only when X has column names that are all strings.

    See Also
    --------
    StackedAutoencoderClassifier : The pretrained encoder with a softmax on top.
    StackedAutoencoderRegressor : The pretrained encoder with a linear layer on top.
    DenoisingAutoencoder : All layers at once; the same network if no level has epochs.

    Notes
    -----
    With ``pretraining_max_iter=0`` the fit is that of a :class:`DenoisingAutoencoder`
    of the same sizes, `learning_rate_init` and `random_state`, bit for bit. Since
    modern optimisers and initial weights train deep networks as they are, pretraining
    seldom pays for the epochs it takes; the user guide measures it.

    References
    ----------
    .. [1] Bengio, Y., Lamblin, P., Popovici, D. & Larochelle, H. (2007). Greedy
       layer-wise training of deep networks. NIPS.

    .. [2] Vincent, P., Larochelle, H., Lajoie, I., Bengio, Y. & Manzagol, P.-A. (2010).
       Stacked denoising autoencoders: learning useful representations in a deep network
       with a local denoising criterion. JMLR, 11, 3371-3408.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skae import StackedAutoencoder
    >>> X, _ = load_digits(return_X_y=True)
    >>> stack = StackedAutoencoder(8, hidden_layer_sizes=(32,), random_state=0,
    ...                            pretraining_max_iter=10, max_iter=10,
    ...                            n_iter_no_change=np.inf).fit(X)
    >>> stack.transform(X).shape
    (1797, 8)
    >>> [(stage, len(losses)) for stage, losses in stack.loss_curve_.items()]
    [('level 1', 10), ('level 2', 10), ('fine-tuning', 10)]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseStack._parameter_constraints,
        "fine_tune": ["boolean"],
    }

    def __init__(
        self,
        n_components: int = 2,
        *,
        hidden_layer_sizes: ArrayLike = (100,),
        activation: str | None = None,
        code_activation: str = "auto",
        corruption: str | Corruption = "masking",
        corruption_level: float | ArrayLike = 0.05,
        penalty: str | Penalty | None = None,
        sparsity_target: float = 0.1,
        sparsity_weight: float = 1.0,
        pretraining_max_iter: int | ArrayLike = 10,
        pretraining_learning_rate_init: float | ArrayLike = 0.005,
        fine_tune: bool = True,
        distribution: str | Distribution | list[Any] = "gaussian",
        tied_weights: bool = False,
        alpha: float = 1e-4,
        standardize: bool = True,
        solver: str | Optimizer = "adam",
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: str = "adaptive",
        learning_rate_init: float = 0.001,
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
        self.corruption = corruption
        self.corruption_level = corruption_level
        self.penalty = penalty
        self.sparsity_target = sparsity_target
        self.sparsity_weight = sparsity_weight
        self.pretraining_max_iter = pretraining_max_iter
        self.pretraining_learning_rate_init = pretraining_learning_rate_init
        self.fine_tune = fine_tune
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

    def _code_activation(self, hidden: list[int]) -> str:
        return "identity" if self.code_activation == "auto" else self.code_activation

    def _head(self, model: Model) -> Dense | None:
        return None

    def _split(self, index: Array, rng: Generator) -> tuple[Array, Array | None]:
        return super()._split(index, rng) if self.fine_tune else (index, None)

    def _train(
        self, trainer: Trainer, held_out: Rows | None, watch: FitWatch
    ) -> Monitor:
        """Pretrain the levels of a new model; fine-tune them together."""
        if not (self.fine_tune or any(self._epochs())):
            raise ValueError(
                f"fine_tune=False and pretraining_max_iter="
                f"{self.pretraining_max_iter!r} leave nothing to train."
            )
        if not (self.loss_curve_ and self.fine_tune):
            self._pretrain(trainer, watch)
        if self.fine_tune and not watch.is_stopped:
            return super()._train(trainer, held_out, watch)
        return self._monitor(None)

    def _n_tasks(self) -> int:
        return super()._n_tasks() - (not self.fine_tune)

    def to_mlp(self) -> MLPRegressor:
        """Return a scikit-learn network that reconstructs rows as this stack does.

        Returns
        -------
        mlp : MLPRegressor
            Its `predict` is ``inverse_transform(transform(X))`` up to rounding; X is
            not standardized before. With its ``warm_start=True``, `fit` goes on from
            these weights.

        Raises
        ------
        ValueError
            If scikit-learn's network cannot compute the same: it has one activation out
            of 'identity', 'logistic', 'relu' and 'tanh', and linear outputs.
        """
        return autoencoder_mlp(self)
