"""The orders of the shop."""

import sqlalchemy as sa
from alembic import op

revision = "0001_orders"
down_revision = None


def upgrade():
    op.create_table(
        "orders",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("item", sa.Text, nullable=False),
        sa.Column("note", sa.Text),
    )
    op.execute("GRANT SELECT, INSERT, UPDATE ON orders TO shop")


def downgrade():
    op.drop_table("orders")
