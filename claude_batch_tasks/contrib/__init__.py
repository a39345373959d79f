"""The integrations of this package into frameworks; the rest of the package imports none of them."""
