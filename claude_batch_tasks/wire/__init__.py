"""The bytes of requests and of result files: how they are checked, divided and read."""
