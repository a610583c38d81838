"""Terraform: the page with real terraform and a state in moto's S3."""

from kit import need
from recipe import Recipe


class Terraform(Recipe):
    NAME = "terraform"

    def setUp(self):
        self.terraform = need("terraform", "https://developer.hashicorp.com/terraform/install")
        super().setUp()

    def test_the_page(self):
        need("aws", "tests/recipes/requirements.txt has it, as awscli")
        need("jq", "the page reads the result with it")
        url = self.moto().replace("127.0.0.1", "localhost")
        start, plan, asked, approved, laptop, drift = self.run_page(ENDPOINT=url)
        self.assertIn("Plan: 1 to add, 0 to change, 0 to destroy.", plan)
        self.assertIn("relay approve", asked)
        # The approver reads the plan's text, and what was read is applied.
        self.assertIn("│ Plan: 1 to add, 0 to change, 0 to destroy.", approved)
        self.assertIn("Apply complete! Resources: 1 added, 0 changed, 0 destroyed.", approved)
        # The laptop's plan sees what was applied; its owner may not apply.
        self.assertIn("No changes.", laptop)
        self.assertIn("no policy of shop/production permits anna to deploy this", laptop)
        same, changed = drift.split("No changes.", 1)
        self.assertIn("0 to add, 1 to change, 0 to destroy.", changed)

    def test_a_provider_that_is_not_in_the_image_is_named(self):
        source = self.recipe / "source"
        (source / "main.tf").write_text('resource "null_resource" "x" {}\n')
        mirror = self.recipe / "mirror.tfrc"
        empty = self.folder / "providers"
        empty.mkdir()
        mirror.write_text(mirror.read_text().replace("/opt/terraform/providers", str(empty)))
        sandbox = self.sandbox("plan.toml", TF_CLI_CONFIG_FILE=mirror)
        done = sandbox.deploy("shop/plan", "--artifact", f"source={source}")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("hashicorp/null", done.stderr)
        self.assertIn("was not found\nin any of the search locations", done.stderr)
