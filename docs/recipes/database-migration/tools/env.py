"""What alembic runs first. It writes SQL, and never connects to a database."""

from alembic import context

context.configure(
    dialect_name="postgresql",
    dialect_opts={"paramstyle": "named"},  # or else every % becomes %%
    literal_binds=True,
)
with context.begin_transaction():
    context.run_migrations()
