"""Records to tables, plots and a page: boards < figures < site; imports go that way only."""
