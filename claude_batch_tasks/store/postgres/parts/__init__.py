"""The parts of the PostgreSQL store: one class for each Protocol of ``store.interface``."""
