"""A suite becomes records: cells, soundness < attack < block < plan < run; imports go that way only."""
