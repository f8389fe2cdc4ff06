"""One block of a cell: inputs, clean pass, attacks."""
