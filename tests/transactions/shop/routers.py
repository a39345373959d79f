"""Routers of databases."""


class Refuses:
    """A router by which the store's tables belong nowhere."""

    def allow_migrate(self, db, app_label, **hints):
        return False if app_label == "claude_batch" else None
