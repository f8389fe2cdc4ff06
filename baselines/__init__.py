"""The baselines that come with rlbench: a folder each, with a card, recipes and checkpoints."""
