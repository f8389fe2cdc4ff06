"""Soundness checks as data: what each one asks, its rule, what to do where it fails; and the badge that they make.

A robustness number is an upper bound that a failed attack makes too high. The checks look for the known ways of
failing: Carlini et al., 2019, https://arxiv.org/abs/1902.06705; Athalye et al., 2018, https://arxiv.org/abs/1802.00420;
Pintor et al., 2021, https://arxiv.org/abs/2106.09947. `soundness` has the cheap ones, which are part of every run; the
others are the audit's.
"""

from __future__ import annotations
