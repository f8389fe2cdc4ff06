"""What goes to the Hugging Face hub: results, model cards, checkpoints."""
