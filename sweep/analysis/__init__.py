"""Compute figures and verdicts from samples; pure functions."""
