"""Turns media files into tensors: decoding, resampling, log-mel spectrograms, fitting to a box."""
