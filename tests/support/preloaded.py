"""Do once, in the process that commands are forked from, what every command would do anew."""

import plotly.graph_objects as go

from sweep.config import compose

compose.read(())
curve = go.Scatter(x=[1], y=[1], mode="lines+markers", line={"width": 1})
go.Figure(curve, {"xaxis": {"title": {"text": "x"}}}).to_json()
