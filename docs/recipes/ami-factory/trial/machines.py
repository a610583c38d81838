#!/usr/bin/env python3
"""What the trial has in place of AWS, beside an emulator of EC2, S3, SNS and IAM.

An emulator has no machines. Here a Debian 11 made by debootstrap stands for all of them: for the
instance that packer bakes, with sshd on loopback, and for each instance that is scanned. This
program also stands for Systems Manager, which runs the document of the scan, and for Amazon
Inspector, whose findings it reads from FOLDER/findings.json. Debian 11 has no package of OpenSCAP,
so the scan runs on this machine and looks into that Debian (OSCAP_PROBE_ROOT).

    machines.py FOLDER ENDPOINT

It prepares FOLDER, writes the --tool-variable arguments of the sandbox into FOLDER/arguments,
prints `# ready`, and serves until it is ended. It needs root, for chroot.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import boto3

HERE = Path(__file__).resolve().parent
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
CACHE = Path.home() / ".cache/relay/ami-factory/bullseye"
PACKAGES = "ca-certificates,openssh-server,sudo,systemd-sysv"
REGION = "eu-west-1"
NO_DEBIAN = 75  # the exit code


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, **options)


def make_debian(root):
    """Copies a Debian 11, which is made once for each user of this machine."""
    try:
        urllib.request.urlopen(f"{MIRROR}/dists/bullseye/Release", timeout=60).close()
    except OSError as error:
        print(f"machines.py: {MIRROR} cannot be reached; set DEBIAN_MIRROR: {error}")
        sys.exit(NO_DEBIAN)
    if not CACHE.exists():
        partial = CACHE.with_name(f"partial-{os.getpid()}")
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            made = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bullseye"]
            run(*made, partial, MIRROR, stdout=sys.stderr)
            partial.rename(CACHE)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    run("cp", "-a", "--reflink=auto", CACHE, root)
    (root / "etc/apt/sources.list").write_text(
        f"deb {MIRROR} bullseye main\ndeb {MIRROR}-security bullseye-security main\n"
    )
    (root / "boot/System.map-stand-in").touch()  # it has no kernel
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost {socket.gethostname()}\n")
    (root / "etc/resolv.conf").write_text(Path("/etc/resolv.conf").read_text())


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_sshd(folder, root):
    """The sshd by which packer reaches the instance. The bake hardens another configuration."""
    port, own = free_port(), root / "run/trial"
    own.mkdir(parents=True)
    (root / "run/sshd").mkdir(exist_ok=True)
    for name in (folder / "key", own / "host"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name)
    shutil.copy(folder / "key.pub", own / "authorized")
    (own / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey /run/trial/host\nUsePAM no\n"
        "AuthorizedKeysFile /run/trial/authorized\nPermitRootLogin prohibit-password\n"
        "Subsystem sftp /usr/lib/openssh/sftp-server\n"
    )
    # Namespaces of its own: when the first process ends, so does everything that it has started.
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={root}/proc"]
    command += ["chroot", root, "/usr/sbin/sshd", "-D", "-e", "-f", "/run/trial/config"]
    log = (folder / "sshd.log").open("wb")
    return port, subprocess.Popen(command, stdout=log, stderr=log)


def make_agents(folder):
    """Empty packages in place of AWS's agents, which cannot be had from Debian."""
    agents = folder / "agents"
    for name in ("amazon-ssm-agent", "amazon-cloudwatch-agent"):
        control = folder / name / "DEBIAN/control"
        control.parent.mkdir(parents=True)
        control.write_text(
            f"Package: {name}\nVersion: 0~stand-in\nArchitecture: all\n"
            "Maintainer: nobody <nobody@example.com>\nDescription: stands for AWS's agent\n"
        )
        agents.mkdir(exist_ok=True)
        run("dpkg-deb", "--build", folder / name, agents / f"{name}.deb", stdout=sys.stderr)
    return agents


def make_account(endpoint):
    """What the account has before the factory: a base image, a network, a bucket, a topic."""

    def client(service):
        keys = {"aws_access_key_id": "222222222222", "aws_secret_access_key": "test"}
        return boto3.client(service, endpoint_url=endpoint, region_name=REGION, **keys)

    ec2, iam = client("ec2"), client("iam")
    # packer asks for a base that has a disk. The emulator knows a few such images.
    filters = {"root-device-type": ["ebs"], "name": ["amzn2-ami-hvm-*-x86_64-gp2"]}
    base = ec2.describe_images(
        Filters=[{"Name": name, "Values": values} for name, values in filters.items()]
    )["Images"][0]
    iam.create_instance_profile(InstanceProfileName="image-factory-instance")
    client("s3").create_bucket(
        Bucket="example-image-reports",
        CreateBucketConfiguration={"LocationConstraint": REGION},
    )
    topic = client("sns").create_topic(Name="security")["TopicArn"]
    # The mail box of the security team.
    client("sqs").create_queue(QueueName="security")
    client("sns").subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint=topic.replace(":sns:", ":sqs:")
    )
    return {
        "PKR_VAR_subnet": ec2.describe_subnets()["Subnets"][0]["SubnetId"],
        "PKR_VAR_security_group": ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"],
        "PKR_VAR_base_name": base["Name"],
        "PKR_VAR_base_owner": base["OwnerId"],
        "PKR_VAR_endpoint": endpoint,
        "AWS_ENDPOINT_URL": endpoint,
        "SECURITY_TOPIC": topic,
    }


class Service(BaseHTTPRequestHandler):
    """Systems Manager and Amazon Inspector, as far as the factory calls them."""

    folder = None
    invocations: ClassVar[dict] = {}
    processes: ClassVar[list] = []

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        call = self.headers.get("X-Amz-Target", self.path)
        answer = {
            "AmazonSSM.SendCommand": self.send_command,
            "AmazonSSM.GetCommandInvocation": self.get_command_invocation,
            "/coverage/list": self.list_coverage,
            "/findings/list": self.list_findings,
        }[call](asked)
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_command(self, asked):
        step = json.loads((self.folder / "scan.document.json").read_text())["mainSteps"][0]
        script = "\n".join(step["inputs"]["runCommand"])
        process = subprocess.Popen(
            ["sh", "-c", script],
            env={**os.environ, "OSCAP_PROBE_ROOT": str(self.folder / "root")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        name = str(uuid.uuid4())
        self.invocations[name] = invocation = {"Status": "InProgress"}

        def wait():
            out, err = process.communicate()
            invocation.update(
                ResponseCode=process.returncode,
                StandardOutputContent=out[:24000],
                StandardErrorContent=err[:8000],
                Status="Failed" if process.returncode else "Success",
            )

        threading.Thread(target=wait, daemon=True).start()
        return {"Command": {"CommandId": name}}

    def get_command_invocation(self, asked):
        return self.invocations[asked["CommandId"]]

    def list_coverage(self, asked):
        instance = asked["filterCriteria"]["resourceId"][0]["value"]
        covered = {
            "accountId": "222222222222",
            "lastScannedAt": 1767225600,
            "resourceId": instance,
            "resourceType": "AWS_EC2_INSTANCE",
            "scanStatus": {"reason": "SUCCESSFUL", "statusCode": "ACTIVE"},
            "scanType": "PACKAGE",
        }
        return {"coveredResources": [covered]}

    def list_findings(self, asked):
        instance = asked["filterCriteria"]["resourceId"][0]["value"]
        findings = json.loads((self.folder / "findings.json").read_text())
        for finding in findings:
            finding["resources"] = [{"id": instance, "type": "AWS_EC2_INSTANCE"}]
        return {"findings": findings}

    def log_message(self, *_):
        pass


def main():
    folder, endpoint = Path(sys.argv[1]).resolve(), sys.argv[2]
    if os.geteuid() != 0:
        sys.exit("machines.py: run it as root: it makes a Debian, and runs sshd in it (chroot)")
    folder.mkdir(parents=True)
    Service.folder = folder
    shutil.copy(HERE / "findings.json", folder)
    shutil.copy(HERE.parent / "tools/scan.document.json", folder)
    make_debian(folder / "root")
    port, sshd = start_sshd(folder, folder / "root")
    for name in ("key", "findings.json"):  # for the user who called sudo
        os.chown(folder / name, int(os.environ.get("SUDO_UID", "0")), -1)
    service = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    here = f"http://127.0.0.1:{service.server_port}"
    variables = {
        **make_account(endpoint),
        "AWS_ENDPOINT_URL_SSM": here,
        "AWS_ENDPOINT_URL_INSPECTOR2": here,
        "AWS_POLL_DELAY_SECONDS": 1,  # how often packer looks
        "PKR_VAR_agents": make_agents(folder),
        "PKR_VAR_ssh_interface": "private_ip",
        "PKR_VAR_ssh_host": "127.0.0.1",
        "PKR_VAR_ssh_port": port,
        "PKR_VAR_ssh_username": "root",
        "PKR_VAR_ssh_private_key_file": folder / "key",
    }
    (folder / "arguments").write_text(
        "".join(f"--tool-variable {name}={value}\n" for name, value in variables.items())
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("# ready", flush=True)
    try:
        service.serve_forever()
    finally:
        for process in Service.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        sshd.kill()  # unshare ignores TERM; its child ends with it
        sshd.wait()


if __name__ == "__main__":
    main()
