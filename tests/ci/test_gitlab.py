"""GitLab's component: the expanded job in a third-party emulator (`gle`) with the real relay on a
sandbox, and the note against a server that stands for GitLab's API. The emulator does not know
components, so the inputs are put in here as GitLab does it: as text, lists as JSON."""

import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import unittest
import urllib.parse
from pathlib import Path

from kit import LIMIT, ROOT, OnSandbox, eventually, need

TEMPLATE = ROOT / "ci/gitlab/templates/deploy.yml"


def parts():
    """The inputs of the component, and its job as text."""
    import yaml  # check-jsonschema and gle need it, so the environment has it

    head, job = TEMPLATE.read_text().split("\n---\n")
    return yaml.safe_load(head)["spec"]["inputs"], job


def expanded(**given):
    """The job as GitLab makes it of the component and these inputs."""
    known, text = parts()
    given = {name.replace("_", "-"): value for name, value in given.items()}
    values = {name: given.pop(name, entry.get("default")) for name, entry in known.items()}
    assert not given, f"no such inputs: {given}"
    for name, value in values.items():
        pattern = known[name].get("regex")
        if pattern and not re.search(pattern, value):
            raise ValueError(f"{name} does not match {pattern}")
    # Rails escapes these three in JSON, and leaves other characters as they are.
    escapes = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}

    def pasted(match):
        value = values[match[1]]
        if isinstance(value, str):
            return value
        found = json.dumps(value, ensure_ascii=False)
        return re.sub("[<>&]", lambda special: escapes[special[0]], found)

    return re.sub(r"\$\[\[ inputs\.([a-z-]+) \]\]", pasted, text)


class Api(http.server.BaseHTTPRequestHandler):
    """GitLab's notes: two pages of other people's, and what is written."""

    def log_message(self, *_):
        pass

    def answer(self, status, value=None):
        body = json.dumps(value).replace(*self.server.escape).encode()
        body = body.replace(b'": ', b'":').replace(b', "', b',"')
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.server.tokens.add(self.headers["PRIVATE-TOKEN"])
        if self.server.broken:
            return self.answer(403, {"message": "403 Forbidden"})
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        page, size = int(query["page"]), int(query["per_page"])
        return self.answer(200, self.server.notes[(page - 1) * size : page * size])

    def write(self, note):
        length = int(self.headers["Content-Length"])
        fields = dict(urllib.parse.parse_qsl(self.rfile.read(length).decode()))
        note["body"] = fields["body"]
        self.server.calls.append(f"{self.command} {self.path}")
        self.answer(201, note)

    def do_POST(self):
        self.server.notes.append(made(5000 + len(self.server.notes), ""))
        self.write(self.server.notes[-1])

    def do_PUT(self):
        number = int(self.path.rsplit("/", 1)[1])
        self.write(next(note for note in self.server.notes if note["id"] == number))


def made(number, body):
    return {"id": number, "type": None, "body": body, "author": {"id": 7, "username": "a"}}


class Job(OnSandbox):
    PREFIX = "relay-gitlab-"

    @classmethod
    def setUpClass(cls):
        cls.gle = need("gle", "tests/ci/requirements.txt has it, as gitlab-emulator")
        need("curl", "the note is written with it")
        need("git", "the emulator wants a repository")
        super().setUpClass()

    def setUp(self):
        super().setUp()
        self.project = self.folder / "shop"
        self.project.mkdir()
        subprocess.run(["git", "init", "-q", self.project], check=True)
        self.environment = {**self.sandbox.environment, "HOME": str(self.folder), "GITLAB_CI": "true"}

    def start(self, variables=None, **inputs):
        inputs = {"environment": "production", "target": "demo/shell", **inputs}
        (self.project / ".gitlab-ci.yml").write_text(expanded(**inputs))
        # A job's variables reach a shell job by the environment.
        environment = {**self.environment, **(variables or {})}
        command = [self.gle, "-C", self.project, "relay-deploy"]
        return subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run_job(self, **options):
        process = self.start(**options)
        self.output, _ = process.communicate(timeout=LIMIT)
        self.assertEqual(list(self.folder.glob("shop.tmp/*")), [], "nothing is left behind")
        return process.returncode

    def result(self):
        return json.loads((self.project / "relay-result.json").read_text())

    def test_a_deployment_leaves_its_result_and_summary(self):
        (self.project / "my build").mkdir()
        (self.project / "my build/run.sh").write_text("echo from the artifact\n")
        code = self.run_job(target="demo/source", artifacts=["source=my build"])
        self.assertEqual(code, 0, self.output)
        self.assertIn("from the artifact", self.output)
        self.assertIn("section_start:", self.output, "steps are folded")
        self.assertEqual(self.result()["exit_code"], 0)
        self.assertIn("demo/source", (self.project / "relay-summary.md").read_text())

    def test_a_tool_that_fails_fails_the_job(self):
        self.assertNotEqual(self.run_job(parameters=["script=exit 37"]), 0)
        self.assertEqual(self.result()["exit_code"], 37)

    def test_odd_values_arrive_unchanged_and_run_nothing(self):
        bait = self.folder / "bait"
        odd = f"it's \"quoted\"  $(touch {bait}) `touch {bait}` ${{HOME}} $HOME \\ \\n <&> é\tEND-OF-INPUT\n- [x] # y: {{z}}"
        code = self.run_job(parameters=[f"script=cat <<'END'\n{odd}\nEND"])
        self.assertEqual(code, 0, self.output)
        self.assertIn(odd, self.output)
        self.assertFalse(bait.exists(), "no value is run as a command")

    def test_a_value_that_is_a_variable_is_replaced_and_no_other(self):
        odd = "echo \"it's $(echo one)\"; echo two"
        code = self.run_job(parameters=["script=$SCRIPT"], variables={"SCRIPT": odd})
        self.assertEqual(code, 0, self.output)
        self.assertIn("it's one\ntwo\n", self.output)
        self.assertNotEqual(self.run_job(parameters=["script=$NOT_SET"]), 0)
        self.assertIn("script=$NOT_SET names a variable that the job does not have", self.output)

    def test_inputs_that_could_be_code_are_refused(self):
        bad = {"target": "a/b'; id", "environment": "x\n  y: z", "as": "$(id)", "key": "'"}
        for name, value in bad.items():
            with self.subTest(name), self.assertRaises(ValueError):
                expanded(**{"environment": "x", "target": "a/b", name: value})

    def test_a_job_that_is_killed_cancels_the_deployment(self):
        running, stopped = self.folder / "running", self.folder / "stopped"
        script = f"trap 'touch {stopped}; exit 3' INT; touch {running}; while :; do sleep 0.1; done"
        process = self.start(parameters=[f"script={script}"])
        eventually("the tool runs", lambda: running.exists() or process.poll() is not None)
        pattern = f"--id-file {self.project}.tmp/"
        found = subprocess.run(["pgrep", "-f", "--", pattern], capture_output=True, text=True)
        self.assertTrue(found.stdout, "relay runs in the job")
        for number in found.stdout.split():
            os.kill(int(number), signal.SIGKILL)
        eventually("the tool got its stop signal", stopped.exists)
        output, _ = process.communicate(timeout=LIMIT)
        self.assertNotEqual(process.returncode, 0, output)
        self.assertRegex(output, r"relay: asked [0-9a-f-]{36} \(demo/shell\) to stop")

    def test_the_job_assumes_the_role(self):
        shown = 'printf "%s %s\\n" "$AWS_ROLE_ARN" "$(cat "$AWS_WEB_IDENTITY_TOKEN_FILE")" >&2\nexit 7\n'
        bin_folder = self.folder / "bin"
        bin_folder.mkdir()
        (bin_folder / "relay").write_text(f"#!/bin/sh\n{shown}")
        (bin_folder / "relay").chmod(0o755)
        self.environment["PATH"] = f"{bin_folder}:{self.environment['PATH']}"
        role = "arn:aws:iam::111111111111:role/relay-ci/relay-ci-shop"
        self.run_job(variables={"RELAY_ID_TOKEN": "a.b.c"}, **{"as": role})
        self.assertIn(f"{role} a.b.c", self.output)

    def test_both_streams_are_one_so_that_relay_folds(self):
        # The emulator has one stream anyway; GitLab's Docker executor has two.
        import yaml

        job = yaml.safe_load(expanded(target="demo/hello", environment="x", parameters=["name=you"]))
        environment = {**self.environment, "CI_PROJECT_DIR": str(self.project), "CI_JOB_ID": "1"}
        ended = subprocess.run(
            ["sh", "-ec", "\n".join(job["relay-deploy"]["script"])],
            env=environment,
            capture_output=True,
            text=True,
        )
        self.assertIn("section_start:", ended.stdout, ended.stderr)

    def api(self, escape=("", ""), broken=False, notes=0):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
        server.escape, server.broken = escape, broken
        server.calls, server.tokens = [], set()
        server.notes = [made(number, "<!-- relay: demo/other -->") for number in range(notes)]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        variables = {
            "CI_API_V4_URL": f"http://127.0.0.1:{server.server_port}/api/v4",
            "CI_PROJECT_ID": "12",
            "CI_MERGE_REQUEST_IID": "34",
            "RELAY_GITLAB_TOKEN": "glpat-secret",
        }
        return server, variables

    def test_the_note_is_written_once_and_then_updated(self):
        # Some versions of GitLab escape the marker in JSON. The first note is on the second page.
        for escape in (("", ""), ("<", "\\u003c")):
            server, variables = self.api(escape, notes=100)
            for _ in range(2):
                code = self.run_job(variables=variables, parameters=["script=echo '{\"id\":1}'"])
                self.assertEqual(code, 0, self.output)
            base = "/api/v4/projects/12/merge_requests/34/notes"
            self.assertEqual(server.calls, [f"POST {base}", f"PUT {base}/5100"])
            body = server.notes[-1]["body"]
            self.assertTrue(body.startswith("<!-- relay: demo/shell -->\n"), body)
            self.assertEqual(server.tokens, {"glpat-secret"})
            self.assertNotIn("glpat-secret", self.output)

    def test_a_refused_note_only_warns(self):
        server, variables = self.api(broken=True)
        self.assertEqual(self.run_job(variables=variables, parameters=["script=:"]), 0)
        self.assertIn("relay: the merge request has no note", self.output)
        self.assertEqual(server.calls, [])

    def test_without_a_token_nobody_is_asked(self):
        server, variables = self.api()
        del variables["RELAY_GITLAB_TOKEN"]
        self.assertEqual(self.run_job(variables=variables, parameters=["script=:"]), 0)
        self.assertEqual((server.calls, server.tokens), ([], set()))


class Text(unittest.TestCase):
    def test_the_expanded_job_fits_gitlabs_schema(self):
        tool = need("check-jsonschema", "tests/ci/requirements.txt has it")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / ".gitlab-ci.yml"
            file.write_text(expanded(target="shop/production", environment="production"))
            command = [tool, "--builtin-schema", "vendor.gitlab-ci", file]
            ended = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)

    def test_the_scripts_are_sound_posix_shell(self):
        shellcheck = need("shellcheck", "tests/ci/requirements.txt has it")
        import yaml

        job = yaml.safe_load(expanded(target="a/b", environment="x"))["relay-deploy"]
        for part in ("script", "after_script"):
            text = "\n".join(job[part])
            command = [shellcheck, "--shell", "sh", "--exclude", "SC2016,SC2078,SC2157,SC2089,SC2090", "-"]
            ended = subprocess.run(command, input=text, capture_output=True, text=True)
            self.assertEqual(ended.returncode, 0, ended.stdout)

    def test_the_scripts_know_whether_relay_saw_the_end(self):
        import yaml

        job = yaml.safe_load(expanded(target="a/b", environment="x"))["relay-deploy"]
        hook = (ROOT / "ci/buildkite/hooks/pre-exit").read_text()
        pattern = re.compile(r"^saw_end\(\) \{.*?^\}$", re.DOTALL | re.MULTILINE)
        functions = [pattern.search(text)[0] for text in (job["after_script"][0], hook)]
        self.assertEqual(functions[0], functions[1], "both are the same function")
        left = {"exit_code": 143, "decided_by": "relay", "reason": None}
        cases = [
            (left, False),
            ({**left, "exit_code": 130}, False),
            ({**left, "reason": "cancelled"}, True),
            ({**left, "decided_by": "tool"}, True),
            ({**left, "exit_code": 119}, True),
            ({"outputs": left, "exit_code": 0, "decided_by": "tool", "reason": None}, True),
        ]
        for result, saw in cases:
            with self.subTest(result=result), tempfile.NamedTemporaryFile("w") as file:
                json.dump(result, file, indent=2)
                file.flush()
                ended = subprocess.run(["sh", "-c", f'{functions[0]}\nsaw_end "$1"', "sh", file.name])
                self.assertEqual(ended.returncode == 0, saw)
        ended = subprocess.run(["sh", "-c", f'{functions[0]}\nsaw_end "$1"', "sh", "/dev/null"])
        self.assertNotEqual(ended.returncode, 0, "an empty file is no result")

    def test_every_awk_reads_the_lists(self):
        import yaml

        job = yaml.safe_load(expanded(target="a/b", environment="x"))["relay-deploy"]
        function = re.search(r"^words\(\) \{.*?^\}$", job["script"][0], re.DOTALL | re.MULTILINE)[0]
        values = ["a=it's", 'b="\\', "c=\n\t", "d=é€", "e=<>&", "f=", "g=$V"]
        text = re.sub("[<>&]", lambda c: f"\\u{ord(c[0]):04x}", json.dumps(values, ensure_ascii=False))
        script = function + '\neval "set -- $(words --param)"; printf "%s|" "$@"'
        for awk in filter(shutil.which, ("mawk", "gawk", "original-awk", "busybox")):
            with self.subTest(awk), tempfile.TemporaryDirectory() as folder:
                os.symlink(shutil.which(awk), Path(folder) / "awk")
                environment = {"PATH": f"{folder}:{os.environ['PATH']}", "V": "it's $V"}
                ended = subprocess.run(
                    ["sh", "-c", script], input=text, env=environment, capture_output=True, text=True
                )
                wanted = "".join(f"--param|{value}|" for value in [*values[:-1], "g=it's $V"])
                self.assertEqual(ended.stdout, wanted, ended.stderr)


if __name__ == "__main__":
    unittest.main()
