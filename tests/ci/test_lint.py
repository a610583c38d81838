"""Linters and schemas for what other people's pipelines include, and for the project's own
workflows: the action, the examples for each CI system, the workflows of the recipes, and the shell
scripts.
"""

import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from kit import LIMIT, ROOT, clean_environment, need
from test_github import node

CI = ROOT / "ci"
RECIPES = ROOT / "docs/recipes"
PLACEHOLDER = f"relay-deploy/relay@{'0' * 40}"

# Which schema is for which files below ci/. A system whose files are not there is left out.
SCHEMAS = {
    "github-workflows": ["github/examples/*.yml"],
    "gitlab-ci": ["gitlab/examples/**/*.yml", "gitlab/**/*.gitlab-ci.yml"],
    "buildkite": ["buildkite/examples/**/*.yml", "buildkite/**/pipeline.yml"],
    "circle-ci": ["circleci/examples/**/*.yml", "circleci/**/config.yml"],
}


def below(folder, *patterns):
    """The files below a folder that fit a pattern, without those that tools leave behind."""
    found = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    return sorted(file for file in found if "node_modules" not in file.parts)


# The project's own workflows.
OWN = ROOT / ".github/workflows"


def workflows():
    """The workflows of GitHub Actions that people copy."""
    return [*below(CI, "github/examples/*.yml"), *below(RECIPES, "*/*.yml")]


def is_shell(file):
    """Whether a file is a shell script, by its name or its first line."""
    if file.suffix in (".sh", ".bash"):
        return True
    with file.open("rb") as opened:
        return re.match(rb"#!.*\b(ba|da)?sh\b", opened.readline(200)) is not None


class Lint(unittest.TestCase):
    def run_tool(self, *command, cwd=ROOT):
        done = subprocess.run(
            command, cwd=cwd, env=clean_environment(), capture_output=True, text=True, timeout=LIMIT
        )
        self.assertEqual(done.returncode, 0, f"{command[0]}:\n{done.stdout}{done.stderr}")

    def repository(self):
        """A repository whose workflows are the examples, and whose action is ours: then a linter
        compares the inputs and outputs that the examples name with action.yml."""
        folder = Path(tempfile.mkdtemp(prefix="relay-lint-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        copies = folder / ".github" / "workflows"
        copies.mkdir(parents=True)
        shutil.copy(ROOT / "action.yml", folder)
        shutil.copytree(CI / "github", folder / "ci" / "github")
        for file in workflows():
            text = file.read_text()
            self.assertIn(PLACEHOLDER, text, file)
            (copies / f"{file.parent.name}-{file.name}").write_text(text.replace(PLACEHOLDER, "./"))
        for file in below(OWN, "*.yml"):
            shutil.copy(file, copies)
        subprocess.run(["git", "init", "-q", str(folder)], check=True)
        return folder

    def test_the_javascript_parses(self):
        files = below(CI, "**/*.mjs")
        self.assertTrue(files)
        for file in files:
            with self.subTest(file.name):
                self.run_tool(node(), "--check", file)

    def test_the_action_fits_its_schema(self):
        check = need("check-jsonschema", "it has the schemas")
        self.run_tool(check, "--builtin-schema", "vendor.github-actions", "action.yml")

    def test_each_example_fits_its_schema(self):
        check = need("check-jsonschema", "it has the schemas")
        self.assertTrue(below(CI, *SCHEMAS["github-workflows"]))
        schema = ["--builtin-schema", "vendor.github-workflows"]
        self.run_tool(check, *schema, *below(RECIPES, "*/*.yml"), *below(OWN, "*.yml"))
        for schema, patterns in SCHEMAS.items():
            files = below(CI, *patterns)
            if files:
                with self.subTest(schema):
                    # GitLab's own tags, such as !reference, are not YAML's.
                    tags = ["--data-transform", "gitlab-ci"] if schema == "gitlab-ci" else []
                    self.run_tool(check, "--builtin-schema", f"vendor.{schema}", *tags, *files)

    def test_actionlint_accepts_the_examples(self):
        actionlint = need("actionlint", "it checks workflows")
        folder = self.repository()
        self.run_tool(actionlint, "-shellcheck=", "-pyflakes=", cwd=folder)

    def test_zizmor_accepts_the_examples_and_the_action(self):
        zizmor = need("zizmor", "it audits workflows")
        command = [zizmor, "--offline", "--quiet", "--no-config", ROOT / "action.yml"]
        self.run_tool(*command, *workflows(), *below(OWN, "*.yml"))

    def test_the_examples_pin_every_action_to_a_commit(self):
        for file in [*workflows(), *below(OWN, "*.yml")]:
            used = re.findall(r"uses: (\S+)", file.read_text())
            self.assertTrue(used)
            for action in used:
                self.assertRegex(action, r"^[\w./-]+@[0-9a-f]{40}$", file.name)

    def test_shellcheck_accepts_the_scripts(self):
        shellcheck = need("shellcheck", "it checks shell scripts")
        folders = (CI, RECIPES, ROOT / "infra", ROOT / ".ci", ROOT / "tests")
        scripts = [file for top in folders for file in below(top, "**/*") if is_shell(file)]
        self.assertTrue(scripts)
        self.run_tool(shellcheck, *scripts)


if __name__ == "__main__":
    unittest.main()
