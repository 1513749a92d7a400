"""How all autoencoders are fitted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from functools import partial
from numbers import Real
from os import PathLike
from typing import Any, ClassVar, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning

from skae._validation import (
    FRACTION,
    NON_NEGATIVE,
    OPEN_FRACTION,
    POSITIVE,
    POSITIVE_INT,
    Options,
    StrOptions,
    _fit_context,
    check_sizes,
    check_support,
    check_units,
    check_weight,
    only_if,
)
from skae.activations import ACTIVATIONS
from skae.automatic import choose
from skae.checkpoints import Checkpoint
from skae.component import resolve
from skae.composite import as_distribution, plain
from skae.corruptions import CORRUPTIONS, Corruption, NoCorruption
from skae.crew import Crew, crew
from skae.distributions import DISTRIBUTIONS, Distribution
from skae.estimators._fitted import FittedAutoencoder, all_or_nothing, new_generator
from skae.estimators._watch import FitWatch, StageWatch, SupportsCallbacks
from skae.layout import Array
from skae.model import Model, Plan
from skae.optimizers import OPTIMIZERS, SCHEDULES, Moments, Optimizer
from skae.penalties import Penalty
from skae.rows import Columns, Rows, arrange, rows_of
from skae.training import (
    Course,
    DivergenceError,
    Monitor,
    Stopping,
    Trainer,
    descend,
    lbfgs,
)

__all__ = [
    "LOST",
    "BaseAutoencoder",
    "check_differentiable",
    "checked_corruption",
    "random_objective",
]

#: A fit has diverged if it costs so many nats per column, and twice what it costs to
#: predict the columns' means.
LOST = 2.0

#: Up to so many rows, equal rows share their corruption, so that a row of weight two
#: and a row given twice are the same; beyond, each row has its own.
MOST_SHARED = 256

#: What is worth a thread of its own in a step of training: rows of a batch, and their
#: number times that of the parameters. Below, threads that wait for each other cost
#: more than they bring, a hundred times more on a busy machine.
FEWEST_SHARED, LEAST_WORK = 16, 2**24

#: Fixed draws of a random code with which held-out rows are judged.
DRAWS = 4

#: What is called before each epoch; see `descend`.
Change = Callable[[int], Any]
Renew = Callable[[int, int, Moments], bool]

#: An epoch of rows that come in chunks is taken to have at least so many.
FEWEST_ROWS = 1000

#: The "adaptive" schedule divides the learning rate at most this often.
MOST_DROPS = 5


def random_objective(name: str = "corruption_level") -> ValueError:
    """Return the error of L-BFGS; the parameter `name` makes the objective random."""
    return ValueError(
        f"solver='lbfgs' needs an objective without randomness: set {name}=0, or "
        f"choose another solver."
    )


def checked_corruption(
    corruption: str | Corruption, level: float, name: str = "corruption_level"
) -> tuple[Corruption, float]:
    """Return a corruption and its level; zero if there is nothing random about it."""
    given, corruption = corruption, resolve(corruption, CORRUPTIONS)
    if float(level) not in corruption.levels:
        raise ValueError(
            f"{name}={level} is outside {corruption.levels}, the levels of "
            f"corruption={given!r}."
        )
    return corruption, float(level) if corruption.is_random else 0.0


def check_differentiable(penalty: Penalty, given: str | Penalty) -> None:
    """Refuse a penalty that has no gradient over all rows, which L-BFGS needs."""
    if not penalty.is_differentiable:
        raise ValueError(
            f"solver='lbfgs' needs the gradient of the loss over all rows, which "
            f"penalty={given!r} does not have: choose another solver or penalty."
        )


def can_continue(estimator: BaseAutoencoder, name: str) -> None:
    """Refuse to train from chunk to chunk where the solver needs all rows."""
    if estimator.solver == "lbfgs":
        raise AttributeError(f"{name} is not available with solver='lbfgs'.")
    if estimator.early_stopping:
        raise AttributeError(f"{name} is not available with early_stopping=True.")
    if not estimator._takes_chunks:
        kind = type(estimator).__name__
        raise AttributeError(f"{name} is not available: {kind} needs all rows at once.")


class BaseAutoencoder(SupportsCallbacks, FittedAutoencoder):
    """Common ground of the autoencoders; a subclass names the parts that it differs in.

    It also gives `_bottleneck`, how the encoder's output becomes a code.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [POSITIVE_INT],
        "hidden_layer_sizes": ["array-like", POSITIVE_INT],
        "activation": [StrOptions(set(ACTIVATIONS)), None],
        "distribution": [StrOptions({"auto", *DISTRIBUTIONS}), Distribution, list],
        "alpha": [NON_NEGATIVE],
        "standardize": ["boolean"],
        "solver": [StrOptions({"lbfgs", *OPTIMIZERS}), Optimizer],
        "batch_size": [StrOptions({"auto"}), POSITIVE_INT],
        "learning_rate": [StrOptions(set(SCHEDULES))],
        "learning_rate_init": [POSITIVE],
        "power_t": [NON_NEGATIVE],
        "max_iter": [POSITIVE_INT],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [NON_NEGATIVE],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [FRACTION],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [OPEN_FRACTION],
        "beta_1": [FRACTION],
        "beta_2": [FRACTION],
        "epsilon": [POSITIVE],
        "n_iter_no_change": [POSITIVE_INT, Options(Real, {np.inf})],
        "max_fun": [POSITIVE_INT],
        "checkpoint": [str, PathLike, Checkpoint, None],
    }

    #: Whether codes are drawn.
    _has_random_code: ClassVar[bool] = False

    #: Whether it can be trained from chunk to chunk.
    _takes_chunks: ClassVar[bool] = True

    #: The name of the last stage of a fit, if there are several.
    _stage: ClassVar[str] = ""

    #: The attribute for the curve of what codes cost, if they can cost anything.
    _cost_curve: ClassVar[str | None] = None

    # What a fit leaves behind; typed here, set in `fit` and `partial_fit` alone.
    _memory: dict[str, Any] | None
    loss_curve_: Any  # a list or, of stacks, a dict of lists
    validation_scores_: list[float] | None

    # --- the holes that a subclass fills -------------------------------------------

    def _corruption(self) -> tuple[Corruption, float]:
        """Return the damage done to the input in training, and its level."""
        return NoCorruption(), 0.0

    def _beta(self, epoch: float) -> float:
        """Return the weight of what the code costs, in an epoch counted from one.

        Infinity stands for the weight in the end, which is that of 'lbfgs' throughout.
        """
        return 1.0

    def _change(self, trainer: Trainer, epoch: int) -> None:
        """Change what changes in the objective from epoch to epoch."""
        trainer.change(beta=self._beta(epoch))

    def _renew(
        self, trainer: Trainer, epoch: int, drops: int, moments: Moments
    ) -> bool:
        """Change parameters before an epoch; tell whether any were."""
        return False

    def _code_size(self, n_features: int) -> int:
        """Return the number of units of the code."""
        if isinstance(self.n_components, (bool, np.bool_)):
            raise ValueError(f"n_components={self.n_components} must be an integer.")
        return int(self.n_components)

    def _code_activation(self, hidden: list[int]) -> str:
        """Return the activation of the encoder's output."""
        return "identity"

    def _decoder_sizes(self, hidden: list[int]) -> list[int]:
        """Return the widths of the decoder's layers between code and output."""
        return hidden[::-1]

    def _options(self) -> dict[str, Any]:
        """Return further settings of the objective."""
        return {}

    def _start(self, model: Model, rows: Rows) -> None:
        """Change where the training of a new model begins."""

    def _finish(self, rows: Rows) -> None:
        """Look at the fitted model, given all rows; for what a subclass reports."""

    def _advise(self, n_rows: int) -> None:
        """Warn of what a complete fit, on so many rows, has come to."""

    # --- fitting ------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(
        self, X: ArrayLike, y: None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Fit the autoencoder to X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data. Sparse matrices are made dense one batch at a time.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the rows; None gives each row weight one. A row of
            weight zero counts as absent.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If a value lies outside the distribution's support, if training diverges, or
            if there is a checkpoint of another fit. The estimator is then as it was
            before the call.
        """
        watch = FitWatch(self, self._n_tasks(), X, None, sample_weight)
        with all_or_nothing(self):
            data, weight, family = self._check_training_data(X, sample_weight, True)
            rng = watch.begin(family, X=data, sample_weight=weight)
            rows = Rows(data, *self._arrange(data, weight))
            monitor, n_rows = self._fit_rows(rows, family, rng, watch)
            self._warn(monitor, watch)
            self._advise(n_rows)
        watch.end()
        return self

    def _fit_rows(
        self, rows: Rows, family: Any, rng: Generator, watch: FitWatch
    ) -> tuple[Monitor, int]:
        """Fit to rows in their order, wherever they are; return on how many."""
        self._memory = None
        weight, index = rows.weight, rows.index
        train, valid = self._split(index, rng)
        rows = rows_of(rows.X, train, weight)
        data = self._prepare(rows, family, rows.columns(), rng, self.warm_start)
        trainer = self._trainer(data, train, weight, rng)
        every_row, held_out = self._model().rows(data, index, weight), None
        if valid is not None:
            held_out = self._model().rows(data, valid, weight)
        with self._crew(trainer), watch.training(trainer):
            monitor = self._train(trainer, held_out, watch)
            self._record(monitor, len(trainer.rows))
            self._settle(trainer, every_row)
            self._finish(every_row)
        return monitor, len(train)

    @only_if(can_continue)  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: ArrayLike, y: None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Go through a chunk of rows once, continuing from the calls before.

        The optimiser, the random numbers and the columns' statistics carry on from
        call to call. The learning rate stays at its initial value. Callbacks and
        `checkpoint` are for `fit` alone.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            A chunk of the training data, of any length.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the rows.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            As in `fit`.
        """
        first = not hasattr(self, "_theta")
        with all_or_nothing(self):
            data, weight, family = self._check_training_data(X, sample_weight, first)
            index, weight = self._arrange(data, weight)
            rows = Rows(data, index, weight)
            columns = Columns.of(rows)
            rng = new_generator(self.random_state)
            newest, memory = columns.weight, getattr(self, "_memory", None) or {}
            scales = None if first else self._model().squared_scales
            if not first:
                columns.merge(Columns(**self._columns))
            if memory:
                rng.bit_generator.state = memory["generator"]
            data = self._prepare(rows, family, columns, rng, keep=True)
            trainer = self._trainer(data, index, weight, rng)
            trainer.n_rows = max(len(index), columns.n_rows // 4, FEWEST_ROWS)
            with self._crew(trainer):
                moments = self._continue(trainer, memory)
                share = min(1.0, 2.0 * newest / columns.weight)
                self._settle(trainer, trainer.rows, scales, share)
                self._finish(trainer.rows)
            state = rng.bit_generator.state
            self._memory = {"moments": vars(moments), "generator": state}
        return self

    # --- what goes on around a fit --------------------------------------------------

    def _n_tasks(self) -> int:
        """Return the largest number of parts that a fit has for callbacks."""
        return int(self.max_iter)

    def _fitted(
        self, trainer: Trainer, monitor: Monitor, rows: Rows
    ) -> Callable[[], dict[str, Any]]:
        """Return what tells which attributes a fit would leave behind by now."""

        def attributes() -> dict[str, Any]:
            twin = copy(self)
            twin._theta = self._theta.copy()
            twin._record(monitor, len(trainer.rows))
            twin._complete(rows)
            known = vars(self)
            return {k: v for k, v in vars(twin).items() if v is not known.get(k)}

        return attributes

    # --- checking the input -------------------------------------------------------

    def _check_training_data(
        self, X: Any, sample_weight: Any, reset: bool
    ) -> tuple[Any, Array | None, Any]:
        """Validate rows and weights, and find the distribution of each column.

        The weights are None where all are one.
        """
        data, weight = self._check_rows(X, reset=reset), None
        if sample_weight is not None:
            weight = check_weight(data, sample_weight)
        names = self._column_names
        if self.distribution != "auto":
            family = plain(self.distribution, X, data, names)
        elif reset and not (self.warm_start and hasattr(self, "_plan")):
            family = choose(data, weight, names)
        else:  # what was chosen before stays
            family = self._plan["distribution"]
        check_support(data, as_distribution(family), family, names)
        return data, weight, family

    def _split(self, index: Array, rng: Generator) -> tuple[Array, Array | None]:
        """Return the rows for training and, with early stopping, for validation."""
        if not self.early_stopping:
            return index, None
        n_valid = max(1, round(self.validation_fraction * len(index)))
        if n_valid >= len(index):
            raise ValueError(
                f"early_stopping=True with validation_fraction="
                f"{self.validation_fraction} leaves no row to train on: "
                f"n_samples={len(index)}."
            )
        held_out = np.zeros(len(index), dtype=bool)
        held_out[rng.permutation(len(index))[:n_valid]] = True
        return index[~held_out], index[held_out]

    # --- from parameters to structure ---------------------------------------------

    def _new_plan(self, n_features: int, family: Any) -> Plan:
        """Describe the network that the parameters ask for."""
        hidden = check_sizes(self.hidden_layer_sizes, "hidden_layer_sizes")
        back = self._decoder_sizes(hidden)
        tied = bool(getattr(self, "tied_weights", False))
        n_outputs = as_distribution(family).n_outputs(n_features)
        if tied and n_outputs != n_features:
            raise ValueError(
                f"tied_weights=True needs one output for each column, but "
                f"distribution={family!r} wants {n_outputs} for {n_features} columns."
            )
        activation, k = self.activation or "tanh", self._code_size(n_features)
        into = [activation] * len(hidden) + [self._code_activation(hidden)]
        return Plan(
            down=[n_features, *hidden, k],
            up=[k, *back, n_features],
            activations=[into, [activation] * len(back) + ["identity"]],
            tied=tied,
            distribution=family,
            standardize=bool(self.standardize),
        )

    def _prepare(
        self, rows: Rows, family: Any, columns: Columns, rng: Generator, keep: bool
    ) -> Any:
        """Set the starting parameters; return X in their floating-point type."""
        X = rows.X
        known = keep and hasattr(self, "_theta")
        dtype = self._theta.dtype if known else X.dtype
        check_units(columns, dtype, self._column_names)
        plan = self._new_plan(X.shape[1], family)
        self._columns = vars(columns)
        if known:
            if repr(vars(plan)) != repr(self._plan):
                raise ValueError(
                    f"The parameters ask for the network {vars(plan)}, but the one to "
                    f"continue from is {self._plan}. Use fit with warm_start=False."
                )
            self._theta = np.array(self._theta)
            return X.astype(self._theta.dtype, copy=False)
        self._plan = vars(plan)
        model = Model.start(plan, self._bottleneck(), columns, X.dtype, rng)
        self._start(model, model.rows(X, rows.index, rows.weight))
        self._theta = model.theta
        self.validation_scores_ = None
        self._keep_losses([])
        self.n_iter_ = self.t_ = 0
        return X

    def _trainer(
        self, X: Any, index: Array, weight: Array | None, rng: Generator
    ) -> Trainer:
        """Bring objective, rows and memory together."""
        model = self._model()
        decoupled = self.solver != "lbfgs" and self._optimizer().decoupled
        low, high = model.limits()
        model.shared[...] = np.clip(model.shared, low, high)
        objective, _ = model.plan.objective(
            model.bottleneck,
            *self._corruption(),
            alpha=0.0 if decoupled else float(self.alpha),
            beta=self._beta(np.inf),
            learns_shared=bool((low < high).any()),
            **self._options(),
        )
        rows = model.rows(X, index, weight)
        bounds = np.array([model.columns.low, model.columns.high], dtype=X.dtype)
        rows.standardize(bounds)
        model.family.inputs(bounds, bounds)
        # Rows that are elsewhere bring along who takes steps with them.
        trainer: type[Trainer] = getattr(X, "trainer", Trainer)
        return trainer(
            objective,
            self._theta,
            rows,
            bounds=(bounds[0], bounds[1]),
            limits=(low, high),
            batch_size=self._rows_per_step(len(rows)),
            shuffle=bool(self.shuffle),
            rng=rng,
        )

    def _rows_per_step(self, n_rows: int) -> int:
        """Return the batch size; "auto" makes about 32 steps an epoch."""
        if self.solver == "lbfgs":  # a step sees all rows, in parts of any size
            return 1024
        if self.batch_size == "auto":
            return max(32, min(256, n_rows // 32))
        return int(self.batch_size)

    def _arrange(
        self, X: Any, weight: Array | None, labels: Array | None = None
    ) -> tuple[Array, Array | None]:
        """Return the rows to use and their weights.

        Where all rows make one batch, equal rows are merged: then weights, repetitions
        and the order of rows make no difference to the last bit.
        """
        n_rows = X.shape[0] if weight is None else int(np.count_nonzero(weight))
        may_share = self._is_certain() or n_rows <= MOST_SHARED
        merge = self.solver == "lbfgs" or (
            self._rows_per_step(n_rows) >= n_rows and may_share
        )
        return arrange(X, weight, merge, not self.shuffle, labels)

    def _is_certain(self) -> bool:
        """Tell whether nothing about a row is random in training."""
        return self._corruption()[1] == 0 and not self._has_random_code

    def _optimizer(self) -> Optimizer:
        optimizer: Optimizer = resolve(
            self.solver, OPTIMIZERS, **self.get_params(deep=False)
        )
        return optimizer

    # --- training -----------------------------------------------------------------

    def _monitor(self, held_out: Rows | None) -> Monitor:
        validate = None
        if held_out is not None:
            validate = partial(self._validate, held_out)
        return Monitor(
            self._theta,
            self._stopping(held_out is not None),
            validate=validate,
            report=print if self.verbose else None,
        )

    def _validate(self, rows: Rows) -> tuple[float, float]:
        """Return the loss of held-out rows, and what decides between equal ones."""
        model = self._model(is_exact=False)
        return model.mean_loss(rows, self._beta(np.inf), DRAWS), 0.0

    def _stopping(self, validates: bool = False) -> Stopping:
        """Return what says when training has come to its end."""
        patience = self.n_iter_no_change
        if self.learning_rate == "cosine" and self.solver != "lbfgs" and not validates:
            patience = np.inf  # its last epochs, the slow ones, are the point of it
        return Stopping(self.tol, patience)

    def _crew(self, trainer: Trainer) -> AbstractContextManager[Crew]:
        """Hire who shares the work, or nobody if there is little to do."""
        n_rows = trainer.batch_size
        work = n_rows * len(trainer.theta) // LEAST_WORK
        return crew(max(1, min(n_rows // FEWEST_SHARED, work)))

    def _train(
        self, trainer: Trainer, held_out: Rows | None, watch: FitWatch
    ) -> Monitor:
        """Run the solver."""
        monitor = self._monitor(held_out)
        run = self._run_lbfgs if self.solver == "lbfgs" else self._run_epochs
        fitted = self._fitted(trainer, monitor, trainer.rows)
        stage = watch.stage(self._stage, self.max_iter, trainer, monitor, fitted)
        with self._explained(monitor.losses):
            monitor.trouble = run(trainer, monitor, stage)
        monitor.finish()
        return monitor

    def _warn(self, monitor: Monitor, watch: FitWatch, stacklevel: int = 4) -> None:
        """Warn if training did not come to an end by itself."""
        trouble = monitor.trouble
        if watch.is_interrupted:
            which = "of that moment" if not monitor.validate else "that scored best"
            how = "with warm_start=True" if self.checkpoint is None else "once more"
            left_out = "" if monitor.losses else ", and later stages are left out"
            trouble = (
                f"Control-C has ended training in {watch.place}. The model has the "
                f"weights {which}{left_out}; to go on from there, call fit {how}."
            )
        if trouble:
            warnings.warn(trouble, ConvergenceWarning, stacklevel=stacklevel)

    def _settle(
        self,
        trainer: Trainer,
        rows: Rows,
        scales: Array | None = None,
        share: float = 1.0,
    ) -> None:
        """Refuse parameters that are worse than none; estimate scales from residuals.

        Earlier squared scales move towards the new ones by `share`.
        """
        self._check_sanity(trainer, rows)
        self._estimate(rows, scales, share)

    def _complete(self, rows: Rows) -> None:
        """Set what follows from the parameters, given rows."""
        self._estimate(rows)
        self._finish(rows)

    def _estimate(
        self, rows: Rows, scales: Array | None = None, share: float = 1.0
    ) -> None:
        """Estimate scales from residuals, and what units keep of all rows."""
        model = self._model(is_exact=False)
        model.own[...] += share * (model.settled_own(rows) - model.own)
        estimate = model.estimated_shared(rows)
        with self._explained(self._losses()):
            if not np.isfinite(estimate).all():
                raise DivergenceError("a residual cannot be squared", finished=True)
        model.shared[...] = estimate
        if scales is not None:
            model.blend_scales(scales, 1.0 - share)

    def _check_sanity(self, trainer: Trainer, rows: Rows) -> None:
        """Refuse parameters that are worse than none."""
        model, beta = self._model(is_exact=False), trainer.objective.beta
        loss = model.mean_loss(rows, beta)
        with np.errstate(all="ignore"):
            loss += trainer.decay()
        poor = LOST * rows.X.shape[1]
        with self._explained(self._losses()):
            if not np.isfinite(loss):
                raise DivergenceError(f"the loss is {loss}", finished=True)
            first = trainer.first_loss  # None if only parts have been trained
            if first is not None and loss > max(poor, 2 * first):
                of_means = model.loss_of_means(rows, beta)
                if loss > of_means + abs(of_means) + poor:
                    raise DivergenceError(
                        f"the loss is {loss:g} nats per row, where the mean of the "
                        f"data costs {of_means:g}",
                        finished=True,
                    )

    def _run_lbfgs(
        self, trainer: Trainer, monitor: Monitor, stage: StageWatch
    ) -> str | None:
        """Return why L-BFGS stopped short of a minimum, if it did."""
        reason = self._lbfgs(trainer, monitor, self.max_iter, stage)
        if reason is None:
            return None
        return (
            f"L-BFGS stopped with the message {reason!r} after {len(monitor.losses)} "
            f"iterations, before it reached a minimum (max_iter={self.max_iter}, "
            f"max_fun={self.max_fun}). Increase these, or scale the data."
        )

    def _lbfgs(
        self, trainer: Trainer, monitor: Monitor, max_iter: int, stage: StageWatch
    ) -> str | None:
        """Return SciPy's message if L-BFGS stopped short of a minimum."""
        if trainer.objective.is_random:
            raise random_objective()
        return lbfgs(
            trainer,
            max_iter=max_iter,
            max_fun=self.max_fun,
            tol=self.tol,
            monitor=monitor,
            watch=stage,
        )

    def _run_epochs(
        self, trainer: Trainer, monitor: Monitor, stage: StageWatch
    ) -> str | None:
        """Return why training stopped before the loss had settled, if it did."""
        before = partial(self._change, trainer), partial(self._renew, trainer)
        rate = self.learning_rate_init
        settled = self._descend(trainer, monitor, rate, self.max_iter, before, stage)
        if settled or monitor.stopping.patience == np.inf:
            return None
        return (
            f"Training stopped at max_iter={self.max_iter} epochs, before the loss had "
            f"settled (tol={self.tol}, n_iter_no_change={self.n_iter_no_change}). "
            f"Increase max_iter or learning_rate_init={self.learning_rate_init}."
        )

    def _descend(
        self,
        trainer: Trainer,
        monitor: Monitor,
        rate: float,
        max_iter: int,
        before: tuple[Change, Renew],
        stage: StageWatch,
    ) -> bool:
        """Train from an initial learning rate; return whether the loss has settled."""
        optimizer = self._optimizer()
        return descend(
            trainer,
            optimizer,
            Course(optimizer.init(trainer.theta)),
            rate=partial(self._rate, rate, max_iter),
            change=before[0],
            renew=before[1],
            max_iter=max_iter,
            n_drops=MOST_DROPS if self.learning_rate == "adaptive" else 0,
            monitor=monitor,
            watch=stage,
        )

    def _rate(self, rate: float, max_iter: int, epoch: int, drops: int) -> float:
        """Return the learning rate of an epoch, given the initial one."""
        schedule = SCHEDULES[self.learning_rate]
        return float(rate * schedule(epoch, max_iter, self.power_t, drops))

    @contextmanager
    def _explained(
        self, losses: Sequence[Any], stage: str = "", name: str = "learning_rate_init"
    ) -> Iterator[None]:
        """Say in which epoch training diverged, and what to change.

        `name` is the parameter for the learning rate of this stage.
        """
        try:
            yield
        except DivergenceError as error:
            epoch = len(losses) + (not error.finished)
            advice = [] if self.standardize else ["set standardize=True"]
            if self.solver != "lbfgs":
                advice.insert(0, f"reduce {name}={getattr(self, name)}")
            advice.append("look for extreme values in X")
            raise ValueError(
                f"Training diverged in epoch {epoch}{stage}: {error}. To mend this, "
                f"{' or '.join(advice)}."
            ) from None

    def _record(self, monitor: Monitor, n_rows: int) -> None:
        """Turn what the monitor saw into fitted attributes."""
        losses = [loss.total for loss in monitor.losses]
        before = self._losses()
        best = getattr(self, "best_loss_", None) if before else None
        self._keep_losses(before + losses)
        self.loss_ = losses[-1]
        self.n_iter_ = len(monitor.losses)
        self.t_ += n_rows * self.n_iter_
        self.best_loss_ = self.best_validation_score_ = None
        if monitor.validate:
            scores = [-loss for loss in monitor.validation_losses]
            self.validation_scores_ = (self.validation_scores_ or []) + scores
            self.best_validation_score_ = max(scores)
        else:
            self.validation_scores_ = None
            judged = losses[monitor.patience_from :] or losses[-1:]
            self.best_loss_ = min(judged if best is None else [best, *judged])

        if self._cost_curve:
            self._extend(
                "reconstruction_curve_", len(before), monitor, "reconstruction"
            )
            self._extend(self._cost_curve, len(before), monitor, "cost")

    def _losses(self) -> list[float]:
        """Return the losses of all epochs so far."""
        return list(self.loss_curve_)

    def _keep_losses(self, losses: list[float]) -> None:
        """Set the losses of all epochs so far."""
        self.loss_curve_ = losses

    def _extend(self, name: str, before: int, monitor: Monitor, part: str) -> None:
        """Add the new epochs of one part of the loss to its curve."""
        curve = list(getattr(self, name, []))[:before]
        setattr(self, name, curve + [getattr(loss, part) for loss in monitor.losses])

    def _continue(self, trainer: Trainer, memory: dict[str, Any]) -> Moments:
        """Take one pass with the optimiser's memory of the passes before."""
        optimizer = self._optimizer()
        moments = optimizer.init(self._theta)
        if memory and memory["moments"]["arrays"].shape == moments.arrays.shape:
            moments = Moments(**memory["moments"])
            moments.arrays = moments.arrays.copy()
        monitor, n_iter = self._monitor(None), self.n_iter_
        with self._explained(self._losses()):
            rate = float(self.learning_rate_init)
            self._change(trainer, n_iter + 1)
            self._renew(trainer, n_iter + 1, 0, moments)
            monitor(trainer.epoch(optimizer, Course(moments), rate))
        optimizer.rest(moments)
        self._record(monitor, len(trainer.rows))
        self.n_iter_ += n_iter
        return moments
