"""Do once, in the process that commands and their workers are forked from, what each of them would do anew.

onnxruntime is not among the imports: it starts a thread, and a fork has none of its parent's.
"""

import gc

import onnx.compose
import onnx.inliner  # noqa: F401 - a worker would import it
import plotly.graph_objects as go

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
chart = html.figure((), "p99", None)  # its template is a hundred modules of plotly
chart.add_trace(go.Scatter(x=[1], y=[1], mode="lines+markers", line={"width": 1}, marker={"size": 7}, error_y={}))
chart.update_layout(legend={}, xaxis_title="x", yaxis_title="y").to_html(full_html=False)
gc.collect()
gc.freeze()  # what is here stays in every fork: no collection walks it, and no page of it is copied for that
