"""Alembic's scripts: the tables' forms, one after the other."""
