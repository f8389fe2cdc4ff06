"""Parts of CLIP-like encoders: towers, text, front ends, weights, sizes."""
