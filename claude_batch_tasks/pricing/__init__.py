"""Prices: what models charge, what one request may cost, and what answers have cost."""
