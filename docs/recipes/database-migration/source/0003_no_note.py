"""Contract: the notes go. It comes too early, for the release that runs still uses them."""

import sqlalchemy as sa
from alembic import op

revision = "0003_no_note"
down_revision = "0002_email"


def upgrade():
    op.drop_column("orders", "note")


def downgrade():
    op.add_column("orders", sa.Column("note", sa.Text))
