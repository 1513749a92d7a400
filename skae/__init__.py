"""Autoencoders that behave like scikit-learn's own estimators."""

from skae.displays import LossCurveDisplay, ReconstructionDisplay
from skae.estimators.denoising import DenoisingAutoencoder

__all__ = ["DenoisingAutoencoder", "LossCurveDisplay", "ReconstructionDisplay"]
__version__ = "0.1.0.dev0"
