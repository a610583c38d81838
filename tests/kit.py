"""What the tests in Python share: relay's programs, a sandbox, and tools to find.

`cargo xtask ci --integrations` runs the tests of `ci` and `recipes`, each folder in a virtual
environment with the packages of its requirements.txt. A test whose tool is missing skips, and says
which one. RELAY_PROGRAMS names the folder of the programs.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Seconds that anything here may take at most. Only a test that fails waits that long.
LIMIT = 180


def programs():
    """The folder with relay's programs."""
    folder = os.environ.get("RELAY_PROGRAMS")
    if not folder:
        raise unittest.SkipTest("RELAY_PROGRAMS is not set; run `cargo xtask ci --integrations`")
    return Path(folder)


def need(tool, why):
    """The path of a tool. Without it, the test skips."""
    found = shutil.which(tool)
    if found is None:
        raise unittest.SkipTest(f"{tool} is not installed: {why}")
    return found


def clean_environment():
    """The environment without anything that a CI system or AWS has set."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "JAVA_HOME")
    return {name: os.environ[name] for name in kept if name in os.environ}


def eventually(what, condition, limit=LIMIT):
    """Waits until the condition holds, and returns its value."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {limit} s: {what}")


def free_port():
    """A port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_certificate(folder):
    """Makes a certificate for localhost, tls.pem and tls.key in the folder."""
    command = [need("openssl", "a server needs a certificate"), "req", "-x509", "-newkey"]
    command += ["rsa:2048", "-nodes", "-days", "7", "-subj", "/CN=localhost", "-addext"]
    command += ["subjectAltName=DNS:localhost", "-keyout", folder / "tls.key"]
    command += ["-out", folder / "tls.pem"]
    subprocess.run(command, check=True, capture_output=True, timeout=LIMIT)


def start_registry(configuration, folder, name):
    """Starts a registry with the folder's certificate; its process and its address."""
    program = need("docker-registry", "Debian's package docker-registry has it")
    port = free_port()
    environment = {
        **os.environ,
        "REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}",
        "REGISTRY_HTTP_TLS_KEY": str(folder / "tls.key"),
        "REGISTRY_HTTP_TLS_CERTIFICATE": str(folder / "tls.pem"),
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(folder / name),
    }
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([program, "serve", configuration], env=environment, **quiet)

    def listens():
        if process.poll() is not None:
            raise AssertionError(f"the registry ended with {process.returncode}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually("the registry listens", listens)
    except AssertionError:
        end(process)
        raise
    return process, f"localhost:{port}"


def end(process):
    """Ends a process that a test has started."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Sandbox:
    """A sandbox: `with Sandbox() as sandbox`. Its arguments are those of `relay-sandbox up`."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="relay-ci-"))
        script, said = self.folder / "sandbox.env", self.folder / "sandbox.err"
        command = [programs() / "relay-sandbox", "up", *self.arguments]
        with script.open("wb") as out, said.open("wb") as err:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=err, env=clean_environment()
            )

        def is_ready():
            assert self.process.poll() is None, f"the sandbox has ended: {said.read_text()}"
            return "# ready" in script.read_text()

        eventually("the sandbox is ready", is_ready)
        answer = subprocess.run(
            ["sh", "-c", f". '{script}' && env -0"],
            env=clean_environment(),
            check=True,
            capture_output=True,
        )
        pairs = (pair.split("=", 1) for pair in answer.stdout.decode().split("\0") if "=" in pair)
        self.environment = dict(pairs)
        self.environment["PATH"] = f"{programs()}:{os.environ['PATH']}"
        return self

    def __exit__(self, *_):
        end(self.process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def relay(self, *arguments, **options):
        """Runs `relay` to its end."""
        return subprocess.run(
            [programs() / "relay", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            **options,
        )

    def deploy(self, target, *arguments, key="oidc", **parameters):
        """Runs `relay deploy` to its end, with these parameters of the target."""
        values = [f"--param={name}={value}" for name, value in parameters.items()]
        return self.relay("deploy", target, "--key", key, *values, *arguments)


class OnSandbox(unittest.TestCase):
    """Tests that share a sandbox. Each has a folder of its own."""

    PREFIX = "relay-ci-"

    @classmethod
    def setUpClass(cls):
        sandbox = Sandbox()
        cls.sandbox = sandbox.__enter__()
        cls.addClassCleanup(sandbox.__exit__, None, None, None)

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix=self.PREFIX)
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
