"""Self-service: the page, what is refused, what a sweep removes, and who gets in."""

import json
import os
import subprocess

from botocore.exceptions import ClientError
from kit import need
from recipe import Recipe, client

TARGET, PEOPLE = "222222222222", "111111111111"
DEVELOPERS = f"arn:aws:iam::{PEOPLE}:role/developers/"
KEEP = ("keep", "--most=2", "--days=7", f"--people={DEVELOPERS}")


class SelfService(Recipe):
    NAME = "self-service"

    def emulate(self, **settings):
        """Starts an emulator of AWS; returns its URL."""
        self.url = self.ministack(**settings)
        self.cloud = client("cloudformation", self.url)
        return self.url

    def start(self, *targets):
        """A sandbox whose tools use the emulator."""
        return self.sandbox(*targets, AWS_ENDPOINT_URL=self.emulate())

    def tool(self, *arguments, **credentials):
        """Runs the program without relay."""
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": TARGET,
            "AWS_SECRET_ACCESS_KEY": "test",
            **credentials,
        }
        command = [self.recipe / "tools/environment", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    def make(self, owner, name, now):
        """An environment that was asked for at that time, for an hour."""
        done = self.tool(f"--now={now}", *KEEP, owner, name, "1")
        self.assertEqual(done.returncode, 0, done.stderr)

    def stack(self, name, **options):
        """A stack that is no environment."""
        template = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
        self.cloud.create_stack(StackName=name, TemplateBody=json.dumps(template), **options)
        self.cloud.get_waiter("stack_create_complete").wait(
            StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )

    def busy(self, name, tags):
        """A stack that is being made for as long as nobody tells it to go on."""
        handle = {"Type": "AWS::CloudFormation::WaitConditionHandle"}
        condition = {"Handle": {"Ref": "Handle"}, "Timeout": "43200"}
        wait = {"Type": "AWS::CloudFormation::WaitCondition", "Properties": condition}
        template = json.dumps({"Resources": {"Handle": handle, "Wait": wait}})
        self.cloud.create_stack(StackName=name, TemplateBody=template, Tags=tags)

    def stacks(self):
        """The names of the stacks that there are."""
        return {stack["StackName"] for stack in self.cloud.describe_stacks()["Stacks"]}

    def ask(self, sandbox, key, owner, name="mine", hours="8"):
        return sandbox.deploy("shop/environments", key=key, owner=owner, name=name, hours=hours)

    def edit(self, file, old, new):
        text = (self.recipe / file).read_text()
        self.assertIn(old, text)
        (self.recipe / file).write_text(text.replace(old, new))

    def assert_refused(self, done, words):
        self.assertEqual(done.returncode, 120, done.stderr)
        self.assertIn(words, done.stderr)

    def assert_failed(self, done, words):
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(words, done.stderr)

    def test_the_page(self):
        need("aws", "tests/recipes/requirements.txt has it, as awscli")
        need("jq", "the page reads the result with it")
        _, _, asked, changed, refused, swept = self.run_page(ENDPOINT=self.emulate())
        self.assertIn(f"arn:aws:iam::{TARGET}:role/deployed/env-ben-checkout\n", asked)
        self.assertIn(f'"AWS": "{DEVELOPERS}ben"', asked)
        self.assertIn("env-ben-spike is removed", changed)
        self.assertIn("no policy of shop/environments permits ben to deploy this", refused)
        self.assertIn("`name` does not match its pattern", refused)
        self.assertIn("env-ben-checkout is removed", swept)
        self.assertEqual(self.stacks(), {"shop-production"})

    def test_a_token_of_sts_is_its_owner_and_nobody_else(self):
        # The sandbox's STS knows one role of the account of CI.
        self.edit("environments.toml", f"{DEVELOPERS}anna", f"arn:aws:iam::{PEOPLE}:role/ci")
        sandbox = self.start("environments.toml")
        ci = self.ask(sandbox, "oidc", "anna")
        self.assert_refused(ci, "no policy of shop/environments permits main to deploy this")
        del sandbox.environment["ACTIONS_ID_TOKEN_REQUEST_URL"]
        self.assert_refused(
            self.ask(sandbox, "oidc", "ben"),
            "no policy of shop/environments permits anna to deploy this",
        )
        self.assertEqual(self.stacks(), set())
        done = self.ask(sandbox, "oidc", "anna")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.stacks(), {"env-anna-mine"})
        trust = client("iam", self.url).get_role(RoleName="env-anna-mine")["Role"]
        [statement] = trust["AssumeRolePolicyDocument"]["Statement"]
        self.assertEqual(statement["Principal"], {"AWS": f"{DEVELOPERS}anna"})

    def test_no_name_reaches_what_is_no_environment(self):
        sandbox = self.start("environments.toml")
        ben = sandbox.environment["RELAY_SANDBOX_APPROVER"]
        for name in ("../shop-production", "-mine", "Mine", "a/b", "a" * 21, ""):
            self.assert_refused(self.ask(sandbox, ben, "ben", name), "the parameter `name`")
        for hours in ("73", "-1", "1.5", "080"):
            self.assert_refused(self.ask(sandbox, ben, "ben", hours=hours), "the parameter `hours`")
        # Somebody has called the canonical stack like an environment.
        self.stack("env-ben-live")
        self.stack("env-ben-other", Tags=[{"Key": "owner", "Value": "ben"}])
        for name, hours in (("live", "8"), ("live", "0"), ("other", "0")):
            done = self.ask(sandbox, ben, "ben", name, hours)
            self.assert_failed(done, "Nothing was changed. Choose another name")
        until = {"Key": "until", "Value": "2026-01-01T00:00:00Z"}
        self.busy("env-ben-busy", [{"Key": "owner", "Value": "ben"}, until])
        done = self.ask(sandbox, ben, "ben", "busy", "0")
        self.assert_failed(done, "env-ben-busy is busy (CREATE_IN_PROGRESS)")
        self.assertEqual(self.stacks(), {"env-ben-live", "env-ben-other", "env-ben-busy"})

    def test_nobody_has_more_or_keeps_it_longer_than_the_step_says(self):
        sandbox = self.start("environments.toml")
        ben = sandbox.environment["RELAY_SANDBOX_APPROVER"]
        for name in ("one", "two"):
            self.assertEqual(self.ask(sandbox, ben, "ben", name).returncode, 0)
        words = "ben has 2 environments (env-ben-one, env-ben-two), and 2 is the limit"
        self.assert_failed(self.ask(sandbox, ben, "ben", "three"), words)
        # Those of others do not count.
        self.make("anna", "one", "2026-12-01T00:00:00Z")
        self.assertEqual(self.ask(sandbox, ben, "ben", "two", "0").returncode, 0)
        self.assertEqual(self.ask(sandbox, ben, "ben", "three").returncode, 0)
        done = self.tool("--now=2100-01-01T00:00:00Z", *KEEP, "ben", "one", "8")
        self.assert_failed(done, "7 days after it was made, and 8 hours are more")

    def test_a_sweep_removes_what_is_over_and_nothing_else(self):
        self.edit("environments-sweep.toml", '"sweep"]', '"--now=2026-12-01T12:00:00Z", "sweep"]')
        sandbox = self.start("environments-sweep.toml")
        self.stack("shop-production")
        self.stack("env-untagged")
        # The canonical stack stays, even with the tags of an environment that is over.
        until = {"Key": "until", "Value": "2026-01-01T00:00:00Z"}
        self.stack("shop-staging", Tags=[{"Key": "owner", "Value": "anna"}, until])
        # It ends at 12:00:00, which is now.
        self.make("anna", "over", "2026-12-01T11:00:00Z")
        self.make("ben", "alive", "2026-12-01T11:00:01Z")
        # One that cannot be removed comes first, and one with a time that is none.
        self.make("anna", "broken", "2026-12-01T10:00:00Z")
        self.cloud.update_termination_protection(
            StackName="env-anna-broken", EnableTerminationProtection=True
        )
        odd = [{"Key": "owner", "Value": "carl"}, {"Key": "until", "Value": "tomorrow"}]
        self.stack("env-carl-odd", Tags=odd)
        self.busy("env-ben-busy", [{"Key": "owner", "Value": "ben"}, until])
        stay = {"shop-production", "shop-staging", "env-untagged", "env-ben-alive", "env-ben-busy"}
        done = sandbox.deploy("shop/environments-sweep")
        self.assert_failed(done, "not removed: env-anna-broken, env-carl-odd.")
        self.assertIn("env-anna-broken is still there", done.stderr)
        self.assertIn("env-untagged has no tags `owner` and `until`", done.stdout)
        self.assertEqual(self.stacks(), stay | {"env-anna-broken", "env-carl-odd"})
        # As soon as nothing is in its way, the next run removes it.
        self.cloud.delete_stack(StackName="env-carl-odd")
        self.cloud.update_termination_protection(
            StackName="env-anna-broken", EnableTerminationProtection=False
        )
        done = sandbox.deploy("shop/environments-sweep")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.stacks(), stay)

    def test_the_roles_let_the_tool_work_and_the_owner_alone_in(self):
        self.emulate(AUTH="true")
        self.stack("shop-production")
        keep = self.tool_role("environments", "ChangeWhatHasAnEnd")
        for hours in ("8", "9", "0", "8"):
            done = self.tool(*KEEP, "anna", "mine", hours, **self.variables(keep))
            self.assertEqual(done.returncode, 0, done.stderr)
        sweep = self.tool_role("environments-sweep", "RemoveWhatHasAnEnd")
        for keys in (keep, sweep):
            cloud = self.client_of(keys, "cloudformation")
            self.assert_denied(lambda: cloud.delete_stack(StackName="shop-production"))
            self.assert_denied(lambda: cloud.describe_stacks(StackName="shop-production"))
            self.assert_denied(lambda: cloud.create_stack(StackName="env-a-b", TemplateBody="{}"))

        enter = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}
        allowed = {"Version": "2012-10-17", "Statement": [enter]}
        anna, ben = (self.role(PEOPLE, "/developers/", name, allowed) for name in ("anna", "ben"))
        role = f"arn:aws:iam::{TARGET}:role/deployed/env-anna-mine"
        self.assert_denied(lambda: self.assume(self.client_of(ben, "sts"), role))
        inside = self.client_of(self.assume(self.client_of(anna, "sts"), role), "sqs")
        [found] = self.cloud.describe_stacks(StackName="env-anna-mine")["Stacks"]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}
        inside.send_message(QueueUrl=outputs["Orders"], MessageBody="an order")
        other = client("sqs", self.url).create_queue(QueueName="shop-production")["QueueUrl"]
        self.assert_denied(lambda: inside.send_message(QueueUrl=other, MessageBody="an order"))

        done = self.tool("--now=2100-01-01T00:00:00Z", "sweep", **self.variables(sweep))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.stacks(), {"shop-production"})

    def tool_role(self, name, by_tags):
        """A session of a tool's role, without the condition of one statement on the tags of the
        stack: ministack does not know them when it judges a call."""
        policy = json.loads((self.recipe / f"{name}.role.json").read_text())
        [statement] = [part for part in policy["Statement"] if part["Sid"] == by_tags]
        self.assertEqual(statement.pop("Condition")["Null"]["aws:ResourceTag/until"], "false")
        return self.role(TARGET, "/relay-deploy/", f"shop-{name}", policy)

    def variables(self, keys):
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        return dict(zip(names, keys, strict=True))

    def role(self, account, path, name, policy):
        """The credentials of a session of a new role."""
        keys = (account, "test", None)
        statement = {"Effect": "Allow", "Action": "sts:AssumeRole"}
        statement["Principal"] = {"AWS": f"arn:aws:iam::{account}:root"}
        trust = {"Version": "2012-10-17", "Statement": [statement]}
        iam = self.client_of(keys, "iam")
        made = iam.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument=json.dumps(trust))
        iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=json.dumps(policy))
        return self.assume(self.client_of(keys, "sts"), made["Role"]["Arn"])

    def assume(self, sts, role):
        session = sts.assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
        return session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"]

    def client_of(self, keys, service):
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="eu-west-1",
            aws_access_key_id=keys[0],
            aws_secret_access_key=keys[1],
            aws_session_token=keys[2],
        )

    def assert_denied(self, call):
        with self.assertRaises(ClientError) as raised:
            call()
        self.assertEqual(raised.exception.response["Error"]["Code"], "AccessDenied")
