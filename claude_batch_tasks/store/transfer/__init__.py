"""Copying jobs from one store to another: what is copied, how it is checked, and the order in which it is done."""
