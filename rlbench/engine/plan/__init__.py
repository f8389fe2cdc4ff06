"""What is missing from the store, and what it costs."""
