"""The cheap soundness checks, part of every run: counts from its passes, and rules that turn counts into a badge.

A robust accuracy is an upper bound, and a failed attack makes it too high. The checks look for the known ways in which
attacks fail: Carlini et al., 2019, https://arxiv.org/abs/1902.06705; Athalye et al., 2018,
https://arxiv.org/abs/1802.00420; Pintor et al., 2021, https://arxiv.org/abs/2106.09947. `core.badges` lists all checks;
`audit` has those that need passes of their own.
"""
