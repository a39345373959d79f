"""How results are read back."""
