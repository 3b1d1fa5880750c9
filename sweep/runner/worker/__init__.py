"""Run inside the child process: prepare one variant, measure it, check its outputs."""
