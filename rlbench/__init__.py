"""rlbench: a robustness benchmark for language-anchored multi-modal encoders."""
