"""Run by Alembic: on the connection that :meth:`Database.upgrade` hands over."""

from __future__ import annotations

from alembic import context

from plait_service.jobs.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter most of a table
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
