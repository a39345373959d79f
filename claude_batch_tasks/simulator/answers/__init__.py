"""What the simulator answers: which rule decides a request, the content of its message, and the shapes on the wire."""
