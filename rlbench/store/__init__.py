"""What is on disk: blocks and records, their keys, flags and columns. Nothing else reads or writes a store."""
