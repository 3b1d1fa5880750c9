"""Read a user's own samples with their classes, check them, and cut them into the batches that a session scores.

Nothing of it is timed, and calibration does not see it. Pictures and a function's batches are taken as they are needed,
so that a data set may be larger than memory; an .npz is read whole.
"""

from sweep.models.datasets.labelled_files import KEY, parse_labels
from sweep.models.datasets.labelled_reader import check
from sweep.models.datasets.labelled_samples import Samples

__all__ = ["KEY", "Samples", "calibration", "check", "parse_labels"]
