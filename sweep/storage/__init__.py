"""Store records, samples and cached artifacts on disk."""
