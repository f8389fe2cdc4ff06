"""Reference records (records/*.jsonl) and the boards generated from them (*.md)."""
