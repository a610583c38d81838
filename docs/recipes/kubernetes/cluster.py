"""cluster.py PORT: stands for Amazon EKS, and for the API server of a cluster, in a trial.

It listens on loopback: with HTTP on PORT for EKS, and with TLS on another port for kubectl. It
keeps what is applied, and has no nodes. A Deployment is ready immediately, unless the digest of an
image begins with `bad`: then the deadline of its rollout has passed. It asks for a token of EKS,
and looks no further into it. Only a real cluster authorises, admits and validates.
"""

import base64
import copy
import hashlib
import json
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

KINDS = {
    "/api/v1": {"configmaps": "ConfigMap", "services": "Service"},
    "/apis/apps/v1": {"deployments": "Deployment", "replicasets": "ReplicaSet"},
}
REVISION = "deployment.kubernetes.io/revision"
stored = {}  # path: object
CHANGING = threading.Lock()


class Api(BaseHTTPRequestHandler):
    """The part of the API that kubectl apply, rollout status and rollout undo use."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if not self.headers.get("Authorization", "").startswith("Bearer k8s-aws-v1."):
            self.answer(401, failure(401, "Unauthorized", "there is no token of EKS"))
        elif url.path in ANSWERS:
            self.answer(200, ANSWERS[url.path])
        elif url.path in stored:
            self.answer(200, stored[url.path])
        elif "sendInitialEvents" in query:  # a newer kubectl then lists first, as an older one does
            self.answer(422, failure(422, "Invalid", "sendInitialEvents is not supported"))
        elif "watch" in query:  # nothing changes by itself
            self.send_response(200)
            self.end_headers()
            time.sleep(600)
        elif listed := list_at(url.path):
            wanted = query.get("fieldSelector", [""])[0].removeprefix("metadata.name=")
            items = [
                found
                for path, found in stored.items()
                if path.startswith(f"{url.path}/") and wanted in ("", found["metadata"]["name"])
            ]
            self.answer(200, {**listed, "items": items})
        else:
            self.answer(404, failure(404, "NotFound", f"{url.path} is not found"))

    def do_PATCH(self):
        path = urlsplit(self.path).path
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with CHANGING:
            before = stored.get(path, {})
            if self.headers["Content-Type"] == "application/json-patch+json":
                changed = copy.deepcopy(before)
                for change in sent:
                    *way, last = change["path"].strip("/").split("/")
                    place = changed
                    for part in way:
                        place = place[part]
                    place[last] = change["value"]
            else:  # server-side apply by the only manager
                changed = sent
            metadata = changed["metadata"]
            metadata["uid"] = hashlib.sha256(path.encode()).hexdigest()
            metadata["resourceVersion"] = str(time.monotonic_ns())
            stored[path] = changed
            if changed["kind"] == "Deployment":
                roll_out(path, before, changed)
        self.answer(200, changed)

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def version(group):
    return group.removeprefix("/apis/").removeprefix("/api/")


def list_at(path):
    """The list, still without its items, that a path names."""
    for group, kinds in KINDS.items():
        if path.startswith(f"{group}/") and (kind := kinds.get(path.rpartition("/")[2])):
            metadata = {"resourceVersion": "1"}
            return {"apiVersion": version(group), "kind": f"{kind}List", "metadata": metadata}


def failure(code, reason, message):
    status = {"apiVersion": "v1", "kind": "Status", "status": "Failure"}
    return {**status, "code": code, "reason": reason, "message": message}


def roll_out(path, before, deployment):
    """What the controller of Deployments does: a ReplicaSet for each template, and a status."""
    metadata, spec = deployment["metadata"], deployment["spec"]
    generation = before.get("metadata", {}).get("generation", 0) + 1
    template = json.dumps(spec["template"], sort_keys=True)
    name = f"{metadata['name']}-{hashlib.sha256(template.encode()).hexdigest()[:9]}"
    sets = path.replace("/deployments/", "/replicasets/").rpartition("/")[0]
    earlier = [found for path, found in stored.items() if path.startswith(sets)]
    revisions = [int(found["metadata"]["annotations"][REVISION]) for found in earlier]
    revision = str(max(revisions, default=0) + 1)
    if before.get("spec", {}).get("template") == spec["template"]:
        revision = before["metadata"]["annotations"][REVISION]
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "controller": True}
    stored[f"{sets}/{name}"] = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "uid": name,
            "namespace": metadata["namespace"],
            "annotations": {REVISION: revision},
            "ownerReferences": [{**owner, "name": metadata["name"], "uid": metadata["uid"]}],
        },
        "spec": {part: spec[part] for part in ("replicas", "template", "selector")},
    }
    metadata["generation"] = generation
    metadata.setdefault("annotations", {})[REVISION] = revision
    bad = "@sha256:bad" in template
    progress = "ProgressDeadlineExceeded" if bad else "NewReplicaSetAvailable"
    count = {"replicas": spec["replicas"], "updatedReplicas": 0 if bad else spec["replicas"]}
    count["availableReplicas"] = count["updatedReplicas"]
    conditions = [{"type": "Progressing", "status": str(not bad), "reason": progress}]
    deployment["status"] = {"observedGeneration": generation, **count, "conditions": conditions}


def resources(group, kinds):
    verbs = ["get", "list", "patch", "watch"]
    listed = [
        {
            "name": name,
            "singularName": kind.lower(),
            "kind": kind,
            "namespaced": True,
            "verbs": verbs,
        }
        for name, kind in kinds.items()
    ]
    head = {"apiVersion": "v1", "kind": "APIResourceList", "groupVersion": version(group)}
    return {**head, "resources": listed}


def fields(group, kinds):
    """An OpenAPI document that only says: this server checks the fields of what is applied."""
    *_, name, number = ["", *version(group).split("/")]
    checks = {"parameters": [{"name": "fieldValidation", "in": "query"}], "responses": {}}
    paths = {}
    for resource, kind in kinds.items():
        described = {"group": name, "version": number, "kind": kind}
        paths[f"{group}/{resource}"] = {
            "patch": {**checks, "x-kubernetes-group-version-kind": described}
        }
    return {"openapi": "3.0.0", "info": {"title": "", "version": ""}, "paths": paths}


APPS = {"groupVersion": "apps/v1", "version": "v1"}
ANSWERS = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": "apps", "versions": [APPS], "preferredVersion": APPS}],
    },
    "/openapi/v3": {
        "paths": {group[1:]: {"serverRelativeURL": f"/openapi/v3{group}"} for group in KINDS}
    },
    **{f"/openapi/v3{group}": fields(group, kinds) for group, kinds in KINDS.items()},
    **{group: resources(group, kinds) for group, kinds in KINDS.items()},
}


class Eks(BaseHTTPRequestHandler):
    """The call with which the AWS command line finds a cluster."""

    def do_GET(self):
        cluster = {
            "name": "shop",
            "arn": "arn:aws:eks:eu-west-1:222222222222:cluster/shop",
            "status": "ACTIVE",
            "endpoint": f"https://localhost:{api.server_port}",
            "certificateAuthority": {"data": base64.b64encode(certificate.read_bytes()).decode()},
        }
        self.send_response(200 if self.path == "/clusters/shop" else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"cluster": cluster}).encode())


with tempfile.TemporaryDirectory() as folder:
    certificate, key = Path(folder) / "tls.pem", Path(folder) / "tls.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "7"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    api = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    api.socket = context.wrap_socket(api.socket, server_side=True)
    threading.Thread(target=api.serve_forever, daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Eks).serve_forever()
