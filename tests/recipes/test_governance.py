"""Governance: the page with moto, and the rules of EventBridge on ministack."""

import json

from kit import ROOT, eventually, need
from recipe import Recipe, client

# The account of the role that the tool assumes.
PRODUCTION = {"MOTO_ACCOUNT_ID": "222222222222"}
HAND = {
    "userIdentity": {"arn": "arn:aws:iam::222222222222:user/eve"},
    "eventID": "e1",
    "sourceIPAddress": "198.51.100.7",
}


def call(service, name, parameters, **more):
    detail = {
        "eventSource": f"{service}.amazonaws.com",
        "eventName": name,
        "requestParameters": parameters,
    }
    return f"aws.{service}", "AWS API Call via CloudTrail", {**HAND, **detail, **more}


# As AWS's documents show these events, cut down to what the rules read: what is told, or None.
EVENTS = [
    (
        (
            "aws.config",
            "Config Rules Compliance Change",
            {
                "configRuleName": "relay-evidence-wants-tls",
                "resourceId": "relay-evidence-222222222222-eu-west-1",
                "newEvaluationResult": {"complianceType": "NON_COMPLIANT"},
            },
        ),
        "AWS Config: relay-evidence-222222222222-eu-west-1 does not meet relay-evidence-wants-tls"
        " in account 222222222222, eu-west-1.",
    ),
    (
        (
            "aws.config",
            "Config Rules Compliance Change",
            {
                "configRuleName": "relay-evidence-wants-tls",
                "resourceId": "x",
                "newEvaluationResult": {"complianceType": "COMPLIANT"},
            },
        ),
        None,
    ),
    (
        call("lambda", "UpdateFunctionCode20150331v2", {"functionName": "relay-launcher"}),
        "By hand: arn:aws:iam::222222222222:user/eve has called UpdateFunctionCode20150331v2",
    ),
    (
        call(
            "lambda",
            "UpdateFunctionConfiguration20150331v2",
            {"functionName": "arn:aws:lambda:eu-west-1:222222222222:function:relay-jwks"},
        ),
        "has called UpdateFunctionConfiguration20150331v2",
    ),
    (
        call("s3", "PutBucketPolicy", {"bucketName": "relay-evidence-222222222222-eu-west-1"}),
        "has called PutBucketPolicy",
    ),
    (
        call("iam", "PutRolePolicy", {"roleName": "relay-launcher-eu-west-1"}),
        "has called PutRolePolicy",
    ),
    (call("ecs", "ExecuteCommand", {"cluster": "relay", "task": "t"}), "has called ExecuteCommand"),
    (
        call("ecs", "RegisterTaskDefinition", {"family": "relay_shop_production"}),
        "has called RegisterTaskDefinition",
    ),
    (
        call("kms", "ScheduleKeyDeletion", {"keyId": "1234"}),
        "Key: arn:aws:iam::222222222222:user/eve has called",
    ),
    # A stack's update, a call that failed, somebody else's function.
    (
        call(
            "lambda",
            "UpdateFunctionCode20150331v2",
            {"functionName": "relay-launcher"},
            sourceIPAddress="cloudformation.amazonaws.com",
        ),
        None,
    ),
    (
        call(
            "s3",
            "PutBucketPolicy",
            {"bucketName": "relay-222222222222-eu-west-1"},
            errorCode="AccessDenied",
        ),
        None,
    ),
    (call("lambda", "UpdateFunctionCode20150331v2", {"functionName": "shop"}), None),
    (
        (
            "aws.guardduty",
            "GuardDuty Finding",
            {"severity": 5.3, "title": "Odd calls", "type": "Recon:IAMUser/X"},
        ),
        "GuardDuty: Odd calls (Recon:IAMUser/X) in account 222222222222, eu-west-1.",
    ),
    (("aws.guardduty", "GuardDuty Finding", {"severity": 2, "title": "t", "type": "T"}), None),
    (("relay", "Relay Deployment Ended", {"outcome": "succeeded", "deployment_id": "01a3"}), None),
    (
        (
            "relay",
            "Relay Deployment Ended",
            {
                "outcome": "refused",
                "deployment_id": "01a2",
                "target": "shop/production",
                "reason": "policy",
            },
        ),
        "relay: the deployment 01a2 of shop/production in account 222222222222 was refused (policy).",
    ),
]


def ours(source):
    return source.replace("aws.", "like-aws.")


def event_rules():
    """The rules of EventBridge in governance.yaml, as a template of their own. ministack's
    CloudFormation knows no AWS Config, and as on AWS, only AWS may put events of a source aws.*."""
    from cfnlint.decode.cfn_yaml import load

    template = load(str(ROOT / "infra/governance.yaml"))
    rules = {
        name: part
        for name, part in template["Resources"].items()
        if part["Type"] == "AWS::Events::Rule"
    }
    assert len(rules) == 5
    for rule in rules.values():
        pattern = rule["Properties"]["EventPattern"]
        if "source" in pattern:
            pattern["source"] = [ours(source) for source in pattern["source"]]
    return {"Parameters": {"FindingsTopicArn": {"Type": "String"}}, "Resources": rules}


class Governance(Recipe):
    NAME = "governance"

    def test_the_page(self):
        need("aws", "tests/recipes/requirements.txt has it, as awscli")
        start, repaired = self.run_page(ENDPOINT=self.moto(**PRODUCTION))
        first, second = repaired.split("Repaired: 1 changes.")
        self.assertRegex(first, r"Modify\s+Topic\s+AWS::SNS::Topic")
        self.assertIn("All resources are as the template says.", second)

    def test_a_repair_that_would_remove_something_is_left_to_a_person(self):
        need("aws", "tests/recipes/requirements.txt has it, as awscli")
        url = self.moto(**PRODUCTION)
        release = "Resources: {Other: {Type: AWS::SNS::Topic}}"
        storage, stacks = client("s3", url), client("cloudformation", url)
        storage.create_bucket(
            Bucket="example-code", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
        storage.put_object(Bucket="example-code", Key="relay/0.1.0/foundation.yaml", Body=release)
        body = (self.recipe / "trial/installed.yaml").read_text()
        stacks.create_stack(
            StackName="relay",
            TemplateBody=body,
            Parameters=[{"ParameterKey": "Name", "ParameterValue": "relay"}],
        )
        more = {"AWS_CONFIG_FILE": self.recipe / "aws.config", "POLL_SECONDS": "1"}
        sandbox = self.sandbox(
            "repair.toml",
            AWS_ENDPOINT_URL=url,
            **more,
        )
        done = sandbox.deploy("platform/repair-production")
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("the repair would remove or replace Topic; nothing was changed", done.stderr)
        self.assertTrue(
            stacks.describe_stack_resource(StackName="relay", LogicalResourceId="Topic")
        )

    def test_the_security_team_is_told_in_a_sentence(self):
        url = self.ministack()
        topics, queues = client("sns", url), client("sqs", url)
        topic = topics.create_topic(Name="findings")["TopicArn"]
        queue = queues.create_queue(QueueName="findings")["QueueUrl"]
        arn = queues.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])[
            "Attributes"
        ]["QueueArn"]
        topics.subscribe(
            TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"}
        )
        stacks = client("cloudformation", url)
        parameters = [{"ParameterKey": "FindingsTopicArn", "ParameterValue": topic}]
        stacks.create_stack(
            StackName="governance", TemplateBody=json.dumps(event_rules()), Parameters=parameters
        )

        def state():
            stack = stacks.describe_stacks(StackName="governance")["Stacks"][0]
            self.assertNotIn("ROLLBACK", stack["StackStatus"], stack)
            return stack["StackStatus"] == "CREATE_COMPLETE"

        eventually("the stack is there", state)
        bus = client("events", url)
        for (source, kind, detail), _ in EVENTS:
            entry = {"Source": ours(source), "DetailType": kind, "Detail": json.dumps(detail)}
            self.assertEqual(bus.put_events(Entries=[entry])["FailedEntryCount"], 0)
        expected = [said for _, said in EVENTS if said]
        told = []

        def all_told():
            answer = queues.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
            told.extend(message["Body"] for message in answer.get("Messages", []))
            return len(told) >= len(expected)

        eventually(f"each finding is told: {told}", all_told, limit=60)
        for said in expected:
            self.assertTrue(any(said in message for message in told), f"{said}: {told}")
        self.assertEqual(len(told), len(expected), told)
