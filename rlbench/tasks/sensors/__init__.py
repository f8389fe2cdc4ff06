"""One latent scene, and a renderer of it for each sensor."""
