"""What the tests of the recipes share: a recipe's folder and page, and servers that stand for AWS.

The page of a recipe is its first test: `Recipe.run_page` runs the page's blocks of commands, in
order, in one shell, as a reader would. A block marked `sh aws` needs AWS and is not run.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.request
from pathlib import Path

from kit import LIMIT, ROOT, Sandbox, clean_environment, end, eventually, free_port, programs

RECIPES = ROOT / "docs/recipes"


def blocks(page, mark=""):
    """The blocks of commands of a page that have this mark."""
    fence = re.compile(r"^```sh *([a-z-]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [text for found, text in fence.findall(page) if found == mark]


class Recipe(unittest.TestCase):
    """The tests of one recipe. Each test has a copy of the recipe's folder."""

    NAME = ""

    def setUp(self):
        programs()
        self.folder = Path(tempfile.mkdtemp(prefix="relay-recipe-"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.recipe = self.folder / self.NAME
        shutil.copytree(RECIPES / self.NAME, self.recipe)

    def run_page(self, limit=LIMIT, **variables):
        """Runs the page's blocks of commands, and returns what each has printed on stdout and
        stderr. The variables are those that the page has the reader set."""
        found = blocks((self.recipe / "README.md").read_text())
        assert found, "the page has blocks of commands"
        script = "".join(f"printf '\\n<block %s>\\n' {at}\n{text}" for at, text in enumerate(found))
        environment = {**clean_environment(), **variables, "TMPDIR": str(self.folder)}
        environment["PATH"] = f"{programs()}:{os.environ['PATH']}"
        process = subprocess.Popen(
            ["sh", "-euc", f"exec 2>&1\n{script}\nexit"],
            cwd=self.recipe,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=(out := (self.folder / "page.out").open("wb")),
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = f"still running after {limit} s"
        finally:
            out.close()
            # With what the page leaves running, such as the sandbox.
            try:
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
            process.wait()
        said = (self.folder / "page.out").read_text(errors="replace")
        self.assertEqual(code, 0, said)
        return re.split(r"^<block [0-9]+>\n", said, flags=re.MULTILINE)[1:]

    def sandbox(self, *targets, secrets=None, **variables):
        """A sandbox with targets of the recipe, and its folder `tools` on their PATH. The variables
        are given to their tools."""
        variables.setdefault("PATH", f"{self.recipe / 'tools'}:{os.environ['PATH']}")
        arguments = [part for name in targets for part in ("--target", self.recipe / name)]
        if secrets:
            file = self.folder / "secrets.toml"
            file.write_text("".join(f"{name} = '{value}'\n" for name, value in secrets.items()))
            arguments += ["--secrets", file]
        arguments += [
            part
            for name, value in variables.items()
            for part in ("--tool-variable", f"{name}={value}")
        ]
        sandbox = Sandbox(*arguments)
        sandbox.__enter__()
        self.addCleanup(sandbox.__exit__, None, None, None)
        return sandbox

    def serve(self, command, url, environment=None):
        """Starts a server, and waits until it answers."""
        log = (self.folder / f"{Path(command[0]).name}.log").open("wb")
        self.addCleanup(log.close)
        process = subprocess.Popen(
            command, env=environment or clean_environment(), stdout=log, stderr=log, cwd=self.folder
        )
        self.addCleanup(end, process)

        def answers():
            assert process.poll() is None, f"{command[0]} has ended: {Path(log.name).read_text()}"
            try:
                urllib.request.urlopen(url, timeout=5).close()
            except urllib.error.HTTPError:
                return True
            except OSError:
                return False
            return True

        eventually(f"{command[0]} answers", answers)
        return url

    def moto(self, **variables):
        """An emulator of AWS by somebody else; its URL. The variables are moto's settings."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        tool = Path(sys.executable).parent / "moto_server"
        command = [tool, "-H", "127.0.0.1", "-p", str(port)]
        return self.serve(command, url, {**clean_environment(), **variables})

    def ministack(self, **variables):
        """Another emulator of AWS by somebody else; its URL. The variables are its settings."""
        port = free_port()
        settings = {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "MINISTACK_ACCOUNT_ID": "222222222222",
            "MINISTACK_REGION": "eu-west-1",
            **variables,
        }
        tool = Path(sys.executable).parent / "ministack"
        environment = {**clean_environment(), **settings}
        return self.serve([tool], f"http://127.0.0.1:{port}", environment)


def client(service, url, region="eu-west-1"):
    """A client of boto3 for an emulator."""
    import boto3

    keys = {"aws_access_key_id": "222222222222", "aws_secret_access_key": "test"}
    return boto3.client(service, endpoint_url=url, region_name=region, **keys)
