"""Do once, in the process that commands and their workers are forked from, what each of them would do anew.

onnxruntime is not among the imports: it starts a thread, and a fork has none of its parent's.
"""

import gc

import onnx.compose
import onnx.inliner  # noqa: F401 - a worker would import it

import sweep.backends.onnxruntime.backend
import sweep.backends.onnxruntime.graph_inspection
import sweep.backends.onnxruntime.partial_batches
import sweep.backends.onnxruntime.session
import sweep.cli.arguments
import sweep.cli.commands
import sweep.runner.worker.measure
import sweep.runner.worker.pipe_communicator  # noqa: F401 - likewise
from sweep.config import compose
from sweep.report import html

compose.read(())
html.render("", [])  # loads jinja2, its template, and plotly.js
gc.set_threshold(100_000, 20, 20)  # as tests/conftest.py has it
gc.collect()
gc.freeze()  # what is here stays in every fork: no collection walks it, and no page of it is copied for that
