"""Soundness checks: can a model's robust accuracy on a suite be trusted? Each check is a small function.

`lab` runs each attack once for all checks. `harness` checks the harness and the encoder's outputs, `strength` the
attack itself, `rivals` compares it with other attacks, `planted` is the binarization test, and `report` collects the
findings.
"""
