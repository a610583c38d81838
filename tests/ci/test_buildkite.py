"""Buildkite's plugin: its hooks, run as the agent runs them (sourced by a wrapper, in a process
group of its own), with the real relay on a sandbox. The agent's commands are a stub."""

import os
import re
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from kit import LIMIT, ROOT, OnSandbox, eventually, need

PLUGIN = ROOT / "ci/buildkite"

# What the agent runs for a hook; the dumps of the environment are left out.
WRAPPER = """#!/usr/bin/env bash
. "$HOOK"
exit $?
"""

AGENT = """#!/bin/sh
{ printf '%s\\n' "$*"; cat; } > "$TMPDIR/annotation"
exit "${AGENT_FAILS:-0}"
"""


class Plugin(OnSandbox):
    PREFIX = "relay buildkite "

    @classmethod
    def setUpClass(cls):
        need("bash", "the hooks are written for it")
        super().setUpClass()

    def setUp(self):
        super().setUp()
        (self.folder / "bin").mkdir()
        for name, text in (("wrapper", WRAPPER), ("bin/buildkite-agent", AGENT)):
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o755)
        self.environment = {
            **self.sandbox.environment,
            "PATH": f"{self.folder}/bin:{self.sandbox.environment['PATH']}",
            "TMPDIR": str(self.folder),
            "BUILDKITE": "true",
            "BUILDKITE_JOB_ID": "0191-job",
            "BUILDKITE_PLUGIN_NAME": "RELAY",
        }

    def configure(self, **properties):
        for name, value in properties.items():
            self.environment[f"BUILDKITE_PLUGIN_RELAY_{name}"] = value

    def start(self, hook):
        return subprocess.Popen(
            [self.folder / "wrapper"],
            cwd=self.folder,
            env={**self.environment, "HOOK": str(PLUGIN / "hooks" / hook)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run_hook(self, hook):
        process = self.start(hook)
        self.output, _ = process.communicate(timeout=LIMIT)
        if hook == "command":
            self.environment["BUILDKITE_COMMAND_EXIT_STATUS"] = str(process.returncode)
        else:
            self.assertFalse((self.folder / "relay-0191-job").exists(), "no files are left behind")
        return process.returncode

    def annotation(self):
        return (self.folder / "annotation").read_text()

    def test_a_deployment_is_annotated(self):
        (self.folder / "my build").mkdir()
        (self.folder / "my build/run.sh").write_text("echo from the artifact\n")
        # By the job's own token: the sandbox stands for an issuer.
        del self.environment["RELAY_SIGNING_KEY"]
        self.configure(TARGET="demo/source", ARTIFACTS_SOURCE="my build")
        self.assertEqual(self.run_hook("command"), 0, self.output)
        self.assertIn("from the artifact", self.output)
        self.assertRegex(self.output, r"(?m)^(---|\+\+\+) .*step 1/1 run", "steps are folded")
        self.assertEqual(self.run_hook("pre-exit"), 0, self.output)
        first, rest = self.annotation().split("\n", 1)
        self.assertEqual(first, "annotate --style success --context relay-demo/source")
        self.assertIn("demo/source", rest)

    def test_a_tool_that_fails_fails_the_step_with_its_exit_code(self):
        self.configure(TARGET="demo/shell", PARAMETERS_0="script=exit 37")
        self.assertEqual(self.run_hook("command"), 37, self.output)
        self.environment["AGENT_FAILS"] = "1"
        self.assertEqual(self.run_hook("pre-exit"), 0, "an annotation that fails is only a warning")
        self.assertIn("did not accept the annotation", self.output)
        self.assertIn("--style error", self.annotation())

    def test_odd_values_arrive_unchanged_and_run_nothing(self):
        bait = self.folder / "bait"
        odd = f"it's \"quoted\"  $(touch '{bait}') `touch '{bait}'` ${{HOME}} \\ \\n * é\nsecond line"
        for form in ({"PARAMETERS_0": f"script=cat <<'E'\n{odd}\nE"}, {"PARAMETERS_SCRIPT": f"cat <<'E'\n{odd}\nE"}):
            with self.subTest(form=list(form)):
                names = [name for name in self.environment if "_PARAMETERS_" in name]
                for name in names:
                    del self.environment[name]
                self.configure(TARGET="demo/shell", **form)
                self.assertEqual(self.run_hook("command"), 0, self.output)
                self.assertIn(odd, self.output)
                self.assertFalse(bait.exists(), "no value is run as a command")
                self.run_hook("pre-exit")

    def test_lists_keep_their_items_and_maps_their_names(self):
        (self.folder / "bin/relay").write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
        (self.folder / "bin/relay").chmod(0o755)
        items = {f"PARAMETERS_{at}": f"p{at}=v" for at in range(12)}
        self.configure(TARGET="a/b", WAIT_APPROVAL="2h", ON_INTERRUPT="detach", **items)
        self.configure(ARTIFACTS_BUILD_FOLDER="x y", KEY="arn:aws:kms:key")
        self.run_hook("command")
        for at in range(12):
            self.assertIn(f"--param|p{at}=v|", self.output)
        self.assertIn("--artifact|build_folder=x y|--key|arn:aws:kms:key|--wait-approval|2h|", self.output)
        # The agent names the plugin after its folder.
        self.environment["BUILDKITE_PLUGIN_NAME"] = "OTHER"
        self.run_hook("pre-exit")
        self.environment["BUILDKITE_PLUGIN_OTHER_TARGET"] = "c/d"
        self.run_hook("command")
        self.assertTrue(self.output.startswith("deploy|c/d|--id-file|"), self.output)

    def test_without_a_target_nothing_runs(self):
        self.assertEqual(self.run_hook("command"), 119)
        self.assertIn("has no target; nothing was published", self.output)
        self.assertEqual(self.run_hook("pre-exit"), 0, self.output)

    def cancelled(self, *signals, tool=":", **properties):
        """A job whose process group gets these signals while the tool runs."""
        running, stopped = self.folder / "running", self.folder / "stopped"
        script = f"""stop() {{ {tool}; touch '{stopped}'; exit 3; }}; trap stop INT
            touch '{running}'; while :; do sleep 0.1; done"""
        self.configure(TARGET="demo/shell", PARAMETERS_SCRIPT=script, **properties)
        process = self.start("command")
        eventually("the tool runs", lambda: running.exists() or process.poll() is not None)
        for number in signals:
            os.killpg(process.pid, number)
            # relay takes two signals within half a second for one.
            time.sleep(0.8)
        self.output, _ = process.communicate(timeout=LIMIT)
        self.environment["BUILDKITE_COMMAND_EXIT_STATUS"] = str(process.returncode)
        return process.returncode, stopped

    def test_sigterm_to_the_group_reaches_relay_which_cancels(self):
        code, stopped = self.cancelled(signal.SIGTERM)
        self.assertEqual(code, 143, self.output)
        self.assertTrue(stopped.exists(), "the tool got its stop signal before relay ended")
        self.run_hook("pre-exit")
        self.assertNotIn("asked", self.output)
        self.assertIn("--style error", self.annotation())

    def test_after_a_second_signal_pre_exit_cancels_again(self):
        code, stopped = self.cancelled(signal.SIGTERM, signal.SIGTERM, tool="sleep 3")
        self.assertEqual(code, 143, self.output)
        self.assertFalse(stopped.exists(), "relay left before the tool's end")
        self.run_hook("pre-exit")
        self.assertRegex(self.output, r"relay: asked [0-9a-f-]{36} \(demo/shell\) to stop")
        eventually("the tool stopped", stopped.exists)

    def test_after_a_kill_pre_exit_cancels(self):
        code, stopped = self.cancelled(signal.SIGKILL)
        self.assertEqual(code, -signal.SIGKILL)
        self.assertFalse(stopped.exists())
        self.assertEqual(self.run_hook("pre-exit"), 0)
        self.assertRegex(self.output, r"relay: asked [0-9a-f-]{36} \(demo/shell\) to stop")
        eventually("the tool got its stop signal", stopped.exists)

    def test_after_a_kill_pre_exit_may_leave_the_deployment_running(self):
        _, stopped = self.cancelled(signal.SIGKILL, ON_INTERRUPT="detach")
        self.run_hook("pre-exit")
        identifier = re.search(r"relay attach ([0-9a-f-]{36})", self.output)[1]
        self.assertFalse(stopped.exists())
        self.assertEqual(self.sandbox.relay("cancel", identifier).returncode, 0)
        eventually("the tool got its stop signal", stopped.exists)


class Text(unittest.TestCase):
    def test_shellcheck_is_content(self):
        shellcheck = need("shellcheck", "tests/ci/requirements.txt has it")
        scripts = [PLUGIN / "hooks/command", PLUGIN / "hooks/pre-exit", PLUGIN / "lib/configuration.bash"]
        ended = subprocess.run([shellcheck, "-x", *scripts], capture_output=True, text=True)
        self.assertEqual(ended.returncode, 0, ended.stdout)

    def test_the_hooks_read_exactly_what_plugin_yml_allows(self):
        need("check-jsonschema", "PyYAML comes with it")
        import yaml

        allowed = yaml.safe_load((PLUGIN / "plugin.yml").read_text())["configuration"]["properties"]
        files = (PLUGIN / "hooks/command", PLUGIN / "hooks/pre-exit", PLUGIN / "lib/configuration.bash")
        text = "".join(file.read_text() for file in files)
        read = set(re.findall(r"(?:configured|read_(?:flag|pairs) --[a-z-]+) ([A-Z_]+)", text))
        self.assertEqual({name.upper().replace("-", "_") for name in allowed}, read)
        help_text = (PLUGIN / "README.md").read_text()
        for name in allowed:
            self.assertIn(f"`{name}`", help_text)

    def test_the_pipeline_of_the_readme_fits_buildkites_schema(self):
        tool = need("check-jsonschema", "tests/ci/requirements.txt has it")
        block = re.search(r"```yaml\n(.*?)```", (PLUGIN / "README.md").read_text(), re.DOTALL)[1]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "pipeline.yml"
            file.write_text(block)
            command = [tool, "--builtin-schema", "vendor.buildkite", file]
            ended = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)


if __name__ == "__main__":
    unittest.main()
