"""Generate load: a session and the load axes give samples. The package knows nothing of models."""
