"""Media files to tensors: decoding, resampling, log-mel spectrograms, the preparation of a box."""
