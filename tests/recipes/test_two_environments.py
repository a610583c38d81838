"""Two environments: the page, what keeps the live one safe, and the way back."""

import json
import os
import re
import subprocess
import urllib.error
import urllib.request

from kit import LIMIT, end, eventually, need, programs
from recipe import Recipe, client

TARGET = "222222222222"


class TwoEnvironments(Recipe):
    NAME = "two-environments"

    def setUp(self):
        need("aws", "tests/recipes/requirements.txt has it, as awscli")
        super().setUp()

    def emulate(self, **settings):
        """Starts an emulator of AWS; returns its URL."""
        self.url = self.ministack(**settings)
        self.elb = client("elbv2", self.url)
        return self.url

    def build(self, **settings):
        """The balancer, and both sides at release 1.0 with blue live."""
        self.emulate(**settings)
        self.stack("shop-shared", "shared.yaml", Subnets="subnet-1", SecurityGroup="sg-1",
                   Certificate="arn:aws:acm:eu-west-1:222222222222:certificate/1",
                   Colleagues="10.0.0.0/8")  # fmt: skip
        for side in ("blue", "green"):
            self.stack(f"shop-{side}", "tools/side.yaml", Side=side, Release="1.0")
            function = f"arn:aws:lambda:eu-west-1:{TARGET}:function:shop-{side}"
            self.elb.register_targets(TargetGroupArn=self.group(side), Targets=[{"Id": function}])

    def start(self, *targets):
        """A sandbox beside them, whose tools use them."""
        self.build()
        address = f"{self.url}/_alb/shop"
        return self.sandbox(*targets, AWS_ENDPOINT_URL=self.url, ADDRESS=address)

    def listener(self):
        [balancer] = self.elb.describe_load_balancers(Names=["shop"])["LoadBalancers"]
        arn = balancer["LoadBalancerArn"]
        [listener] = self.elb.describe_listeners(LoadBalancerArn=arn)["Listeners"]
        return listener

    def stack(self, name, file, **values):
        """Makes a stack from a file of the recipe."""
        cloud = client("cloudformation", self.url)
        cloud.create_stack(
            StackName=name,
            TemplateBody=(self.recipe / file).read_text(),
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value} for key, value in values.items()
            ],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        self.wait_for("create", name)

    def wait_for(self, what, stack):
        waiter = client("cloudformation", self.url).get_waiter(f"stack_{what}_complete")
        waiter.wait(StackName=stack, WaiterConfig={"Delay": 1, "MaxAttempts": 60})

    def group(self, side):
        [found] = self.elb.describe_target_groups(Names=[f"shop-{side}"])["TargetGroups"]
        return found["TargetGroupArn"]

    def get(self, host=None):
        """What the public gets, or who asks for this host."""
        headers = {"Host": host} if host else {}
        request = urllib.request.Request(f"{self.url}/_alb/shop/health", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            return f"{error.code}"

    def assert_done(self, done):
        self.assertEqual(done.returncode, 0, done.stderr)

    def assert_failed(self, done, words):
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(words, done.stderr)

    def test_the_page(self):
        need("curl", "the page asks the balancer with it")
        url = self.emulate()
        said = [text.rstrip() for text in self.run_page(ENDPOINT=url)]
        _, _, once, idle, switched, live, bad, back = said
        self.assertTrue(once.endswith("\nblue 1.0"), once)
        self.assertTrue(idle.endswith("green 1.1\nblue 1.0"), idle)
        self.assertTrue(switched.endswith("\ngreen 1.1"), switched)
        self.assertIn("green is live: the public gets it.", live)
        self.assertIn("0 persons have approved exactly this deployment", live)
        self.assertEqual(bad.count("blue is not healthy: it answers 500"), 2, bad)
        self.assertTrue(bad.endswith("\ngreen 1.1"), bad)
        self.assertTrue(back.endswith("\nblue 1.0"), back)

    def test_green_is_blue_but_for_the_name(self):
        for end_of_name in ("toml", "properties.toml", "role.json"):
            blue = (self.recipe / f"blue.{end_of_name}").read_text()
            green = (self.recipe / f"green.{end_of_name}").read_text()
            self.assertNotIn("green", blue)
            pairs = list(zip(blue.splitlines(), green.splitlines(), strict=True))
            different = [before for before, after in pairs if before != after]
            self.assertEqual(different, [before for before, _ in pairs if "blue" in before])
            self.assertEqual(green, blue.replace("blue", "green"))

    def test_an_approval_lets_a_deployment_reach_the_live_side(self):
        sandbox = self.start("blue.toml")
        done = sandbox.deploy("shop/blue", release="1.1", live="no")
        self.assert_failed(done, "blue is live")
        self.assertEqual(self.get(), "blue 1.0\n")
        log = self.folder / "waiting.txt"
        command = ["relay", "deploy", "shop/blue", "--key", "oidc", "--param", "release=1.1",
                   "--param", "live=yes", "--wait-approval", "5m"]  # fmt: skip
        with log.open("wb") as out:
            waiting = subprocess.Popen(
                command, env=sandbox.environment, stdout=out, stderr=out, cwd=self.folder,
                executable=programs() / "relay",
            )  # fmt: skip
            self.addCleanup(end, waiting)
        found = re.compile(r"relay approve (\S+)")
        ticket = eventually("it waits for an approval", lambda: found.search(log.read_text()))[1]
        approver = sandbox.environment["RELAY_SANDBOX_APPROVER"]
        approved = sandbox.relay(
            "approve", ticket, "--target", "shop/blue", "--key", approver, input="shop/blue\n"
        )
        self.assert_done(approved)
        self.assertEqual(waiting.wait(LIMIT), 0, log.read_text())
        self.assertEqual(self.get(), "blue 1.1\n")

    def test_a_side_that_is_not_ready_is_not_switched_to(self):
        sandbox = self.start("green.toml", "traffic.toml")
        function = f"arn:aws:lambda:eu-west-1:{TARGET}:function:shop-green"
        targets = {"TargetGroupArn": self.group("green"), "Targets": [{"Id": function}]}
        self.elb.deregister_targets(**targets)
        done = sandbox.deploy("shop/traffic", to="green")
        self.assert_failed(done, "the balancer says of its targets: there is none")
        self.elb.register_targets(**targets)

        done = sandbox.deploy("shop/green", release="0.0", live="no")
        self.assert_failed(done, "green is not healthy: it answers 500")
        done = sandbox.deploy("shop/traffic", to="green")
        self.assert_failed(done, "green is not healthy: it answers 500")

        self.assert_done(sandbox.deploy("shop/green", release="1.1", live="no"))
        self.assertEqual(self.get(), "blue 1.0\n")
        self.assert_done(sandbox.deploy("shop/traffic", to="green"))
        self.assertEqual(self.get(), "green 1.1\n")
        self.assert_done(sandbox.deploy("shop/traffic", to="blue"))
        self.assertEqual(self.get(), "blue 1.0\n")

        # A stack that is being made for as long as nobody tells it to go on.
        handle = {"Type": "AWS::CloudFormation::WaitConditionHandle"}
        condition = {"Handle": {"Ref": "Handle"}, "Timeout": "43200"}
        wait = {"Type": "AWS::CloudFormation::WaitCondition", "Properties": condition}
        cloud = client("cloudformation", self.url)
        cloud.delete_stack(StackName="shop-green")
        self.wait_for("delete", "shop-green")
        template = json.dumps({"Resources": {"Handle": handle, "Wait": wait}})
        cloud.create_stack(StackName="shop-green", TemplateBody=template)
        done = sandbox.deploy("shop/traffic", to="green")
        self.assert_failed(done, "green is not ready: its stack is CREATE_IN_PROGRESS")

    def test_what_does_not_arrive_is_switched_back(self):
        text = (self.recipe / "traffic.toml").read_text()
        self.assertIn('"verify", "60"', text)
        text = text.replace('"verify", "60"', '"verify", "1"')
        (self.recipe / "traffic.toml").write_text(text)
        sandbox = self.start("traffic.toml")
        # Somebody has put a rule before the listener's default. The check by name does not see it.
        self.elb.create_rule(
            ListenerArn=self.listener()["ListenerArn"],
            Priority=1,
            Conditions=[{"Field": "host-header", "Values": ["127.0.0.1"]}],
            Actions=[{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "503"}}],
        )
        done = sandbox.deploy("shop/traffic", to="green")
        self.assert_failed(done, "but the public gets [(503,")
        self.assertIn("the public gets green; before, it got blue", done.stdout)
        self.assertIn("the public gets blue again", done.stdout)
        [action] = self.listener()["DefaultActions"]
        self.assertEqual(action["TargetGroupArn"], self.group("blue"))

    def test_the_role_of_a_side_cannot_switch_and_that_of_the_traffic_cannot_deploy(self):
        self.build(AUTH="true")
        blue, traffic = self.role("blue"), self.role("traffic")
        for role, *command in (
            (blue, "traffic", "guard", "blue", "yes"),
            (blue, "deploy-side", "blue", "1.1"),
            (blue, "traffic", "check", "blue"),
            (traffic, "traffic", "check", "green"),
            (traffic, "traffic", "switch", "green"),
            (traffic, "traffic", "verify", "60", "green"),
            (traffic, "traffic", "back"),
        ):
            self.assert_done(self.tool(role, *command))
        self.assertEqual(self.get(), "blue 1.1\n")
        for role, *command in (
            (blue, "deploy-side", "green", "1.1"),
            (blue, "traffic", "switch", "green"),
            (traffic, "deploy-side", "green", "1.1"),
        ):
            self.assertIn("AccessDenied", self.tool(role, *command).stderr)
        self.assertEqual(self.get("green.shop.example.com"), "green 1.0\n")

    def role(self, name):
        """A session of a new role with a policy of the recipe, as variables."""
        policy = (self.recipe / f"{name}.role.json").read_text()
        example = re.compile(r"arn:aws:elasticloadbalancing:[^*\"]*")
        policy = example.sub(self.listener()["ListenerArn"], policy)
        statement = {"Effect": "Allow", "Action": "sts:AssumeRole"}
        statement["Principal"] = {"AWS": f"arn:aws:iam::{TARGET}:root"}
        trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam = client("iam", self.url)
        made = iam.create_role(RoleName=f"tool-{name}", AssumeRolePolicyDocument=trust)["Role"]
        iam.put_role_policy(RoleName=f"tool-{name}", PolicyName="own", PolicyDocument=policy)
        sts = client("sts", self.url)
        session = sts.assume_role(RoleArn=made["Arn"], RoleSessionName="test")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": session["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": session["SecretAccessKey"],
            "AWS_SESSION_TOKEN": session["SessionToken"],
        }

    def tool(self, role, program, *arguments):
        """Runs a program of the image without relay."""
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "eu-west-1",
            "ADDRESS": f"{self.url}/_alb/shop",
            "DOMAIN": "shop.example.com",
            **role,
        }
        return subprocess.run(
            [self.recipe / "tools" / program, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            cwd=self.folder,
        )
