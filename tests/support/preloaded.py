"""Do once, in the process that commands are forked from, what every command would do anew."""

import gc

import plotly.graph_objects as go

from sweep.config import compose

compose.read(())
curve = go.Scatter(x=[1], y=[1], mode="lines+markers", line={"width": 1})
go.Figure(curve, {"xaxis": {"title": {"text": "x"}}}).to_json()
gc.collect()
gc.freeze()  # what is here stays in every fork: no collection walks it, and no page of it is copied for that
