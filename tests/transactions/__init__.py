"""Jobs that are a part of the caller's transaction: a Django project, and connections of SQLAlchemy and psycopg."""
