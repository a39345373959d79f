"""What may happen to a batch, from its submission to its results."""
