"""Connections that are not the store's own: of Django, of a SQLAlchemy engine, and of the caller."""
