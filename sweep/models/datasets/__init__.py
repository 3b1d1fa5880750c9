"""Read a user's own data, check it against the network, and cut it into batches.

``model.samples`` (`input_samples`) are inputs that are timed and compared on. ``model.labels`` (`labelled_samples`)
have classes and are scored on; pictures and a function's batches are taken as they are needed, so that a data set may
be larger than memory, and an .npz is read whole. ``model.calibration`` (`calibration`) gives the ranges of activations.
"""

from sweep.models.datasets.input_samples import APART_FROM, InputSamples
from sweep.models.datasets.labelled_files import KEY, parse_labels
from sweep.models.datasets.labelled_reader import check
from sweep.models.datasets.labelled_samples import Samples
from sweep.models.datasets.sample_files import parse_samples

__all__ = [
    "APART_FROM",
    "KEY",
    "InputSamples",
    "Samples",
    "calibration",
    "check",
    "input_samples",
    "parse_labels",
    "parse_samples",
    "sample_files",
]
