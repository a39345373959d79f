"""The bytes of requests and of result files: how they are checked, cut and read."""
