"""Parts of CLIP-like encoders; the families are in the folder above.

LanguageBind, from a checkpoint's folder: `checkpoint` reads its tensors (`weights`), finds the architecture (`sizes`)
and fills the towers (`towers`). `fronts` maps an attack's box to the visual tower's input, `text` maps prompts to
embeddings, and `saved` stores a trained tower. transformers' own models: `hf_weights` makes the towers, `hf_processor`
the fronts (CLAP's is `clap_front`), `hf_tokens` the tokens; `hf_quiet` silences the library. `hashed_text` is the text
tower of mini.
"""
