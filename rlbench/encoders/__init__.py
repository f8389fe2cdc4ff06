"""Encoders: one file per family, registered by @register, and what turns a model's name into an encoder.

The families are `linear`, `mini`, `languagebind`, `hugging_face`, `openclip` and `own`; `clip` has parts that some of
them share, `defences` wraps any of them. `models` resolves a name to a card (`cards`) and makes the encoder; `loading`
checks it (`contract`), computes its identity (`identity`, by a walk over all that it holds: `reach`) and caches it.
`outputs` turns what it returns into tensors, `heads` and `retrieval` turn it into a classifier.
"""
