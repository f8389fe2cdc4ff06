"""Is a robustness number to be believed? The soundness checks of a model on a suite, each a small function.

`lab` runs what the checks share, once; `harness` has the checks of the harness and of the encoder's answers, `strength`
those of the attack itself, `rivals` those against other attacks, `planted` the binarization test, `report` puts the
findings together.
"""
