"""What holds for every recipe: it has a page that the index names and a test of its own, and its
targets become templates without a warning.
"""

import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from kit import LIMIT, ROOT, clean_environment, need, programs
from recipe import RECIPES, blocks

FOLDERS = sorted(path for path in RECIPES.iterdir() if path.is_dir())


def targets():
    files = sorted(RECIPES.glob("*/*.toml"))
    return [file for file in files if not file.name.endswith(".properties.toml")]


class Files(unittest.TestCase):
    def test_each_folder_has_a_page_in_the_index_and_a_test(self):
        index = (RECIPES / "README.md").read_text()
        for folder in FOLDERS:
            with self.subTest(folder.name):
                self.assertIn(f"({folder.name}/README.md)", index)
                page = (folder / "README.md").read_text()
                self.assertTrue(blocks(page), "the page has commands that a test runs")
                test = ROOT / f"tests/recipes/test_{folder.name.replace('-', '_')}.py"
                self.assertIn("run_page(", test.read_text())
                for heading in ("## Try it", "## Take it to AWS", "## Tested"):
                    self.assertIn(f"\n{heading}\n", page)

    def test_each_file_is_named_on_its_page(self):
        for folder in FOLDERS:
            page = (folder / "README.md").read_text()
            for file in sorted(folder.iterdir()):
                if file.name != "README.md":
                    kind = re.sub(r"^.*?(?=\.)", "*", file.name)
                    names = (f"({file.name})", f"`{kind}`")
                    self.assertTrue(
                        any(name in page for name in names), f"{folder.name}/{file.name}"
                    )

    def test_each_target_becomes_a_template_without_a_warning(self):
        admin = programs() / "relay-admin"
        lint = need("cfn-lint", "tests/recipes/requirements.txt has it")
        self.assertTrue(targets())
        with tempfile.TemporaryDirectory(prefix="relay-recipe-") as folder:
            for file in targets():
                checked = self.run_tool(admin, "target", "check", file)
                self.assertRegex(checked, r"^\S+: ok, sha256 [0-9a-f]{64}\n$")
                template = Path(folder) / f"{file.parent.name}-{file.stem}.yaml"
                command = [admin, "target", "render", file, "--out", template]
                role = file.with_suffix(".role.json")
                self.assertEqual(role.exists(), 'role = "arn:' in file.read_text(), role)
                if role.exists():
                    command += ["--deploy-policy", role]
                self.run_tool(*command)
            self.run_tool(lint, *sorted(Path(folder).iterdir()))

    def run_tool(self, *command):
        done = subprocess.run(
            command, env=clean_environment(), capture_output=True, text=True, timeout=LIMIT
        )
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, f"{command}:\n{said}")
        return said


if __name__ == "__main__":
    unittest.main()
