"""The HTTP surface of the simulator: Anthropic's endpoints, their answers, and the faults that strike them."""
