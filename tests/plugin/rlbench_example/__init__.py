"""A third-party package that adds an attack, a corruption, an encoder and a suite to rlbench."""
