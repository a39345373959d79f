"""What settings, and one look at the servers, tell of a set-up."""
