"""Expand: orders get an address. Releases that do not know it go on working."""

import sqlalchemy as sa
from alembic import op

revision = "0002_email"
down_revision = "0001_orders"


def upgrade():
    op.add_column("orders", sa.Column("email", sa.Text))


def downgrade():
    op.drop_column("orders", "email")
