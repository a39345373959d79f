"""The code that reads results back."""
