"""A regressor on top of a stack of autoencoders."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.utils import Tags, check_array, check_consistent_length, column_or_1d

from skae._validation import check_units
from skae.checkpoints import Checkpoint
from skae.corruptions import Corruption
from skae.distributions import Distribution, SquaredError
from skae.estimators._mlp import regressor_mlp
from skae.estimators._supervised import BaseSupervisedStack, Labels
from skae.layout import Array
from skae.optimizers import Optimizer
from skae.penalties import Penalty
from skae.rows import Columns, Rows

if TYPE_CHECKING:
    from sklearn.neural_network import MLPRegressor

__all__ = ["StackedAutoencoderRegressor"]


class StackedAutoencoderRegressor(RegressorMixin, BaseSupervisedStack):
    r"""Regressor: a stack's encoder, pretrained on all rows, and a linear layer on top.

    The levels are pretrained as those of a :class:`StackedAutoencoder`. Then a linear
    layer is put on the code :math:`z`, and all layers of the encoder learn with it by
    minimising

    .. math:: \frac{1}{\sum_i w_i} \sum_i w_i \sum_j
              \Bigl(\frac{y_{ij} - \hat y_{ij}}{s_j}\Bigr)^2
              + \frac{\alpha}{2} \Bigl( \sum_j \lVert W_j \rVert^2
              + \sum_k \lVert W_k \rVert^2 \Bigr) , \qquad
              \hat y_j = m_j + s_j (W_j^\top z(x) + b_j) ,

    where the last :math:`W_k` are the encoder's weights, and :math:`m_j` and
    :math:`s_j` are the mean and the standard deviation of target :math:`j` in training:
    the scale of the targets makes no difference [1]_. The decoder's parameters stay as
    pretraining has left them, to the last bit; with `tied_weights` only its biases are
    its own.

    Rows whose target is NaN serve pretraining only.

    Read more in the :ref:`User Guide <stacked>`.

    Parameters
    ----------
    n_components : int, default=100
        Number of units of the code, that is of the last level.

    hidden_layer_sizes : int or array-like of int, default=(100,)
        Widths of the levels below the code, outermost first. The decoder mirrors them.

    activation : str, default=None
        Activation of the hidden layers: 'elu', 'identity', 'leaky_relu', 'logistic',
        'relu', 'selu', 'softplus', 'softsign' or 'tanh'. None stands for 'tanh'.

    code_activation : str, default='auto'
        Activation of the code: one of those above, or 'auto', which is `activation`.

    corruption : str or Corruption, default='masking'
        The damage done to the input of each level while it is pretrained, drawn anew
        for every row in every epoch: 'gaussian', 'masking', 'none', 'salt_and_pepper'
        or 'swap', as in :class:`DenoisingAutoencoder`. Levels above the first have the
        clean code below as their input, and it is damaged alike.

    corruption_level : float or array-like of float, default=0.05
        Probability that an entry is replaced, in [0, 1]; for 'gaussian', the standard
        deviation of the noise. One value for all levels, or one for each of them.

    fine_tuning_corruption_level : float, default=0.0
        Likewise, for the rows that the labels are learnt from. With zero they are
        clean, as is usual; noise makes the network less sure of itself and often
        better on rows that it has not seen.

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

    freeze_encoder : bool, default=False
        Whether the pretrained encoder stays as it is and only the layer on top learns.
        The stack then still decodes: `inverse_transform`, `score_samples` and the like
        are available.

    distribution : str, Distribution or list of tuple, default='gaussian'
        Distribution of a row given its code; it decides the loss of the first level and
        what X may hold. See :class:`StackedAutoencoder` and :ref:`distributions`.

    tied_weights : bool, default=False
        Whether the decoder's weights are the encoder's, transposed. Biases are never
        tied.

    alpha : float, default=1e-2
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
        Rows in a minibatch; all rows if there are fewer. 'auto' is a 32nd of the rows
        that a stage trains on, but at least 32 and at most 256. The short last batch is
        kept.

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
        The least progress that counts, in the unit of the loss. 'lbfgs' also stops when
        no entry of the gradient is larger.

    verbose : bool, default=False
        Whether to print the loss of each epoch.

    warm_start : bool, default=False
        Whether `fit` starts from the parameters of the fit before; levels are then not
        pretrained again.

    momentum : float, default=0.9
        Momentum of 'sgd', in [0, 1).

    nesterovs_momentum : bool, default=True
        Whether 'sgd' uses Nesterov's momentum.

    early_stopping : bool, default=False
        Whether to hold out rows that have a target from all training, watch R^2 on
        them instead of the training loss, and keep the parameters with which it was
        largest.

    validation_fraction : float, default=0.1
        Fraction of the rows with a target that early stopping holds out.

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
    n_targets_ : int
        Number of targets.

    head_coef_ : ndarray of shape (n_components, n_targets)
        Weights of the layer on top, for targets in standard deviations, as a view.

    head_intercept_ : ndarray of shape (n_targets,)
        Its biases.

    coefs_ : list of ndarray of shape (n_inputs, n_outputs)
        Weights of each layer, the encoder's first, as views: writing to them changes
        the model.

    intercepts_ : list of ndarray of shape (n_outputs,)
        Biases of each layer, the encoder's first.

    distribution_ : str, Distribution or list of tuple
        The distribution of each column; what 'auto' chose. It can be given as
        `distribution`.

    loss_ : float
        Training loss of the last epoch, in squared standard deviations of the targets,
        summed over them.

    best_loss_ : float or None
        Smallest training loss of fine-tuning. None with ``early_stopping=True``.

    loss_curve_ : dict of {str: list of float}
        Training loss of each epoch, for the stages 'level 1', 'level 2' and so on, and
        'fine-tuning'. Stages without epochs are absent. Levels' losses are in nats per
        row.

    validation_scores_ : list of float or None
        With early stopping, R^2 of the held-out rows after each epoch of fine-tuning:
        one minus the mean squared error in units of the targets' variance in training,
        averaged over targets.

    validation_loss_curve_ : list of float or None
        With early stopping, the loss of the held-out rows after the same epochs, in
        squared standard deviations, summed over targets.

    best_validation_score_ : float or None
        The largest validation score of the last fit.

    n_iter_ : int
        Epochs of fine-tuning in the last fit.

    t_ : int
        Rows seen in training, over all epochs of all stages.

    n_features_in_ : int
        Number of columns seen in fit.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns. Defined only when X has column names that are all strings.

    See Also
    --------
    StackedAutoencoderClassifier : The same for classes.
    StackedAutoencoder : The stack without targets.
    sklearn.neural_network.MLPRegressor : The same network without pretraining.

    References
    ----------
    .. [1] Vincent, P., Larochelle, H., Lajoie, I., Bengio, Y. & Manzagol, P.-A. (2010).
       Stacked denoising autoencoders: learning useful representations in a deep network
       with a local denoising criterion. JMLR, 11, 3371-3408.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_diabetes
    >>> from skae import StackedAutoencoderRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = StackedAutoencoderRegressor(10, hidden_layer_sizes=(20,), max_iter=20,
    ...                                     n_iter_no_change=np.inf, random_state=0)
    >>> model.fit(X, y).score(X, y) > 0.4
    True
    """

    def __init__(
        self,
        n_components: int = 100,
        *,
        hidden_layer_sizes: ArrayLike = (100,),
        activation: str | None = None,
        code_activation: str = "auto",
        corruption: str | Corruption = "masking",
        corruption_level: float | ArrayLike = 0.05,
        fine_tuning_corruption_level: float = 0.0,
        penalty: str | Penalty | None = None,
        sparsity_target: float = 0.1,
        sparsity_weight: float = 1.0,
        pretraining_max_iter: int | ArrayLike = 10,
        pretraining_learning_rate_init: float | ArrayLike = 0.005,
        freeze_encoder: bool = False,
        distribution: str | Distribution | list[Any] = "gaussian",
        tied_weights: bool = False,
        alpha: float = 1e-2,
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
        self.fine_tuning_corruption_level = fine_tuning_corruption_level
        self.penalty = penalty
        self.sparsity_target = sparsity_target
        self.sparsity_weight = sparsity_weight
        self.pretraining_max_iter = pretraining_max_iter
        self.pretraining_learning_rate_init = pretraining_learning_rate_init
        self.freeze_encoder = freeze_encoder
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

    # --- targets ----------------------------------------------------------------------

    def _check_target(self, y: Any, seen: Array) -> Labels:
        y = check_array(
            y,
            ensure_2d=False,
            ensure_all_finite="allow-nan",
            dtype=np.float64,
            input_name="y",
        )
        check_consistent_length(seen, y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        table = y.reshape(len(y), -1)
        self._set_shape(y.ndim == 1, table.shape[1])
        unknown = np.isnan(table)
        known = ~unknown.any(axis=1)
        partly = np.flatnonzero(known == unknown.all(axis=1))
        if len(partly):
            raise ValueError(
                f"Row {partly[0]} of y is NaN in some targets, but not in all. Rows "
                f"whose targets are all NaN are unlabelled; others need them all."
            )
        place = np.where(known & seen, np.arange(len(y)), -1)
        content = np.column_stack([known, np.nan_to_num(table)])
        return Labels(table, place, content, np.zeros(len(y), int))

    def _set_shape(self, is_flat: bool, n_targets: int) -> None:
        """Set the shape of predictions for a row."""
        before = getattr(self, "n_targets_", n_targets)
        if self.warm_start and before != n_targets:
            raise ValueError(
                f"y has {n_targets} targets, but the fit to continue from had "
                f"{before}. Use fit with warm_start=False."
            )
        self._flat, self.n_targets_ = is_flat, n_targets

    def _standardized(
        self, labels: Labels, index: Array, weight: Array | None, dtype: np.dtype[Any]
    ) -> Array:
        """Return targets in standard deviations from their means."""
        if not (self.warm_start and hasattr(self, "_target_unit")):
            columns = Columns.of(Rows(labels.table, index, weight))
            check_units(columns, dtype, None, "Target")
            # A constant target is its value exactly, with nothing left to be learnt.
            mean = np.where(columns.constant, columns.low, columns.mean)
            self._target_mean, self._target_unit = mean, columns.unit
        table = (labels.table - self._target_mean) / self._target_unit
        return np.nan_to_num(table)

    @property
    def _target(self) -> Distribution:
        return SquaredError()

    def _rate_outputs(self, eta: Array, target: Array) -> Array:
        """Return one minus the mean squared error."""
        return np.asarray(1.0 - np.square(eta - target).mean(axis=1))

    # --- predictions ------------------------------------------------------------------

    def predict(self, X: ArrayLike) -> Array:
        """Return the prediction for each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to predict for.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_targets)
            In the units of the targets, and of the shape that they had in `fit`.
        """
        eta = self._outputs(X)
        eta *= self._target_unit.astype(eta.dtype)
        eta += self._target_mean.astype(eta.dtype)
        return eta.ravel() if self._flat else eta

    def score(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the coefficient of determination, R^2.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to predict for.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Their true targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        r2 : float
            One minus the squared error in units of the rows' own variance, averaged
            over targets; at most one.
        """
        return float(super().score(X, y, sample_weight))

    def to_mlp(self) -> MLPRegressor:
        """Return a scikit-learn network that predicts what this regressor does.

        Returns
        -------
        mlp : MLPRegressor
            Its predictions for X, which is not standardized before, are the same up to
            rounding. With its ``warm_start=True``, `fit` goes on from these weights.

        Raises
        ------
        ValueError
            If scikit-learn's network cannot compute the same: it has one activation out
            of 'identity', 'logistic', 'relu' and 'tanh', and sees X as it is.
        """
        return regressor_mlp(self)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.single_output = True
        tags.target_tags.multi_output = True
        return tags
