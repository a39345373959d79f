"""What requests cost: prices, what one request may cost, what answers have cost."""
