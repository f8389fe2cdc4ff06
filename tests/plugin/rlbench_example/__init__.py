"""A third-party package that adds an attack, a corruption, a task and a suite to rlbench."""
