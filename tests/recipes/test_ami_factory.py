"""AMI factory: the page with real packer, a Debian 11 from debootstrap and OpenSCAP.

All tests share one emulator and one Debian, so that it is updated once. It stands for the disk of
every instance.
"""

import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path

from kit import clean_environment, end, eventually, free_port, need, programs
from recipe import RECIPES, Recipe, client

FOLDER = RECIPES / "ami-factory"
NO_DEBIAN = 75  # the exit code of machines.py when Debian's mirror does not answer
BAKE = 600  # seconds; most of them for the updates


def start(cls, command, answers, limit):
    """Starts a server for all tests of a class, and waits until it answers."""
    log = (cls.shared / f"{len(list(cls.shared.iterdir()))}.log").open("wb")
    cls.addClassCleanup(log.close)
    environment = clean_environment()
    if mirror := os.environ.get("DEBIAN_MIRROR"):
        environment["DEBIAN_MIRROR"] = mirror
    process = subprocess.Popen(
        [str(part) for part in command], stdout=log, stderr=log, env=environment
    )
    cls.addClassCleanup(end, process)

    def ready():
        said = Path(log.name).read_text()
        if process.poll() == NO_DEBIAN:
            raise unittest.SkipTest(said)
        assert process.poll() is None, f"{command} has ended: {said}"
        return answers in said

    eventually(f"{command[0]} says {answers}", ready, limit)


class AmiFactory(Recipe):
    NAME = "ami-factory"

    @classmethod
    def setUpClass(cls):
        programs()
        why = "the page names the packages that the recipe needs"
        for tool in ("packer", "debootstrap", "oscap", "ssh-keygen", "unshare", "aws", "jq"):
            need(tool, why)
        if os.geteuid() != 0:
            raise unittest.SkipTest("only root may make a Debian and run sshd in it")
        content = "/usr/share/xml/scap/ssg/content/ssg-debian11-ds.xml"
        if not Path(content).exists():
            raise unittest.SkipTest(f"{content} is missing: {why}")
        cls.shared = Path(tempfile.mkdtemp(prefix="relay-recipe-"))
        cls.addClassCleanup(shutil.rmtree, cls.shared, True)
        port = free_port()
        cls.url = f"http://127.0.0.1:{port}"
        tool = Path(sys.executable).parent / "moto_server"
        start(cls, [tool, "-H", "127.0.0.1", "-p", port], "Running on", 60)
        cls.machines = cls.shared / "machines"
        machines = [sys.executable, FOLDER / "trial/machines.py", cls.machines, cls.url]
        start(cls, machines, "# ready", BAKE)
        cls.variables = dict(
            line.split(" ", 1)[1].split("=", 1)
            for line in (cls.machines / "arguments").read_text().splitlines()
        )
        cls.ec2 = client("ec2", cls.url)

    def setUp(self):
        super().setUp()
        shutil.copy(FOLDER / "trial/findings.json", self.machines)
        self.mail()

    def factory(self, *targets):
        """A sandbox whose tool is the copy of the factory that this test may change."""
        return self.sandbox(*targets, **self.variables)

    def bake(self, sandbox, version="2.0.0"):
        result = self.folder / "result.json"
        arguments = ["--key", "oidc", "--artifact", f"source={self.recipe / 'source'}"]
        arguments += ["--param", f"version={version}", "--result-file", result]
        done = subprocess.run(
            [programs() / "relay", "deploy", "images/bake", *arguments],
            env=sandbox.environment,
            capture_output=True,
            text=True,
            timeout=BAKE,
            check=False,
        )
        return done, (json.loads(result.read_text())["outputs"] if result.exists() else {})

    def tags(self, image):
        found = self.ec2.describe_images(ImageIds=[image])["Images"][0]["Tags"]
        return {tag["Key"]: tag["Value"] for tag in found}

    def image_of(self, version):
        named = [{"Name": "tag:version", "Values": [version]}]
        return self.ec2.describe_images(Filters=named)["Images"][0]["ImageId"]

    def alive(self):
        """The instances of the factory that have not ended."""
        states = ["pending", "running", "stopping", "stopped"]
        filters = {"tag:purpose": ["image-bake", "image-scan"], "instance-state-name": states}
        found = self.ec2.describe_instances(
            Filters=[{"Name": name, "Values": values} for name, values in filters.items()]
        )
        return [it for group in found["Reservations"] for it in group["Instances"]]

    def ran(self):
        """How many instances there have been for a scan."""
        scans = [{"Name": "tag:purpose", "Values": ["image-scan"]}]
        found = self.ec2.describe_instances(Filters=scans)["Reservations"]
        return sum(len(group["Instances"]) for group in found)

    def mail(self):
        """The subjects of what the security team has been told since the last call."""
        sqs = client("sqs", self.url)
        queue = sqs.get_queue_url(QueueName="security")["QueueUrl"]
        subjects = []
        while got := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            for message in got:
                subjects.append(json.loads(message["Body"])["Subject"])
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return subjects

    def replace(self, name, old, new):
        file = self.recipe / name
        text = file.read_text()
        self.assertIn(old, text)
        file.write_text(text.replace(old, new))

    def test_the_page(self):
        began, baked, report, rescanned = self.run_page(
            BAKE, ENDPOINT=self.url, MACHINES=str(self.machines)
        )
        self.assertIn("--tool-variable PKR_VAR_ssh_port=", began)
        # Packer's scripts have run on the Debian, and what they left is what was scanned.
        self.assertIn("Provisioning with shell script", baked)
        self.assertRegex(baked, r"hardening: \d+ fail, 38 pass, 3 unknown")
        image = re.search(r"(ami-[0-9a-f]+) is passed", baked)[1]
        self.assertRegex(baked, r'"Key": "scan",\s*"Value": "passed"')
        self.assertRegex(report, r"amazon-ssm-agent\s+0~stand-in")
        self.assertRegex(report, r"openssh-server\s+1:8.4p1-5\+deb11u[4-9]")  # it was updated
        for name in ("findings.json", "hardening.txt", "inventory.txt", "verdict.json"):
            self.assertIn(f"-passed/{name}", report)
        # The image runs, and has become vulnerable.
        self.assertIn("images in use: 1", rescanned)
        self.assertIn("CRITICAL: CVE-2024-3094 - xz-utils", rescanned)
        self.assertIn("relay finished: exit 3", rescanned)
        self.assertEqual(self.tags(image)["scan"], "vulnerable")
        self.assertEqual(self.alive(), [])
        self.assertEqual(self.mail(), [f"image {image} is passed", f"image {image} is vulnerable"])
        self.would_end_by_itself()
        self.customers_leave(image)

    def would_end_by_itself(self):
        """An instance that is scanned ends when it is shut down, which its user data ask for."""
        scans = [{"Name": "tag:purpose", "Values": ["image-scan"]}]
        group = self.ec2.describe_instances(Filters=scans)["Reservations"][0]
        name = group["Instances"][0]["InstanceId"]
        asked = {"InstanceId": name, "Attribute": "instanceInitiatedShutdownBehavior"}
        behavior = self.ec2.describe_instance_attribute(**asked)
        self.assertEqual(behavior["InstanceInitiatedShutdownBehavior"]["Value"], "terminate")
        data = self.ec2.describe_instance_attribute(InstanceId=name, Attribute="userData")
        self.assertTrue(data["UserData"]["Value"])

    def customers_leave(self, image):
        filters = [{"Name": "image-id", "Values": [image]}]
        for group in self.ec2.describe_instances(Filters=filters)["Reservations"]:
            names = [instance["InstanceId"] for instance in group["Instances"]]
            self.ec2.terminate_instances(InstanceIds=names)

    def test_a_vulnerable_image_is_tagged_and_told(self):
        shutil.copy(FOLDER / "trial/vulnerable.json", self.machines / "findings.json")
        self.replace("tools/3-harden.sh", "PermitRootLogin no", "PermitRootLogin yes")
        done, outputs = self.bake(self.factory("bake.toml"), "2.0.1")
        self.assertEqual(done.returncode, 3, done.stdout + done.stderr)
        self.assertIn("\n  CRITICAL: CVE-2024-3094 - xz-utils\n", done.stdout)
        self.assertIn("\n  hardening: the rule sshd_disable_root_login failed\n", done.stdout)
        self.assertEqual(outputs["verdict"], "vulnerable")
        image = self.image_of("2.0.1")
        self.assertEqual(self.tags(image)["scan"], "vulnerable")
        self.assertEqual(self.mail(), [f"image {image} is vulnerable"])
        self.assertEqual(self.alive(), [])

    def test_a_scan_that_crashes_leaves_no_instance(self):
        self.document("echo 'oscap: out of memory' >&2; exit 9")
        before = self.ran()
        done, _ = self.bake(self.factory("bake.toml"), "2.0.3")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("ended as Failed with code 9:\noscap: out of memory", done.stderr)
        self.not_judged("2.0.3", before)

    def test_a_scan_that_sees_too_little_is_no_verdict(self):
        # The profile of another version of Debian: nothing is applicable.
        self.document(None, "ssg-debian11-ds", "ssg-debian10-ds")
        before = self.ran()
        done, _ = self.bake(self.factory("bake.toml"), "2.0.4")
        self.assertEqual(done.returncode, 4, done.stdout + done.stderr)
        self.assertIn("0 rules of hardening passed or failed", done.stderr)
        self.not_judged("2.0.4", before)

    def cancel(self, version, when):
        """Cancels a bake when its output has this text, and checks that no instance is left."""
        sandbox = self.factory("bake.toml")
        command = [programs() / "relay", "deploy", "images/bake", "--key", "oidc"]
        command += ["--param", f"version={version}"]
        command += ["--artifact", f"source={self.recipe / 'source'}"]
        log = self.folder / "relay.log"
        with log.open("wb") as out:
            relay = subprocess.Popen(command, env=sandbox.environment, stdout=out, stderr=out)
        try:
            eventually(f"relay prints {when}", lambda: when in log.read_text(), BAKE)
            eventually("the instance is alive", self.alive)
            relay.send_signal(signal.SIGTERM)
            code = relay.wait(120)
        finally:
            relay.kill()
            relay.wait()
        self.assertEqual(code, 143, log.read_text())
        self.assertEqual(self.alive(), [])

    def test_a_cancel_in_the_middle_of_the_scan_ends_the_instance(self):
        self.document("exec sleep 300")
        before = self.ran()
        self.cancel("2.0.5", "started i-")
        self.not_judged("2.0.5", before)

    def test_a_cancel_in_the_middle_of_packers_work_ends_the_instance(self):
        self.replace("tools/1-update.sh", "set -eu", "set -eu\necho asleep\nsleep 300")
        self.cancel("2.0.6", "asleep")
        self.assertEqual(self.mail(), ["images/bake failed"])

    def document(self, script, old="", new=""):
        """Changes the document that Systems Manager runs, for one test."""
        file = self.machines / "scan.document.json"
        whole = file.read_text()
        self.addCleanup(file.write_text, whole)
        document = json.loads(whole)
        commands = document["mainSteps"][0]["inputs"]["runCommand"]
        commands[0] = script or commands[0].replace(old, new)
        file.write_text(json.dumps(document))

    def not_judged(self, version, before):
        """The image cannot be started, the instance is gone, and the security team knows."""
        image = self.image_of(version)
        self.assertEqual(self.tags(image)["scan"], "pending")
        self.assertEqual(self.ran(), before + 1)
        self.assertEqual(self.alive(), [])
        self.assertEqual(self.mail(), [f"images/bake failed for image {image}"])

    def in_use(self, count):
        """Images of which an instance runs."""
        images = sorted(image["ImageId"] for image in self.ec2.describe_images()["Images"])[:count]
        for image in images:
            self.ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)
            self.addCleanup(self.customers_leave, image)
        return images

    def test_a_rescan_goes_on_after_an_image_that_it_cannot_judge(self):
        shutil.copy(FOLDER / "trial/vulnerable.json", self.machines / "findings.json")
        bad, vulnerable = self.in_use(2)
        marker = self.folder / "marker"
        scan = json.loads((self.machines / "scan.document.json").read_text())
        scan = scan["mainSteps"][0]["inputs"]["runCommand"][0]
        self.document(f"[ -e {marker} ] || {{ touch {marker}; exit 9; }}\n{scan}")
        done = self.factory("rescan.toml").deploy("images/rescan")
        self.assertEqual(done.returncode, 3, done.stdout + done.stderr)
        self.assertIn(f"{bad} could not be judged", done.stdout)
        self.assertEqual(self.tags(vulnerable)["scan"], "vulnerable")
        self.assertEqual(self.alive(), [])
        told = [f"image {bad}: the factory failed", f"image {vulnerable} is vulnerable"]
        self.assertEqual(self.mail(), told)

    def test_a_rescan_sweeps_what_was_left_behind(self):
        self.replace("rescan.toml", '"3h"', '"0s"')
        [image] = self.in_use(1)
        purpose = [{"Key": "purpose", "Value": "image-bake"}]
        tagged = [{"ResourceType": "instance", "Tags": purpose}]
        left = self.ec2.run_instances(
            ImageId=image, MinCount=1, MaxCount=1, TagSpecifications=tagged
        )["Instances"][0]["InstanceId"]
        self.document("exit 9")
        done = self.factory("rescan.toml").deploy("images/rescan")
        self.assertIn(f"ended {left}\nimages in use: 1\n", done.stdout)
        self.assertEqual(done.returncode, 4, done.stdout + done.stderr)
        self.assertEqual(self.alive(), [])
        self.assertEqual(self.mail(), [f"image {image}: the factory failed"])


def load_factory():
    file = str(FOLDER / "tools/image-factory")
    loader = importlib.machinery.SourceFileLoader("image_factory", file)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


class Verdict(unittest.TestCase):
    """The rule, without machines."""

    DAY = date(2026, 11, 30)

    @classmethod
    def setUpClass(cls):
        cls.factory = load_factory()

    def decide(self, *severities, failed=(), rules=5, **accepted):
        findings = [
            {
                "severity": severity,
                "title": severity.lower(),
                "packageVulnerabilityDetails": {"vulnerabilityId": f"CVE-{severity}"},
            }
            for severity in severities
        ]
        rule = {
            "severities": ["CRITICAL", "HIGH"],
            "minimum_rules": 5,
            "accepted_rules": {"old": "-"},
            "accepted_findings": {f"CVE-{at}": {"until": day} for at, day in accepted.items()},
        }
        names = [*failed, *(f"rule{at}" for at in range(rules - len(failed)))]
        hardening = {name: "fail" if name in failed else "pass" for name in names}
        return self.factory.decide(rule, findings, {**hardening, "x": "notapplicable"}, self.DAY)

    def test_severities_count_and_the_others_do_not(self):
        self.assertEqual(self.decide("MEDIUM", "LOW", "UNTRIAGED"), ("passed", []))
        self.assertEqual(self.decide("LOW", "HIGH"), ("vulnerable", ["HIGH: high"]))

    def test_a_failed_rule_counts_unless_it_is_accepted(self):
        self.assertEqual(self.decide(failed=["old"])[0], "passed")
        self.assertEqual(
            self.decide(failed=["old", "new"]), ("vulnerable", ["hardening: the rule new failed"])
        )

    def test_a_finding_is_accepted_until_a_day(self):
        self.assertEqual(self.decide("HIGH", HIGH=self.DAY)[0], "passed")
        self.assertEqual(self.decide("HIGH", HIGH=date(2026, 11, 29))[0], "vulnerable")

    def test_too_few_rules_are_no_verdict_even_with_findings(self):
        with self.assertRaisesRegex(self.factory.Unjudged, "4 rules .* at least 5"):
            self.decide("CRITICAL", rules=4)

    def test_only_lines_of_rules_are_read(self):
        text = "Title: x\nxccdf_org.ssgproject.content_rule_a:pass\nerror: y\n"
        self.assertEqual(self.factory.read_hardening(text), {"a": "pass"})


def condition_holds(condition, request):
    """Whether all operators of a condition hold. A negated operator holds if the key is missing."""
    context = {key.lower(): value for key, value in request.items()}

    def one(operator, key, wanted):
        wanted = wanted if isinstance(wanted, list) else [wanted]
        value = context.get(key.lower())
        plain = operator.rpartition(":")[2]
        fits = {
            "StringEquals": lambda it: it in wanted,
            "StringNotEquals": lambda it: it not in wanted,
            "StringEqualsIgnoreCase": lambda it: it.lower() in [other.lower() for other in wanted],
            "ArnNotLike": lambda it: not any(fnmatchcase(it, pattern) for pattern in wanted),
            "Bool": lambda it: it in wanted,
        }[plain]
        if operator.startswith("ForAnyValue:"):
            return any(fits(it) for it in value or [])
        if operator.startswith("ForAllValues:"):
            return all(fits(it) for it in value or [])
        return "Not" in plain if value is None else fits(value)

    return all(one(op, key, to) for op, keys in condition.items() for key, to in keys.items())


def matches(statement, action, resource, request):
    def listed(name):
        value = statement[name]
        return value if isinstance(value, list) else [value]

    return (
        any(fnmatchcase(action, pattern) for pattern in listed("Action"))
        and any(fnmatchcase(resource, pattern) for pattern in listed("Resource"))
        and condition_holds(statement.get("Condition", {}), request)
    )


class Policies(unittest.TestCase):
    """The policies in JSON, evaluated here as AWS documents it. No emulator evaluates tags."""

    IMAGE = "arn:aws:ec2:eu-west-1::image/ami-0a1b2c3d"
    INSTANCE = "arn:aws:ec2:eu-west-1:222222222222:instance/i-0a1b2c3d"
    FACTORY = "arn:aws:iam::222222222222:role/relay-deploy/images-bake"
    SOMEBODY = "arn:aws:iam::222222222222:role/admin"

    def fits(self, file, action, resource, **request):
        """Whether a statement of the file fits. All of them deny in an SCP, and allow in a role."""
        policy = json.loads((FOLDER / file).read_text())
        effect = "Deny" if file == "start.scp.json" else "Allow"
        self.assertEqual({it["Effect"] for it in policy["Statement"]}, {effect})
        keys = {name.replace("__", ":").replace("_slash_", "/"): to for name, to in request.items()}
        return any(matches(it, action, resource, keys) for it in policy["Statement"])

    def denied(self, action, who, **request):
        return self.fits("start.scp.json", action, self.IMAGE, aws__PrincipalArn=who, **request)

    def test_only_passed_images_start(self):
        for tag, denied in (("passed", False), ("vulnerable", True), ("pending", True)):
            asked = {"ec2__ResourceTag_slash_scan": tag}
            self.assertEqual(self.denied("ec2:RunInstances", self.SOMEBODY, **asked), denied, tag)
        self.assertTrue(self.denied("ec2:RunInstances", self.SOMEBODY), "without a tag")
        self.assertFalse(self.denied("ec2:RunInstances", self.FACTORY))

    def test_only_the_factory_sets_the_verdict(self):
        for action in ("ec2:CreateTags", "ec2:DeleteTags"):
            for keys in (["scan"], ["Name", "scanned"], ["Scan"]):
                self.assertTrue(self.denied(action, self.SOMEBODY, aws__TagKeys=keys), keys)
            self.assertFalse(self.denied(action, self.SOMEBODY, aws__TagKeys=["Name"]))
            self.assertFalse(self.denied(action, self.FACTORY, aws__TagKeys=["scan"]))

    def test_the_factory_touches_its_own_instances_alone(self):
        for file in ("bake.role.json", "rescan.role.json"):
            for action, key in (
                ("ec2:RunInstances", "aws__RequestTag_slash_purpose"),
                ("ec2:TerminateInstances", "ec2__ResourceTag_slash_purpose"),
                ("ssm:SendCommand", "ssm__resourceTag_slash_purpose"),
            ):
                with self.subTest(file=file, action=action):
                    self.assertTrue(self.fits(file, action, self.INSTANCE, **{key: "image-scan"}))
                    self.assertFalse(self.fits(file, action, self.INSTANCE, **{key: "shop"}))
                    self.assertFalse(self.fits(file, action, self.INSTANCE))
            # It tags an instance while it starts, never another one afterwards.
            asked = {"aws__TagKeys": ["purpose"]}
            self.assertFalse(self.fits(file, "ec2:CreateTags", self.INSTANCE, **asked))
            self.assertTrue(
                self.fits(
                    file, "ec2:CreateTags", self.INSTANCE, ec2__CreateAction="RunInstances", **asked
                )
            )
            self.assertTrue(self.fits(file, "ec2:CreateTags", self.IMAGE, aws__TagKeys=["scan"]))
            self.assertFalse(self.fits(file, "ec2:CreateTags", self.IMAGE, aws__TagKeys=["Owner"]))
            self.assertFalse(self.fits(file, "ec2:DeregisterImage", self.IMAGE))
            role = "arn:aws:iam::222222222222:role/admin"
            asked = {"iam__PassedToService": "ec2.amazonaws.com"}
            self.assertFalse(self.fits(file, "iam:PassRole", role, **asked))


if __name__ == "__main__":
    unittest.main()
