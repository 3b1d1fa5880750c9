"""The load generator: session + load axes -> samples. It knows nothing of models."""
