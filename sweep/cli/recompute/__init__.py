"""Recompute the summaries of records from their raw samples."""
