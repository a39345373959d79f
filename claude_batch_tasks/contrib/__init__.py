"""What fits this package into frameworks; none of it is imported by the rest."""
