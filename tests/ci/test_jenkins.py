"""The Jenkins step `relayDeploy`, run by Groovy 2.4 as Jenkins has it, with the real relay on a
sandbox. Jenkins' own steps are stubs (STEPS); Jenkins itself, and its CPS, are not here."""

import json
import os
import re
import subprocess
import unittest
from pathlib import Path

from kit import LIMIT, ROOT, OnSandbox, eventually, need

STEP = ROOT / "ci/jenkins/vars/relayDeploy.groovy"

# Runs the step with the options of a JSON file, and writes what came of it as JSON.
# `sh` runs the script for real. With `abort`, it waits until that file exists, kills the process if
# `kill` says so, and throws what Jenkins throws.
STEPS = r"""
import groovy.json.*
import java.nio.file.*
import org.codehaus.groovy.control.CompilerConfiguration
import org.codehaus.groovy.control.customizers.ImportCustomizer

def given = new JsonSlurperClassic().parse(new File(args[0]))
def loader = new GroovyClassLoader(this.class.classLoader)
loader.parseClass('''package com.cloudbees.groovy.cps
    @interface NonCPS {}''')
loader.parseClass('''package org.jenkinsci.plugins.workflow.steps
    class FlowInterruptedException extends Exception {}''')
loader.parseClass('''package stub
    class AbortException extends Exception { AbortException(String m) { super(m) } }
    abstract class Steps extends Script {
        static Map given
        static List said = []
        static List labels = []
        def sh(Map step) {
            labels << step.label
            def file = File.createTempFile('script', '.sh', new File(given.tmp))
            file.text = step.script
            file.executable = true
            def command = step.script.startsWith('#!') ? [file.path] : ['sh', '-xe', file.path]
            def process = new ProcessBuilder(command).directory(new File(given.workspace)).inheritIO().start()
            if (given.abort && step.script.contains(" 'deploy' ")) {
                while (!new File(given.abort).exists() && process.alive) Thread.sleep(20)
                if (given.kill) process.destroyForcibly().waitFor()
                throw this.class.classLoader.loadClass(
                    'org.jenkinsci.plugins.workflow.steps.FlowInterruptedException').newInstance()
            }
            int code = process.waitFor()
            if (step.returnStatus) return code
            if (code) throw new AbortException('script returned exit code ' + code)
        }
        def error(String text) { throw new AbortException(text) }
        def echo(text) { said << text.toString() }
        def pwd(Map step) { step.tmp ? given.tmp : given.workspace }
        def fileExists(String file) { new File(file).exists() }
        def readFile(Map step) { new File(step.file).getText(step.encoding) }
        String folder
        def dir(String name, Closure body) { folder = name; body() }
        def deleteDir() { new File(folder).deleteDir() }
    }''')
def steps = loader.loadClass('stub.Steps')
steps.given = given
def settings = new CompilerConfiguration(scriptBaseClass: 'stub.Steps')
settings.addCompilationCustomizers(new ImportCustomizer().addImports('com.cloudbees.groovy.cps.NonCPS'))
def step = new GroovyShell(loader, new Binding(), settings).parse(new File(given.step))
def answer = [:]
try {
    answer.returned = step.call(given.options)
} catch (Exception thrown) {
    answer.thrown = thrown.class.name
    answer.message = thrown.message
}
answer.said = steps.said
answer.labels = steps.labels
new File(args[1]).text = JsonOutput.toJson(answer)
"""


def java_home():
    """Groovy wants JAVA_HOME, and Debian's default of it may be missing."""
    java = Path(need("java", "Groovy runs on it")).resolve()
    return os.environ.get("JAVA_HOME") or str(java.parents[1])


class Step(OnSandbox):
    PREFIX = "relay jenkins "

    @classmethod
    def setUpClass(cls):
        cls.groovy = need("groovy", "Debian has it as `groovy`")
        cls.home = java_home()
        super().setUpClass()

    def setUp(self):
        super().setUp()
        self.workspace = self.folder / "work space"
        self.tmp = self.folder / "work space@tmp"
        self.workspace.mkdir()
        self.tmp.mkdir()

    def run_step(self, options, **given):
        """What `relayDeploy(options)` returned, threw, echoed, and which `sh` it called."""
        harness, question, answer = (self.folder / name for name in ("steps.groovy", "in", "out"))
        harness.write_text(STEPS)
        places = {"step": str(STEP), "tmp": str(self.tmp), "workspace": str(self.workspace)}
        question.write_text(json.dumps({"options": options, **places, **given}))
        ended = subprocess.run(
            [self.groovy, harness, question, answer],
            env={**self.sandbox.environment, "JAVA_HOME": self.home},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        self.output = ended.stdout
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        self.assertEqual(list(self.tmp.glob(".relay-*")), [], "the step leaves no folder behind")
        return json.loads(answer.read_text())

    def shell(self, script, **options):
        return {"target": "demo/shell", "parameters": {"script": script}, **options}

    def test_a_deployment_returns_its_result(self):
        (self.workspace / "my build").mkdir()
        (self.workspace / "my build/run.sh").write_text('echo "built in $(pwd)"\n')
        options = {"target": "demo/source", "artifacts": {"source": "my build"}, "key": "oidc"}
        result = self.run_step(options)["returned"]
        self.assertEqual((result["exitCode"], result["outcome"]), (0, "success"))
        self.assertRegex(result["id"], r"^[0-9a-f-]{36}$")
        self.assertIn("built in", self.output)
        self.assertIn("demo/source", result["summary"])

    def test_outputs_are_returned(self):
        script = 'printf "url=https://example.com/%s\\n" "a b" > "$RELAY_OUTPUT"'
        result = self.run_step(self.shell(script))["returned"]
        self.assertEqual(result["outputs"], {"url": "https://example.com/a b"})

    def test_a_tool_that_fails_fails_the_build_with_its_exit_code(self):
        answer = self.run_step(self.shell("exit 37"))
        self.assertEqual(answer["thrown"], "stub.AbortException")
        self.assertIn("demo/shell: the tool ended with exit 37 in the step `shell`", answer["message"])
        result = self.run_step(self.shell("exit 37", returnStatus=True))["returned"]
        self.assertEqual((result["exitCode"], result["outcome"]), (37, "failure"))

    def test_a_refusal_says_that_it_is_relays(self):
        options = {"target": "demo/hello", "parameters": {"name": "NOT ALLOWED"}}
        answer = self.run_step(options)
        self.assertRegex(answer["message"], r"relay ended with exit 120 \(refused, parameter\): ")
        wrong = self.run_step({"target": "demo/hello", "param": {}})
        self.assertIn("there is no option `param`", wrong["message"])
        self.assertEqual(wrong["labels"], [], "nothing ran")

    def test_odd_values_arrive_unchanged_and_run_nothing(self):
        bait = self.folder / "bait"
        odd = f"""it's "quoted"  twice $(touch {bait}) `touch {bait}` ${{HOME}} $HOME \\ \\n !! ; & | é
        second line '"'"'
        --key x"""
        script = f"cat <<'END'\n{odd}\nEND\n"
        result = self.run_step(self.shell(script))["returned"]
        self.assertEqual(result["exitCode"], 0)
        self.assertIn(odd, self.output)
        self.assertFalse(bait.exists(), "no value is run as a command")

    def abort(self, kill, **options):
        running, stopped = self.folder / "running", self.folder / "stopped"
        script = f"trap 'touch \"{stopped}\"; exit 3' INT; touch '{running}'; while :; do sleep 0.1; done"
        answer = self.run_step(self.shell(script, **options), abort=str(running), kill=kill)
        self.assertEqual(
            answer["thrown"], "org.jenkinsci.plugins.workflow.steps.FlowInterruptedException"
        )
        return stopped, answer

    def test_an_abort_that_no_process_notices_cancels_the_deployment(self):
        stopped, answer = self.abort(kill=False)
        eventually("the tool got its stop signal", stopped.exists)
        self.assertRegex(answer["labels"][1], r"^relay cancel [0-9a-f-]{36}$")
        self.assertEqual(answer["said"], [])

    def test_an_abort_that_kills_relay_cancels_the_deployment(self):
        stopped, _ = self.abort(kill=True)
        eventually("the tool got its stop signal", stopped.exists)

    def test_a_result_says_whether_relay_saw_the_end(self):
        # The same distinction in the GitLab job and in Buildkite's hook is tested there.
        left = {"decided_by": "relay", "reason": None, "exit_code": 143}
        for result, calls in ((left, 2), ({**left, "reason": "cancelled"}, 1)):
            stub = self.folder / "relay"
            text = json.dumps(result)
            stub.write_text(f"""#!/bin/sh
                [ "$1" = deploy ] || exit 0
                while [ "$1" != --id-file ]; do shift; done
                echo 0 > "$2"; echo '{text}' > "$4"; touch '{self.folder}/running'; sleep 1""")
            stub.chmod(0o755)
            options = self.shell(":", relay=str(stub))
            answer = self.run_step(options, abort=f"{self.folder}/running", kill=True)
            self.assertEqual(len(answer["labels"]), calls, result)

    def test_an_abort_may_leave_the_deployment_running(self):
        stopped, answer = self.abort(kill=True, onInterrupt="detach")
        self.assertEqual(len(answer["labels"]), 1, "only `relay deploy` ran")
        identifier = re.search(r"relay attach ([0-9a-f-]{36})", answer["said"][0])[1]
        self.assertFalse(stopped.exists())
        self.assertEqual(self.sandbox.relay("cancel", identifier).returncode, 0)
        eventually("the tool got its stop signal", stopped.exists)


class Source(unittest.TestCase):
    """What Jenkins' CPS demands, as far as the text shows it."""

    def test_helpers_without_cps_call_no_steps_and_steps_are_in_no_closures(self):
        text = re.sub(r"//.*", "", STEP.read_text())
        self.assertNotRegex(text, r"\.(each|collect|find|findAll|any|every|inject)\w*\s*[({]")
        steps = r"\b(sh|echo|error|readFile|fileExists|pwd|dir|deleteDir)\b\s*[('\"]"
        helpers = re.findall(r"@NonCPS\n(.*?)\n}\n", text, flags=re.DOTALL)
        self.assertGreater(len(helpers), 4)
        for helper in helpers:
            self.assertNotRegex(helper, steps)

    def test_the_help_names_every_option(self):
        known = re.search(r"List known = \[(.*?)\]", STEP.read_text(), flags=re.DOTALL)[1]
        text = STEP.with_suffix(".txt").read_text()
        for option in re.findall(r"'(\w+)'", known):
            self.assertRegex(text, rf"<dt>[^<]*\b{option}\b")


if __name__ == "__main__":
    unittest.main()
