"""Trace a converted graph beside its fp32 graph and rank the nodes by the error that they make."""
