"""The denoising autoencoder: damage the input, learn to repair it."""

from __future__ import annotations

from os import PathLike
from typing import Any, ClassVar, Literal

from numpy.random import RandomState
from numpy.typing import ArrayLike

from skae._validation import NON_NEGATIVE, StrOptions
from skae.activations import ACTIVATIONS
from skae.bottlenecks import Bottleneck, Deterministic
from skae.checkpoints import Checkpoint
from skae.corruptions import CORRUPTIONS, Corruption
from skae.distributions import Distribution
from skae.estimators._base import BaseAutoencoder, checked_corruption
from skae.optimizers import Optimizer

__all__ = ["DenoisingAutoencoder"]


class DenoisingAutoencoder(BaseAutoencoder):
    r"""Autoencoder that learns to undo a random damage of its input.

    An encoder maps a damaged row to a code, a decoder maps the code to the
    distribution of the clean row. Both are learnt by minimising

    .. math:: \frac{1}{\sum_i w_i} \sum_i w_i \,
              \bigl[-\log p(x_i \mid \eta(\tilde x_i))\bigr]
              + \frac{\alpha}{2} \lVert W \rVert^2 ,

    in nats per row, where :math:`\tilde x` is the corrupted row and :math:`\eta` the
    decoder's output [1]_. With ``corruption_level=0`` this is the plain autoencoder.
    Rows given to the fitted model are not corrupted. Without hidden layers and without
    an `activation` the model is linear, as PCA is.

    Read more in the :ref:`User Guide <denoising>`.

    Parameters
    ----------
    n_components : int, default=2
        Number of units of the code.

    hidden_layer_sizes : int or array-like of int, default=()
        Widths of the encoder's layers between the input and the code, outermost first.
        The decoder mirrors them.

    activation : str, default=None
        Activation of the hidden layers: 'elu', 'identity', 'leaky_relu', 'logistic',
        'relu', 'selu', 'softplus', 'softsign' or 'tanh'. None stands for 'tanh'.

    code_activation : str, default='auto'
        Activation of the code: one of those above, or 'auto'. That is the identity,
        except where there are no hidden layers but an `activation` is given: then the
        code has it. The decoder's output is always linear.

    corruption : str or Corruption, default='masking'
        The damage, drawn anew for every row in every epoch.

        - 'masking' sets entries to zero, which is the mean of a standardized column,
          without rescaling the others;
        - 'gaussian' adds normal noise to every entry;
        - 'salt_and_pepper' sets entries to the smallest or the largest value of their
          column;
        - 'swap' replaces entries by those of other rows in the same column;
        - 'none' leaves rows as they are, whatever the level.

    corruption_level : float, default=0.05
        Probability that an entry is replaced, in [0, 1]; for 'gaussian', the standard
        deviation of the noise, in standard deviations of the column (in units of X
        where columns are not standardized).

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
        'sgd' or 'lbfgs'. The last uses all rows at each step and needs an
        objective without randomness, that is ``corruption_level=0``.

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
        and the corruption. Pass an int for reproducible results; None draws a seed
        from the operating system and leaves NumPy's global state alone.

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
        Smallest training loss. None with ``early_stopping=True``.

    loss_curve_ : list of float
        Training loss of each epoch; it goes on through warm starts and `partial_fit`.

    validation_scores_ : list of float or None
        With early stopping, minus the loss of the held-out rows, not corrupted, after
        each epoch.

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
    StackedAutoencoder : The same network, pretrained layer by layer.
    VariationalAutoencoder : A random code, and the likelihood log p(x).
    sklearn.decomposition.PCA : The linear autoencoder in closed form.
    sklearn.decomposition.FactorAnalysis : Linear, with a noise variance per column.
    sklearn.neural_network.BernoulliRBM : A different model of binary data.

    Notes
    -----
    Unless ``shuffle=False``, rows are first put in an order that depends on their
    content alone: shuffling X changes nothing. Where all rows make one batch and are
    not corrupted, or are at most 256, a row of weight two and a row given twice are the
    same to the last bit.

    The log-likelihood is that of a row given its own code. It grows with
    `n_components`: compare models on held-out rows and, against other methods, at
    equal size of the code.

    References
    ----------
    .. [1] Vincent, P., Larochelle, H., Bengio, Y. & Manzagol, P.-A. (2008).
       Extracting and composing robust features with denoising autoencoders. ICML.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import DenoisingAutoencoder
    >>> X, _ = load_digits(return_X_y=True)
    >>> autoencoder = DenoisingAutoencoder(8, random_state=0).fit(X)
    >>> autoencoder.transform(X).shape
    (1797, 8)
    >>> autoencoder.score_samples(X).shape
    (1797,)
    >>> autoencoder.get_feature_names_out()[:2]
    array(['denoisingautoencoder0', 'denoisingautoencoder1'], dtype=object)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseAutoencoder._parameter_constraints,
        "code_activation": [StrOptions({"auto", *ACTIVATIONS})],
        "tied_weights": ["boolean"],
        "corruption": [StrOptions(set(CORRUPTIONS)), Corruption],
        "corruption_level": [NON_NEGATIVE],
    }

    def __init__(
        self,
        n_components: int = 2,
        *,
        hidden_layer_sizes: ArrayLike = (),
        activation: str | None = None,
        code_activation: str = "auto",
        corruption: str | Corruption = "masking",
        corruption_level: float = 0.05,
        distribution: str | Distribution = "gaussian",
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
        self.corruption = corruption
        self.corruption_level = corruption_level
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

    def _bottleneck(self) -> Bottleneck:
        return Deterministic()

    def _code_activation(self, hidden: list[int]) -> str:
        if self.code_activation != "auto":
            return self.code_activation
        return "identity" if hidden else self.activation or "identity"

    def _corruption(self) -> tuple[Corruption, float]:
        return checked_corruption(self.corruption, self.corruption_level)
