"""Signs that a robustness number can't be trusted: the catalogue of checks and their rules."""
