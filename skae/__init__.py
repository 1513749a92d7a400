"""Autoencoders that behave like scikit-learn's own estimators."""

from skae._version import __version__ as __version__
from skae.displays import (
    ExplanationDisplay,
    LatentManifoldDisplay,
    LatentSpaceDisplay,
    LossCurveDisplay,
    ReconstructionDisplay,
)
from skae.estimators.classifier import StackedAutoencoderClassifier
from skae.estimators.denoising import DenoisingAutoencoder
from skae.estimators.outlier import AutoencoderOutlierDetector
from skae.estimators.regressor import StackedAutoencoderRegressor
from skae.estimators.sparse import SparseAutoencoder
from skae.estimators.stacked import StackedAutoencoder
from skae.estimators.variational import VariationalAutoencoder

__all__ = [
    "AutoencoderOutlierDetector",
    "DenoisingAutoencoder",
    "ExplanationDisplay",
    "LatentManifoldDisplay",
    "LatentSpaceDisplay",
    "LossCurveDisplay",
    "ReconstructionDisplay",
    "SparseAutoencoder",
    "StackedAutoencoder",
    "StackedAutoencoderClassifier",
    "StackedAutoencoderRegressor",
    "VariationalAutoencoder",
]
