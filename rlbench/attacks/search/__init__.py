"""Parts that attacks share: the pool of running searches, losses, candidates, ensembles."""
