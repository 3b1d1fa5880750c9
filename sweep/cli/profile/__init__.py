"""Run a record's engine below one of NVIDIA's profilers, and read what ncu says of its kernels."""
