"""CloudFormation: the page with the real AWS command line, on ministack."""

import json
import signal
import subprocess
import unittest
import urllib.request

from kit import LIMIT, clean_environment, eventually, need
from recipe import Recipe, client

ACCOUNT = "222222222222"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/deployed/shop-cloudformation"

# A resource that fails after so many seconds, unless its handle gets a signal before; and one that
# waits for it.
SLOW = """
  Handle:
    Type: AWS::CloudFormation::WaitConditionHandle
  Slow:
    Type: AWS::CloudFormation::WaitCondition
    Properties: {{ Handle: !Ref Handle, Timeout: "{seconds}" }}
  After:
    Type: AWS::SQS::Queue
    DependsOn: Slow
"""
NESTED = """
  Hidden:
    Type: AWS::CloudFormation::Stack
    Properties: { TemplateURL: "https://example-bucket.s3.amazonaws.com/hidden.yaml" }
"""


class CloudFormation(Recipe):
    NAME = "cloudformation"

    def setUp(self):
        need("aws", "tests/recipes/requirements.txt has it, as awscli")
        super().setUp()
        self.template = self.recipe / "source/template.yaml"
        self.made = 0

    def emulate(self, **variables):
        """Starts the emulator; its URL."""
        self.url = self.ministack(**variables)
        self.stacks = client("cloudformation", self.url)
        return self.url

    def status(self):
        return self.stacks.describe_stacks(StackName="shop")["Stacks"][0]["StackStatus"]

    def tool(self, *arguments, fails=False, key=(ACCOUNT, "x")):
        """Runs change-set as a step does; what it prints."""
        self.made += arguments[0] == "create"
        environment = {
            **clean_environment(),
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": key[0],
            "AWS_SECRET_ACCESS_KEY": key[1],
            "AWS_DEFAULT_REGION": "eu-west-1",
            "RELAY_DEPLOYMENT_ID": str(self.made),
            "RELAY_OUTPUT": str(self.folder / "output"),
        }
        done = subprocess.run(
            [self.recipe / "tools/change-set", *arguments],
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode != 0, fails, said)
        return said

    def create(self, release="1.0", **options):
        parameter = f"ParameterKey=Release,ParameterValue={release}"
        return self.tool("create", "shop", ROLE, self.template, parameter, **options)

    def execute(self, **options):
        return self.tool("execute", "shop", "change-set.arn", **options)

    def on_relay(self):
        self.on_sandbox = self.sandbox("plan.toml", "production.toml", AWS_ENDPOINT_URL=self.url)
        self.approver = self.on_sandbox.environment["RELAY_SANDBOX_APPROVER"]

    def plan(self, release):
        result = self.folder / "plan.json"
        source = f"source={self.template.parent}"
        more = ("--artifact", source, "--result-file", result)
        done = self.on_sandbox.deploy("shop/plan", *more, release=release)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(result.read_text())["outputs"]["saved.show"]

    def production(self, plan):
        """Starts the execution of an approved plan; the process and the file with what it says."""
        said = self.folder / "production.txt"
        with said.open("wb") as out:
            process = subprocess.Popen(
                ["relay", "deploy", "shop/production", "--key", "oidc", "--param", f"plan={plan}"]
                + ["--wait-approval", "10m"],
                env=self.on_sandbox.environment,
                stdout=out,
                stderr=out,
            )
        self.addCleanup(lambda: process.poll() is None and process.kill())
        eventually("a ticket", lambda: "relay approve " in said.read_text())
        ticket = said.read_text().split("relay approve ")[1].split()[0]
        credentials = self.folder / "credentials"
        credentials.write_text(f"[target]\naws_access_key_id={ACCOUNT}\naws_secret_access_key=x\n")
        self.on_sandbox.environment["AWS_SHARED_CREDENTIALS_FILE"] = str(credentials)
        done = self.on_sandbox.relay(
            *("approve", ticket, "--target", "shop/production", "--key", self.approver),
            *("--saved-profile", "target"),
            input="shop/production\n",
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return process, said

    def test_the_page(self):
        need("jq", "the page reads the result with it")
        blocks = self.run_page(ENDPOINT=self.emulate())
        start, plan, asked, approved, same, following = blocks
        self.assertIn("CREATE of the stack shop, 2 changes", plan)
        self.assertIn("Add\tNone\tAWS::SQS::Queue\tOrders", plan)
        self.assertIn("relay approve", asked)
        # The approver reads the change set, and what was read is executed.
        self.assertRegex(approved, r"│ .*AWS::SQS::Queue")
        self.assertIn("shop: CREATE_COMPLETE", approved)
        self.assertIn("No changes: the stack has this template", same)
        self.assertIn("Modify\tFalse\tAWS::SSM::Parameter\tRunning", following)
        self.assertNotIn("Orders", following)
        self.assertEqual(self.status(), "CREATE_COMPLETE")
        value = client("ssm", self.url).get_parameter(Name="/shop/release")["Parameter"]["Value"]
        self.assertEqual(value, "1.0")

    def test_an_approved_change_set_is_not_executed_once_the_stack_has_changed(self):
        self.emulate()
        self.on_relay()
        self.create()
        self.execute()
        plan = self.plan("1.1")
        parameters = [{"ParameterKey": "Release", "ParameterValue": "by hand"}]
        self.stacks.update_stack(StackName="shop", UsePreviousTemplate=True, Parameters=parameters)
        eventually("the update by hand", lambda: self.status() == "UPDATE_COMPLETE")
        process, said = self.production(plan)
        self.assertEqual(process.wait(LIMIT), 1, said.read_text())
        self.assertIn("the stack shop has changed since", said.read_text())
        value = client("ssm", self.url).get_parameter(Name="/shop/release")["Parameter"]["Value"]
        self.assertEqual(value, "by hand")

    def test_a_cancel_has_the_update_rolled_back(self):
        self.emulate()
        self.on_relay()
        self.create()
        self.execute()
        with self.template.open("a") as template:
            template.write(SLOW.format(seconds=LIMIT))
        process, said = self.production(self.plan("1.1"))
        eventually("the update", lambda: "shop: UPDATE_IN_PROGRESS" in said.read_text())
        process.send_signal(signal.SIGINT)
        eventually("the cancel", lambda: "asked to roll the update back" in said.read_text())
        # Without a cancel, this would let the update go on.
        handle = self.stacks.describe_stack_resource(StackName="shop", LogicalResourceId="Handle")
        signal_ = {"Status": "SUCCESS", "Reason": "ready", "UniqueId": "1", "Data": ""}
        url = handle["StackResourceDetail"]["PhysicalResourceId"]
        body = json.dumps(signal_).encode()
        put = urllib.request.Request(url, body, {"Content-Type": ""}, method="PUT")
        urllib.request.urlopen(put, timeout=LIMIT).close()
        self.assertEqual(process.wait(LIMIT), 130, said.read_text())
        self.assertEqual(self.status(), "UPDATE_ROLLBACK_COMPLETE")

    def test_only_an_unused_change_set_of_the_stack_is_executed(self):
        self.emulate()
        self.create()
        file = self.folder / "change-set.arn"
        self.execute()
        self.assertIn("has been executed before", self.execute(fails=True))
        self.create("1.1")
        second = file.read_text()
        self.create("1.2")
        said = self.tool("execute", "other", "change-set.arn", fails=True)
        self.assertIn("belongs to the stack shop, not to other", said)
        self.execute()
        file.write_text(second)
        self.assertIn("the change set is gone", self.execute(fails=True))
        # One without changes: success, and nothing is executed.
        self.create("1.2")
        self.assertIn("There is nothing to execute", self.execute())
        self.assertIn("changes=0\n", (self.folder / "output").read_text())

    def test_what_cannot_be_approved_or_made_fails_with_a_reason(self):
        self.emulate()
        good = self.template.read_text()
        self.template.write_text(good + NESTED)
        self.assertIn("nested stacks are refused", self.create(fails=True))
        self.template.write_text(good.replace("SQS::Queue", "SQS::Cue"))
        self.assertIn("AWS::SQS::Cue", self.create(fails=True))
        # The first execution fails: the stack cannot be updated, and the next plan says so.
        self.template.write_text(good + SLOW.format(seconds=1))
        self.create()
        said = self.execute(fails=True)
        self.assertRegex(said, r"Slow\t\S+")
        self.assertIn("the stack shop is ROLLBACK_COMPLETE", said)
        self.assertIn("Have it deleted, then plan again", self.create(fails=True))

    def test_a_failed_update_is_rolled_back(self):
        self.emulate()
        self.create()
        self.execute()
        with self.template.open("a") as template:
            template.write(SLOW.format(seconds=1))
        self.create("1.1")
        said = self.execute(fails=True)
        self.assertRegex(said, r"Slow\t\S+")
        self.assertIn("the stack shop is UPDATE_ROLLBACK_COMPLETE", said)
        value = client("ssm", self.url).get_parameter(Name="/shop/release")["Parameter"]["Value"]
        self.assertEqual(value, "1.0")

    def test_each_role_may_do_its_own_half(self):
        self.emulate(AUTH="true")
        iam = client("iam", self.url)

        def key(name):
            policy = (self.recipe / f"{name}.role.json").read_text()
            iam.create_user(UserName=name)
            iam.put_user_policy(UserName=name, PolicyName="role", PolicyDocument=policy)
            made = iam.create_access_key(UserName=name)["AccessKey"]
            return made["AccessKeyId"], made["SecretAccessKey"]

        plan, production = key("plan"), key("production")
        self.create()
        self.tool("show", "shop", key=plan)
        denied = "not authorized to perform: cloudformation:"
        self.assertIn(f"{denied}ExecuteChangeSet", self.execute(key=plan, fails=True))
        self.assertIn("shop: CREATE_COMPLETE", self.execute(key=production))
        said = self.create("1.1", key=production, fails=True)
        self.assertIn(f"{denied}CreateChangeSet", said)


if __name__ == "__main__":
    unittest.main()
