"""Attack, then judge: passes are counted, and every point that an attack returns is classified afresh."""
