"""CircleCI's orb: the script of its command, with parameters put in as CircleCI does it, and with
the real relay on a sandbox. `circleci run oidc get` is a stub that asks the sandbox's issuer."""

import json
import re
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

from kit import LIMIT, ROOT, OnSandbox, eventually, need, programs

ORB = ROOT / "ci/circleci/orb.yml"

# The sandbox's issuer speaks GitHub's protocol.
CIRCLECI = """#!/bin/sh
[ "$1 $2 $3 $4" = "run oidc get --claims" ] || exit 9
audience=$(printf %s "$5" | sed 's/^{"aud": "\\(.*\\)"}$/\\1/; s/:/%3A/g')
curl -fsS -H "authorization: bearer $ISSUER_TOKEN" "$ISSUER_URL&audience=$audience" |
    sed 's/.*"value" *: *"\\([^"]*\\)".*/\\1/'
"""


def orb():
    import yaml

    return yaml.safe_load(ORB.read_text())


def put(value, given):
    """A value of the orb with the parameters in it."""
    if isinstance(value, dict):
        return {name: put(inner, given) for name, inner in value.items()}
    if isinstance(value, list):
        return [put(inner, given) for inner in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"<< parameters\.([a-z-]+) >>", lambda match: given[match[1]], value)


class Command(OnSandbox):
    PREFIX = "relay circleci "

    @classmethod
    def setUpClass(cls):
        need("check-jsonschema", "PyYAML comes with it, from tests/ci/requirements.txt")
        need("curl", "the stub of circleci asks the issuer with it")
        super().setUpClass()

    def setUp(self):
        super().setUp()
        (self.folder / "bin").mkdir()
        self.program("circleci", CIRCLECI)
        environment = dict(self.sandbox.environment)
        issuer = {
            "ISSUER_URL": environment.pop("ACTIONS_ID_TOKEN_REQUEST_URL"),
            "ISSUER_TOKEN": environment.pop("ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
        }
        path = f"{self.folder}/bin:{environment['PATH']}"
        self.environment = {**environment, **issuer, "PATH": path, "TMPDIR": str(self.folder)}

    def program(self, name, text):
        (self.folder / "bin" / name).write_text(text)
        (self.folder / "bin" / name).chmod(0o755)

    def start(self, shell="bash", **given):
        command = orb()["commands"]["deploy-to"]
        given = {name.replace("_", "-"): value for name, value in given.items()}
        values = {name: entry.get("default") for name, entry in command["parameters"].items()}
        run = put(command["steps"][0]["run"], {**values, **given})
        # Elsewhere than in the one folder /tmp/relay, so that tests can run side by side.
        script = run["command"].replace('"/tmp/relay/', f'"{self.folder}/files/')
        # A file, as CircleCI runs it: with -c, a shell runs its last command in its own place.
        (self.folder / "step").write_text(script)
        options = ["-eo", "pipefail"] if shell == "bash" else ["-e"]
        return subprocess.Popen(
            [shell, *options, "./step"],
            cwd=self.folder,
            env={**self.environment, **run["environment"]},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run_step(self, **options):
        process = self.start(**options)
        self.output, _ = process.communicate(timeout=LIMIT)
        return process.returncode

    def test_a_token_for_the_request_signs_it(self):
        (self.folder / "my build").mkdir()
        (self.folder / "my build/run.sh").write_text("echo from the artifact\n")
        del self.environment["RELAY_SIGNING_KEY"]
        code = self.run_step(target="demo/source", artifacts="source=my build\n")
        self.assertEqual(code, 0, self.output)
        self.assertIn("from the artifact", self.output)
        result = json.loads((self.folder / "files/demo/source/result.json").read_text())
        self.assertEqual(result["exit_code"], 0)
        self.assertIn("demo/source", (self.folder / "files/demo/source/summary.md").read_text())
        record = subprocess.run(
            [shutil.which("relay", path=self.environment["PATH"]), "inspect"],
            input=json.dumps(result["record"]),
            capture_output=True,
            text=True,
        )
        self.assertIn("sandbox-github", record.stdout, "the token's signer asked, not the key's")

    def test_a_key_of_the_environment_signs(self):
        self.program("circleci", "#!/bin/sh\nexit 1\n")
        code = self.run_step(target="demo/shell", key="", parameters="script=exit 37")
        self.assertEqual(code, 37, self.output)

    def test_odd_values_arrive_unchanged_and_run_nothing(self):
        bait = self.folder / "bait"
        odd = f"it's \"quoted\"  $(touch '{bait}') `touch '{bait}'` ${{HOME}} $HOME \\ \\n * é"
        for shell in ("bash", "sh"):
            with self.subTest(shell):
                self.environment["ODD"] = f"cat <<'E'\n{odd}\nE"
                code = self.run_step(target="demo/shell", parameters="script=$ODD\n", shell=shell)
                self.assertEqual(code, 0, self.output)
                self.assertIn(odd, self.output)
                code = self.run_step(target="demo/hello", parameters=f"name={odd}", shell=shell)
                self.assertEqual(code, 120, "the value is passed on as it is, and refused")
                self.assertFalse(bait.exists(), "no value is run as a command")

    def test_only_a_whole_variable_is_replaced(self):
        self.program("relay", '#!/bin/sh\nprintf "%s|" "$@"\n')
        lines = "a=$ONE\nb=x$ONE\nc=$ONE y\nd=e=$ONE\nf=$EMPTY\n\ng=$(id)\nh=*"
        (self.folder / "h=found").touch()
        self.environment |= {"ONE": "1 '\"$x", "EMPTY": ""}
        self.assertEqual(self.run_step(target="a/b", key="", parameters=lines), 0, self.output)
        wanted = ["a=1 '\"$x", "b=x$ONE", "c=$ONE y", "d=e=$ONE", "f=", "g=$(id)", "h=*"]
        flags = "".join(f"--param|{item}|" for item in wanted)
        self.assertTrue(self.output.startswith(f"deploy|a/b|{flags}--id-file|"), self.output)
        self.assertEqual(self.run_step(target="a/b", parameters="a=$MISSING"), 119)
        self.assertIn("a=$MISSING names a variable that the job does not have", self.output)

    def test_the_job_assumes_the_role(self):
        self.program("relay", '#!/bin/sh\necho "$AWS_ROLE_ARN $(cat "$AWS_WEB_IDENTITY_TOKEN_FILE")"\n')
        self.environment["CIRCLE_OIDC_TOKEN_V2"] = "a.b.c"
        self.run_step(target="a/b", **{"as": "arn:role"})
        self.assertEqual(self.output, "arn:role a.b.c\n")

    def test_a_signal_to_the_step_reaches_relay_which_cancels(self):
        running, stopped = self.folder / "running", self.folder / "stopped"
        self.environment["SCRIPT"] = (
            f"trap 'touch \"{stopped}\"; exit 3' INT; touch '{running}'; while :; do sleep 0.1; done"
        )
        process = self.start(target="demo/shell", parameters="script=$SCRIPT")
        eventually("the tool runs", lambda: running.exists() or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=LIMIT)
        self.assertEqual(process.returncode, 143, output)
        self.assertTrue(stopped.exists(), "the tool got its stop signal before relay ended")


class Text(unittest.TestCase):
    def setUp(self):
        self.tool = need("check-jsonschema", "tests/ci/requirements.txt has it")

    def assert_fits(self, config):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "config.yml"
            file.write_text(config)
            command = [self.tool, "--builtin-schema", "vendor.circle-ci", file]
            ended = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)

    def test_the_example_and_the_inline_orb_fit_circlecis_schema(self):
        import yaml

        readme = (ORB.parent / "README.md").read_text()
        example = re.search(r"```yaml\n(.*?)```", readme, re.DOTALL)[1]
        self.assert_fits(example)
        inline = orb()
        del inline["version"], inline["description"]
        config = {**yaml.safe_load(example), "orbs": {"relay": inline}}
        self.assert_fits(yaml.safe_dump(config, allow_unicode=True))
        # The job's parameters are those that the example gives, and a workflow's own.
        given = config["workflows"]["release"]["jobs"][0]["relay/deploy"]
        self.assertEqual(set(given) - set(inline["jobs"]["deploy"]["parameters"]), {"serial-group", "filters"})

    def test_relay_accepts_the_signer_of_the_readme(self):
        readme = (ORB.parent / "README.md").read_text()
        signer = re.search(r"```toml\n(.*?)```", readme, re.DOTALL)[1]
        target = (ROOT / "README.md").read_text()
        target = re.search(r"```toml shop.toml\n(.*?)\[\[signers\]\].*?\n(\[\[steps.*?)```", target, re.DOTALL)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "shop.toml"
            file.write_text(target[1] + target[2] + "\n" + signer)
            command = [programs() / "relay-admin", "target", "check", file]
            ended = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)

    def test_the_job_passes_every_parameter_to_the_command(self):
        command, job = orb()["commands"]["deploy-to"], orb()["jobs"]["deploy"]
        passed = job["steps"][-1]["deploy-to"]
        self.assertEqual(set(passed), set(command["parameters"]))
        for name, entry in command["parameters"].items():
            self.assertEqual(passed[name], f"<< parameters.{name} >>")
            self.assertEqual(job["parameters"][name].get("default"), entry.get("default"))

    def test_no_parameter_is_in_the_script_and_shellcheck_is_content(self):
        shellcheck = need("shellcheck", "tests/ci/requirements.txt has it")
        run = orb()["commands"]["deploy-to"]["steps"][0]["run"]
        self.assertNotIn("<<", run["command"])
        command = [shellcheck, "--shell", "sh", "--exclude", "SC2016", "-"]
        ended = subprocess.run(command, input=run["command"], capture_output=True, text=True)
        self.assertEqual(ended.returncode, 0, ended.stdout)


if __name__ == "__main__":
    unittest.main()
