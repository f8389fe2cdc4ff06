"""The regression gate, model comparisons, submissions and their verification, and the pytest fixture."""
