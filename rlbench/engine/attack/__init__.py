"""Attack, then judge: passes are counted and every answer is classified afresh."""
