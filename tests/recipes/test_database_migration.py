"""Database migration: the page, and what must not happen, with real alembic and PostgreSQL."""

import glob
import os
import shutil
import signal
import subprocess
import unittest

from kit import LIMIT, clean_environment, eventually, free_port, need, programs
from recipe import Recipe

PASSWORD = "correct-horse"  # the page has it, too


class DatabaseMigration(Recipe):
    NAME = "database-migration"

    def setUp(self):
        need("alembic", "tests/recipes/requirements.txt has it")
        psql = need("psql", "on Debian, postgresql-client has it")
        commands = subprocess.run([psql, "--help=commands"], capture_output=True, text=True)
        if "\\restrict" not in commands.stdout:
            raise unittest.SkipTest("psql is older than August 2025: it has no \\restrict")
        places = os.pathsep.join([os.environ["PATH"], *glob.glob("/usr/lib/postgresql/*/bin")])
        self.initdb = shutil.which("initdb", path=places)
        if self.initdb is None:
            raise unittest.SkipTest("initdb is not installed: on Debian, postgresql has it")
        super().setUp()
        self.postgres()

    def postgres(self):
        """Starts a PostgreSQL on loopback. It refuses to run as root, so then it is nobody's."""
        home = self.folder / "postgres"
        home.mkdir()
        (home / "password").write_text("trial")
        how = {"cwd": home, "env": clean_environment()}
        if os.geteuid() == 0:
            self.folder.chmod(0o711)
            shutil.chown(home, "nobody")
            how |= {"user": "nobody", "extra_groups": []}
        made = subprocess.run(
            [self.initdb, "--pgdata=data", "--username=postgres", "--pwfile=password"]
            + ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"],
            capture_output=True,
            text=True,
            **how,
        )
        self.assertEqual(made.returncode, 0, made.stderr)
        port = str(free_port())
        log = (self.folder / "postgres.log").open("wb")
        self.addCleanup(log.close)
        process = subprocess.Popen(
            [shutil.which("postgres", path=os.path.dirname(self.initdb)), "-D", "data", "-p", port]
            + ["-F", "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="],
            stdout=log,
            stderr=log,
            **how,
        )
        self.addCleanup(process.wait, 30)
        self.addCleanup(process.send_signal, signal.SIGINT)  # it does not wait for clients
        self.server = {"PGHOST": "127.0.0.1", "PGPORT": port}
        self.administrator = {**self.server, "PGUSER": "postgres", "PGPASSWORD": "trial"}

        def answers():
            assert process.poll() is None, (self.folder / "postgres.log").read_text()
            return self.psql("SELECT 1", check=False).returncode == 0

        eventually("PostgreSQL answers", answers)

    def psql(self, query, *arguments, database="postgres", check=True):
        done = subprocess.run(
            ["psql", "-XAtq", "-d", database, *arguments],
            input=query,
            env={**clean_environment(), **self.administrator},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        if check:
            self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done

    def ask(self, query):
        return self.psql(query, database="shop").stdout.strip()

    def roles(self):
        self.psql((self.recipe / "roles.sql").read_text(), "-v", f"password={PASSWORD}")

    def start(self, **variables):
        """A sandbox with the target, whose database is at its first revision."""
        self.roles()
        variables = {**self.server, "PGSSLMODE": "disable", **variables}
        secrets = {"PGPASSWORD": PASSWORD}
        self.target = self.sandbox("database.toml", secrets=secrets, **variables)
        alembic = ["alembic", "-c", "tools/alembic.ini", "upgrade", "0001_orders", "--sql"]
        sql = subprocess.check_output(alembic, cwd=self.recipe, text=True)
        self.psql(f"SET ROLE migrator; {sql}", database="shop")

    def arguments(self, revision):
        source = f"source={self.recipe}/source"
        chosen = ["--param", f"revision={revision}", "--artifact", source]
        return ["deploy", "shop/database", "--key", "oidc", *chosen]

    def deploy(self, revision, code):
        """Deploys a revision, and returns what was printed. It has to end with this exit code."""
        done = self.target.relay(*self.arguments(revision))
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, code, said)
        self.assertNotIn(PASSWORD, said)
        return said

    def write(self, upgrade, downgrade="pass", before="0001_orders"):
        """Puts a migration `trial` in the place of the recipe's second and third."""
        for file in (self.recipe / "source").glob("000[23]*.py"):
            file.unlink()
        (self.recipe / "source/trial.py").write_text(
            "import os\nfrom alembic import op\n"
            f"revision: str = 'trial'\ndown_revision: str | None = {before!r}\n"
            f"def upgrade():\n    {upgrade}\ndef downgrade():\n    {downgrade}\n"
        )

    def assert_unchanged(self):
        self.assertEqual(self.ask("SELECT version_num FROM alembic_version"), "0001_orders")
        columns = "SELECT column_name FROM information_schema.columns WHERE table_name = 'orders'"
        self.assertEqual(sorted(self.ask(columns).split()), ["id", "item", "note"])

    def test_the_page(self):
        start, migrated, order, broken = pages = self.run_page(**self.administrator)
        self.assertIn("CREATE TABLE orders", migrated)
        self.assertIn("The release that runs now can work with revision 0001_orders.", migrated)

        skipped, second = order.split("exit code 1\n")
        self.assertIn("The database is at 0001_orders, and stays there.", skipped)
        self.assertIn("0003_no_note follows 0002_email:", skipped)
        self.assertNotIn("ALTER TABLE", skipped)
        second, again = second.split("can work with revision 0002_email.", 1)
        self.assertIn("ADD COLUMN email", second)
        self.assertIn("The database is at 0002_email already", again)
        self.assertIn("can work with revision 0002_email.", again)
        self.assertNotIn("ADD COLUMN email", again)

        # psql's own code, although the rollback went well.
        said, after = broken.split("exit code 3\n")
        self.assertIn('column "note" of relation "orders" does not exist', said)
        self.assertIn("Going back from 0003_no_note to 0002_email.", said)
        self.assertIn(" 0002_email\n(1 row)", after)
        self.assertIn(" a book | \n(1 row)", after)
        for page in pages:
            self.assertNotIn(PASSWORD, page)

    def test_only_the_next_revision_is_admitted(self):
        self.start()
        said = self.deploy("head", 1)
        self.assertIn("source has no migration head;", said)
        self.assertIn("Nothing to undo: this deployment has not been admitted.", said)
        self.assertIn("does not match its pattern", self.deploy("0001_orders:head", 120))
        self.write("pass", before=None)
        self.assertIn("trial follows base:", self.deploy("trial", 1))
        (self.recipe / "source/0001_orders.py").unlink()
        self.assertIn("source has no migration 0001_orders:", self.deploy("trial", 1))
        self.write("pass", before=("0001_orders", "other"))
        self.assertIn("source/trial.py does not say, as plain text,", self.deploy("trial", 1))
        self.assert_unchanged()

    def test_a_migration_that_fails_leaves_nothing(self):
        self.start()
        change = "op.execute('ALTER TABLE orders ADD x int')"
        shell = r"op.execute('SELECT 1 \\! echo out-of-$((40 + 2))')"
        for upgrade, downgrade, code, why in (
            (change, "raise NotImplementedError", 1, "could not write the SQL of the downgrade"),
            (f"{change}; op.execute('SELECT 1 / 0')", "pass", 3, "division by zero"),
            (f"{change}; {shell}", "pass", 3, "backslash commands are restricted"),
        ):
            with self.subTest(why):
                self.write(upgrade, downgrade)
                said = self.deploy("trial", code)
                self.assertIn(why, said)
                self.assertNotIn("out-of-42", said)
                self.assertIn("Nothing to undo: the database is at 0001_orders, as before.", said)
                self.assert_unchanged()

    def test_a_cancelled_migration_leaves_nothing_and_another_one_has_to_wait(self):
        self.start()
        self.write("op.execute('ALTER TABLE orders ADD x int'); op.execute('SELECT pg_sleep(600)')")
        running = subprocess.Popen(
            [programs() / "relay", *self.arguments("trial")],
            env=self.target.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(running.stdout.close)
        self.addCleanup(running.kill)
        sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        eventually("the migration sleeps", lambda: self.ask(sleeps) == "1")
        self.assertIn("busy", self.deploy("trial", 120))
        running.send_signal(signal.SIGINT)
        said, _ = running.communicate(timeout=LIMIT)
        self.assertEqual(running.returncode, 130, said)
        self.assertIn("canceling statement due to user request", said)
        self.assertIn("Nothing to undo: the database is at 0001_orders, as before.", said)
        self.assertEqual(self.ask(sleeps), "0")
        self.assert_unchanged()

    def test_a_migration_that_gets_no_lock_gives_up(self):
        self.start(PGOPTIONS="-c lock_timeout=200ms")
        reader = subprocess.Popen(
            ["psql", "-XAtq", "-d", "shop"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**clean_environment(), **self.administrator},
        )
        with reader:
            reader.stdin.write("BEGIN; SELECT count(*) FROM orders;\n")
            reader.stdin.flush()
            self.assertEqual(reader.stdout.readline(), "0\n")
            self.write("op.execute('ALTER TABLE orders ADD x int')")
            said = self.deploy("trial", 3)
        self.assertIn("canceling statement due to lock timeout", said)
        self.assert_unchanged()
        self.assertIn("can work with revision trial", self.deploy("trial", 0))

    def test_no_code_of_the_artifact_has_the_password_and_nobody_sees_it(self):
        self.start()
        # Backwards, it would not be masked. The user is no secret, and shows that this finds it.
        find = "'/'.join(os.environ.get(name, 'none')[::-1] for name in ('PGUSER', 'PGPASSWORD'))"
        # What it leaves behind, here a program that Python would start, does not run later.
        leave = "open(os.path.expanduser('~/.psqlrc'), 'w').write(r'\\! echo psqlrc')"
        self.write(f"op.execute('-- found ' + {find} + ' {PASSWORD}'); {leave}")
        said = self.deploy("trial", 0)
        self.assertIn("-- found rotargim/enon ***;", said)
        self.assertNotIn("\npsqlrc", said)

    def test_the_migrator_is_no_superuser(self):
        self.roles()
        self.administrator |= {"PGUSER": "migrator", "PGPASSWORD": PASSWORD}
        for statement in (
            "CREATE ROLE more",
            "CREATE DATABASE more",
            "CREATE SCHEMA more",
            "SET ROLE postgres",
            "COPY pg_class TO PROGRAM 'true'",
            "SELECT pg_read_file('PG_VERSION')",
        ):
            with self.subTest(statement):
                done = self.psql(statement, database="shop", check=False)
                self.assertRegex(done.stderr, "permission denied|must be superuser")

    def test_a_grant_that_was_forgotten_is_noticed(self):
        self.start()
        self.write(
            "op.execute('REVOKE INSERT ON orders FROM shop')",
            "op.execute('GRANT INSERT ON orders TO shop')",
        )
        said = self.deploy("trial", 3)
        self.assertIn("permission denied for table orders", said)
        self.assertIn("Going back from trial to 0001_orders.", said)
        self.assertEqual(self.ask("SELECT has_table_privilege('shop', 'orders', 'INSERT')"), "t")

    def test_what_an_earlier_deployment_did_is_not_undone(self):
        self.start()
        self.ask("REVOKE INSERT ON orders FROM shop")
        said = self.deploy("0001_orders", 3)
        self.assertIn("permission denied for table orders", said)
        self.assertIn("Nothing to undo: the database is at 0001_orders, as before.", said)
        self.assert_unchanged()

    def test_a_way_back_that_fails_leaves_the_new_revision_and_says_so(self):
        self.start()
        self.write("op.execute('REVOKE INSERT ON orders FROM shop')", "op.execute('SELECT 1 / 0')")
        said = self.deploy("trial", 3)
        self.assertIn("the rollback step `downgrade` failed with exit code 3", said)
        self.assertEqual(self.ask("SELECT version_num FROM alembic_version"), "trial")

    def test_sql_arrives_as_it_was_written_also_outside_a_transaction(self):
        self.start()
        self.write(
            "op.execute('COMMENT ON TABLE orders IS $$100% sold$$')\n"
            "    with op.get_context().autocommit_block():\n"
            "        op.execute('DROP INDEX CONCURRENTLY IF EXISTS by_item')\n"
            "        op.execute('CREATE INDEX CONCURRENTLY by_item ON orders (item)')"
        )
        self.deploy("trial", 0)
        self.assertEqual(self.ask("SELECT obj_description('orders'::regclass)"), "100% sold")
        self.assertEqual(self.ask("SELECT to_regclass('by_item')"), "by_item")


if __name__ == "__main__":
    unittest.main()
