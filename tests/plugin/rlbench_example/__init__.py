"""A third-party package that adds an attack, a corruption, an encoder, a fusion and a suite to rlbench."""
