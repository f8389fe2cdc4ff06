"""The regression gate: check, compare, verify, submissions, and the pytest fixture."""
