"""Canary: the page on moto's load balancer and CloudWatch, and what makes a canary end early."""

import http.server
import json
import signal
import subprocess
import threading
import unittest
import urllib.request

from kit import LIMIT, clean_environment, eventually, need
from recipe import Recipe, client

ALARMS = ("shop-errors", "shop-latency")
CANARY = ("deploy", "shop/canary", "--param", "version=2.0", "--key")


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve(test, handler):
    """A server on loopback; its URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    test.addCleanup(server.server_close)
    test.addCleanup(server.shutdown)
    return f"http://127.0.0.1:{server.server_port}"


class Canary(Recipe):
    NAME = "canary"

    def setUp(self):
        super().setUp()
        self.versions = versions = {"shop-blue": "1.0", "shop-green": "2.0"}

        class Shop(Handler):
            """The service: each group, which the header chooses, has a version."""

            def do_GET(self):
                self.answer(200, versions[self.headers["X-Shop-Group"]].encode())

        self.shop = serve(self, Shop)

    def emulate(self):
        """moto, with the stack of the recipe, and with alarms that are OK."""
        self.url = self.moto()
        subnet = client("ec2", self.url).describe_subnets()["Subnets"][0]
        stacks = client("cloudformation", self.url)
        stacks.create_stack(
            StackName="shop",
            TemplateBody=(self.recipe / "load-balancer.yaml").read_text(),
            Parameters=[
                {"ParameterKey": "VpcId", "ParameterValue": subnet["VpcId"]},
                {"ParameterKey": "Subnets", "ParameterValue": subnet["SubnetId"]},
            ],
        )
        self.rule = stacks.describe_stacks()["Stacks"][0]["Outputs"][0]["OutputValue"]
        for alarm in ALARMS:
            client("cloudwatch", self.url).put_metric_alarm(
                AlarmName=alarm,
                Namespace="test",
                MetricName=alarm,
                Statistic="Sum",
                Period=60,
                EvaluationPeriods=1,
                Threshold=1,
                ComparisonOperator="GreaterThanThreshold",
            )

    def on_relay(self):
        self.emulate()
        self.relay_ = self.sandbox(
            *("canary.toml", "back.toml"),
            AWS_ENDPOINT_URL=self.url,
            TRAFFIC_RULE=self.rule,
            SHOP_URL=f"{self.shop}/version",
        )
        self.anna = self.relay_.environment["RELAY_SANDBOX_APPROVER"]

    def set_alarm(self, state, alarm="shop-errors"):
        client("cloudwatch", self.url).set_alarm_state(
            AlarmName=alarm, StateValue=state, StateReason="the test says so"
        )

    def shares(self):
        """The weight of each group."""
        rule = client("elbv2", self.url).describe_rules(RuleArns=[self.rule])["Rules"][0]
        groups = rule["Actions"][0]["ForwardConfig"]["TargetGroups"]
        return {group["TargetGroupArn"].split("/")[1]: group["Weight"] for group in groups}

    def assert_live(self, group):
        other = {"shop-blue": "shop-green", "shop-green": "shop-blue"}[group]
        self.assertEqual(self.shares(), {group: 100, other: 0})

    def relay(self, *arguments, code):
        """Runs `relay` to its end; what it says."""
        done = self.relay_.relay(*arguments)
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, code, said)
        return said

    def start(self, *arguments):
        """Starts `relay` in the background; the process and the file with what it says."""
        said = self.folder / "deploy.txt"
        with said.open("wb") as out:
            process = subprocess.Popen(
                ["relay", *arguments], env=self.relay_.environment, stdout=out, stderr=out
            )
        self.addCleanup(lambda: process.poll() is None and process.kill())
        return process, said

    def start_to_watch(self, watch="10m", key="oidc"):
        process, said = self.start(*CANARY, key, "--param", f"watch={watch}")
        self.await_gate(process, said, 1)
        self.assertEqual(self.shares(), {"shop-blue": 90, "shop-green": 10})
        return process, said

    def await_gate(self, process, said, count):
        """Waits until the gate has read the alarms for the first time, in so many steps."""

        def watches():
            self.assertIsNone(process.poll(), said.read_text())
            return said.read_text().count("\n0 s: shop-errors") == count

        eventually(f"gate {count} watches", watches)

    def test_the_page(self):
        need("aws", "tests/recipes/requirements.txt has it, as awscli")
        self.versions["shop-blue"] = "2.0"
        self.url = self.moto()
        blocks = self.run_page(ENDPOINT=self.url, SHOP=f"{self.shop}/version")
        create, start, ci, person, alarm, later = blocks
        self.assertIn("no policy of shop/canary permits", ci)
        self.assertIn("shop-blue is live, shop-green is the new group", person)
        self.assertIn("traffic: shop-blue 90, shop-green 10", person)
        self.assertIn("traffic: shop-blue 0, shop-green 100", person)
        self.assertEqual(person.count("shop-errors, shop-latency: OK after 5 s"), 2)
        self.assertIn("alarm-gate: shop-errors is in ALARM", alarm)
        self.assertTrue(alarm.rstrip().endswith("output verified"), alarm)
        self.assertIn("traffic: shop-blue 0, shop-green 100", alarm.split("in ALARM")[1])
        self.assertIn("traffic: shop-blue 100, shop-green 0", later)
        self.assertIn("no policy of shop/back permits", later)

    def test_an_alarm_in_either_watch_takes_the_traffic_back(self):
        self.on_relay()
        process, said = self.start_to_watch()
        self.set_alarm("ALARM")
        self.assertEqual(process.wait(LIMIT), 10, said.read_text())
        self.assertIn("shop-errors: the test says so", said.read_text())
        self.assert_live("shop-blue")
        # Once everything has been shifted.
        self.set_alarm("OK")
        process, said = self.start(*CANARY, self.anna, "--param", "watch=5s")
        self.await_gate(process, said, 2)
        self.assert_live("shop-green")
        self.set_alarm("ALARM")
        self.assertEqual(process.wait(LIMIT), 10, said.read_text())
        self.assert_live("shop-blue")

    def test_missing_data_fails_in_the_end_and_not_before(self):
        self.on_relay()
        self.set_alarm("INSUFFICIENT_DATA", "shop-latency")
        said = self.relay(*CANARY, self.anna, "--param", "watch=5s", code=11)
        self.assertIn("shop-latency has no data after 5 s", said)
        self.assert_live("shop-blue")
        process, said = self.start_to_watch("5s", self.anna)
        self.set_alarm("OK", "shop-latency")
        self.assertEqual(process.wait(LIMIT), 0, said.read_text())
        self.assert_live("shop-green")

    def test_a_cancel_takes_the_traffic_back(self):
        self.on_relay()
        process, said = self.start_to_watch()
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(LIMIT), 130, said.read_text())
        self.assertIn("interrupted; the gate has not passed", said.read_text())
        self.assert_live("shop-blue")
        process, said = self.start_to_watch()
        deployment = said.read_text().split("shop/canary as ")[1].split()[0]
        self.relay("cancel", deployment, "--key", "oidc", code=0)
        self.assertEqual(process.wait(LIMIT), 130, said.read_text())
        self.assert_live("shop-blue")

    def test_ci_cannot_hurry_and_cannot_choose_the_group(self):
        self.on_relay()
        for parameters, why in (
            (("--param", "watch=5s"), "no policy of shop/canary permits"),
            (("--param", "watch=1m"), "watch"),
            (("--param", "watch=10m", "--param", "to=shop-blue"), "to"),
        ):
            self.assertIn(why, self.relay(*CANARY, "oidc", *parameters, code=120))
        self.assert_live("shop-blue")

    def test_a_wrong_version_gets_no_traffic(self):
        self.on_relay()
        tool = self.recipe / "tools/traffic"
        tool.write_text(tool.read_text().replace("WITHIN = 60", "WITHIN = 1"))
        self.versions["shop-green"] = "1.9"
        said = self.relay(*CANARY, "oidc", "--param", "watch=10m", code=1)
        self.assertIn("shop-green has to answer", said)
        self.assertIn("but answers '1.9'", said)
        self.assertNotIn("shop-blue 90", said)
        self.assert_live("shop-blue")

    def test_a_choice_of_a_person_stands(self):
        self.on_relay()
        process, said = self.start_to_watch("5s", self.anna)
        back = ("deploy", "shop/back", "--key", self.anna, "--param", "to=shop-green")
        self.relay(*back, code=0)
        self.assertEqual(process.wait(LIMIT), 1, said.read_text())
        self.assertIn("somebody else has shifted the traffic since", said.read_text())
        self.assertIn("left as somebody else has shifted it", said.read_text())
        self.assert_live("shop-green")

    def run_traffic(self, *arguments, fails=False):
        return self.run_tool("traffic", *arguments, code=1 if fails else 0)

    def run_tool(self, *command, code=0, url=None):
        command = [self.recipe / "tools" / command[0], *command[1:]]
        done = subprocess.run(command, timeout=LIMIT, **self.as_a_step(url))
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, code, said)
        return said

    def as_a_step(self, url=None):
        environment = {
            **clean_environment(),
            "AWS_ENDPOINT_URL": url or self.url,
            "AWS_ACCESS_KEY_ID": "222222222222",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "TRAFFIC_RULE": self.rule,
            "SHOP_URL": f"{self.shop}/version",
        }
        return {"env": environment, "cwd": self.folder, "text": True, "capture_output": True}

    def test_back_works_from_any_point_and_twice(self):
        self.emulate()
        self.assertIn("nothing has been shifted", self.run_traffic("back"))
        self.run_traffic("begin")
        for percent in (None, "10", "100"):
            if percent:
                self.run_traffic("share", percent)
            for _ in range(2):
                self.assertIn("shop-blue 100, shop-green 0", self.run_traffic("back"))
            self.assert_live("shop-blue")
            if percent:
                self.run_traffic("begin")
        # As after a task that died: nobody guesses which group was live.
        self.run_traffic("share", "10")
        (self.folder / "traffic.json").unlink()
        self.assertIn("deploy shop/back", self.run_traffic("begin", fails=True))
        self.run_traffic("back")
        self.assertEqual(self.shares(), {"shop-blue": 90, "shop-green": 10})
        self.run_traffic("only", "shop-blue")
        self.run_traffic("begin")

    def test_the_gate_asks_again_when_cloudwatch_fails(self):
        self.emulate()
        faults = []
        moto = self.url

        class CloudWatch(Handler):
            """moto's CloudWatch, with faults in front of it."""

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if faults:
                    status, kind = faults[0]
                    if len(faults) > 1:
                        faults.pop(0)
                    if kind:
                        said = {"__type": kind, "message": "a fault of the test"}
                        self.answer(status, json.dumps(said).encode())
                        return
                request = urllib.request.Request(moto + self.path, body, dict(self.headers))
                with urllib.request.urlopen(request) as answer:
                    self.answer(answer.status, answer.read())

        url = serve(self, CloudWatch)

        def gate(*first, code=0):
            faults[:] = first
            options = ("--for", "2s", "--every", "1s", "--blind", "4s")
            return self.run_tool("alarm-gate", *ALARMS, *options, code=code, url=url)

        said = gate((400, "Throttling"), (503, "ServiceUnavailable"), (200, None))
        self.assertEqual(said.count("CloudWatch gave no answer; asking again in 1 s"), 2)
        self.assertIn("Throttling", said)
        self.assertIn("ServiceUnavailable", said)
        self.assertIn("OK after 2 s", said)
        said = gate((503, "ServiceUnavailable"), code=12)
        self.assertIn("CloudWatch has given no answer for", said)
        said = gate((403, "AccessDenied"), code=12)
        self.assertIn("refuses to tell the state", said)
        self.assertNotIn("asking again", said)
        said = self.run_tool("alarm-gate", "shop-eror", "--for", "1s", code=12)
        self.assertIn("no metric alarm named shop-eror", said)


if __name__ == "__main__":
    unittest.main()
