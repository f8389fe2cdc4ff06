"""The result store on disk: blocks, records, keys and flags. No other package reads or writes its files."""
