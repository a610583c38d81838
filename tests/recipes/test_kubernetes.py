"""Kubernetes: the page with real kubectl, a stand-in for the cluster, and all that is refused."""

import json
import os
import re
import subprocess
import sys

from kit import LIMIT, free_port, need
from recipe import Recipe

GOOD = f"sha256:{'1' * 64}"
BETTER = f"sha256:{'2' * 64}"
BAD = f"sha256:bad{'3' * 61}"
REGISTRY = "222222222222.dkr.ecr.eu-west-1.amazonaws.com"


class Kubernetes(Recipe):
    NAME = "kubernetes"

    def setUp(self):
        need("kubectl", "https://kubernetes.io/docs/tasks/tools")
        need("aws", "tests/recipes/requirements.txt has it, as awscli")
        need("openssl", "the cluster's stand-in needs a certificate")
        super().setUp()
        port = free_port()
        self.eks = f"http://localhost:{port}"
        self.serve([sys.executable, self.recipe / "cluster.py", str(port)], self.eks)

    def start(self):
        self.relay = self.sandbox("production.toml", AWS_ENDPOINT_URL_EKS=self.eks)

    def deploy(self, image=GOOD):
        source = f"source={self.recipe / 'source'}"
        done = self.relay.deploy("shop/production", "--artifact", source, image=image)
        return done.returncode, done.stdout + done.stderr

    def runs(self):
        """The image of the Deployment in the cluster, or nothing."""
        environment = {
            **os.environ,
            "HOME": str(self.folder),
            "AWS_ENDPOINT_URL_EKS": self.eks,
            "AWS_ACCESS_KEY_ID": "222222222222",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "eu-west-1",
        }

        def run(*command):
            return subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True, timeout=LIMIT
            ).stdout

        run("aws", "eks", "update-kubeconfig", "--name", "shop")
        path = "jsonpath={.spec.template.spec.containers[0].image}"
        return run(
            "kubectl",
            "--namespace",
            "shop",
            "get",
            "deployment",
            "shop",
            "--ignore-not-found",
            "-o",
            path,
        )

    def test_the_page(self):
        _start, deployed, undone, refused = self.run_page(ENDPOINT=self.eks)
        self.assertIn(f"image: {REGISTRY}/shop@sha256:{1:064d}\n", deployed)
        self.assertIn("3 manifests may be applied", deployed)
        self.assertIn("deployment.apps/shop serverside-applied", deployed)
        self.assertIn('deployment "shop" successfully rolled out', deployed)
        _failed, undo = undone.split('error: deployment "shop" exceeded its progress deadline')
        self.assertIn("deployment.apps/shop rolled back", undo)
        self.assertIn('deployment "shop" successfully rolled out', undo)
        self.assertIn("refused: Service shop: it lies in the namespace kube-system", refused)
        self.assertIn("refused: Deployment shop: container shop: it is privileged", refused)
        self.assertIn("Nothing was applied, so nothing is undone.", refused)
        self.assertNotIn("serverside-applied", refused)

    def test_a_failed_rollout_brings_back_what_ran_before(self):
        self.start()
        code, said = self.deploy(BAD)
        self.assertEqual(code, 1, said)
        self.assertIn("shop had no earlier revision", said)
        self.assertEqual(self.deploy(GOOD)[0], 0)
        self.assertEqual(self.deploy(BETTER)[0], 0)
        code, said = self.deploy(BAD)
        self.assertEqual(code, 1, said)
        self.assertIn("deployment.apps/shop rolled back", said)
        self.assertEqual(self.runs(), f"{REGISTRY}/shop@{BETTER}")

    def test_a_failure_that_has_changed_nothing_undoes_nothing(self):
        self.start()
        self.assertEqual(self.deploy(GOOD)[0], 0)
        self.assertEqual(self.deploy(BETTER)[0], 0)
        target = self.recipe / "production.toml"
        text, count = re.subn(r'run = \["kubectl", .*', 'run = ["false"]', target.read_text())
        self.assertEqual(count, 1)
        target.write_text(text)
        self.start()
        code, said = self.deploy(BETTER)
        self.assertEqual(code, 1, said)
        self.assertIn("skipped rollback (current template already matches revision 2)", said)
        self.assertEqual(self.runs(), f"{REGISTRY}/shop@{BETTER}")

    def test_what_is_not_allowed_is_refused_before_anything_is_applied(self):
        self.start()
        kustomization = self.recipe / "source/kustomization.yaml"
        deployment = self.recipe / "source/deployment.yaml"
        good = {file: file.read_text() for file in (kustomization, deployment)}

        def with_object(api, kind, **fields):
            extra = {"apiVersion": api, "kind": kind, "metadata": {"name": "x"}, **fields}
            (self.recipe / "source/extra.yaml").write_text(json.dumps(extra))
            kustomization.write_text(
                good[kustomization].replace("  - service", "  - extra.yaml\n  - service")
            )

        def with_text(file, old, new):
            self.assertIn(old, good[file])
            file.write_text(good[file].replace(old, new))

        def with_pod(path, value):
            change = json.dumps(
                [{"op": "add", "path": f"/spec/template/spec/{path}", "value": value}]
            )
            patch = {"target": {"kind": "Deployment"}, "patch": change}
            kustomization.write_text(f"{good[kustomization]}patches: {json.dumps([patch])}\n")

        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "x"},
        }
        own = f"{REGISTRY}/sidecar"
        one = "containers/0/securityContext"
        image = "image: shop #"
        cases = {
            "in the namespace kube-system": lambda: with_text(
                kustomization, "e: shop\n", "e: kube-system\n"
            ),
            "in the namespace default": lambda: with_text(kustomization, "namespace: shop\n", ""),
            "v1/Namespace is not among the kinds": lambda: with_object("v1", "Namespace"),
            "v1/Secret is not among the kinds": lambda: with_object("v1", "Secret"),
            "v1/Pod is not among the kinds": lambda: with_object("v1", "Pod"),
            "example.com/v1/Own is not among": lambda: with_object("example.com/v1", "Own"),
            "ClusterRole is not among the kinds": lambda: with_object("v1", "List", items=[role]),
            "outside the cluster": lambda: with_object(
                "v1", "Service", spec={"type": "LoadBalancer"}
            ),
            "image shop2:latest is not": lambda: with_text(
                deployment, image, "image: shop2:latest #"
            ),
            f"image {own}:1 is not": lambda: with_text(deployment, image, f"image: {own}:1 #"),
            "image evil/222": lambda: with_text(deployment, image, f"image: evil/{own}@{GOOD} #"),
            "of the kind hostPath": lambda: with_pod(
                "volumes", [{"name": "x", "hostPath": {"path": "/"}}]
            ),
            "hostNetwork gives the pod": lambda: with_pod("hostNetwork", True),
            "hostPID gives the pod": lambda: with_pod("hostPID", True),
            "shop: it is privileged": lambda: with_pod(f"{one}/privileged", True),
            "allowPrivilegeEscalation: false": lambda: with_pod(
                f"{one}/allowPrivilegeEscalation", True
            ),
            "it adds capabilities": lambda: with_pod(f"{one}/capabilities/add", ["SYS_ADMIN"]),
            "say runAsNonRoot: true": lambda: with_pod(f"{one}/runAsUser", 0),
            "a port of its node": lambda: with_pod("containers/0/ports/0/hostPort", 80),
            "container x: the image y": lambda: with_pod(
                "initContainers", [{"name": "x", "image": "y"}]
            ),
            "not as it should be": lambda: with_pod("volumes", [{"hostPath": {"path": "/"}}]),
        }
        for why, change in cases.items():
            with self.subTest(why):
                change()
                code, said = self.deploy()
                self.assertEqual(code, 1, said)
                self.assertIn("refused: ", said)
                self.assertIn(why, said)
                self.assertNotIn("connect", said)
            for file, text in good.items():
                file.write_text(text)
        self.assertEqual(self.runs(), "")
        self.assertEqual(self.deploy()[0], 0)
        self.assertEqual(self.runs(), f"{REGISTRY}/shop@{GOOD}")

    def test_nothing_is_fetched(self):
        self.start()
        kustomization = self.recipe / "source/kustomization.yaml"
        text = kustomization.read_text()
        # No name that could be resolved: the proxy is asked first, and it does not exist.
        kustomization.write_text(text.replace("service.yaml", "https://relay.invalid/x.yaml"))
        code, said = self.deploy()
        self.assertEqual(code, 1, said)
        self.assertIn("proxyconnect tcp: dial tcp 127.0.0.1:9: connect: connection refused", said)
        self.assertIn("The folder source does not render.", said)

    def test_the_access_is_well_formed(self):
        command = ["kubectl", "annotate", "--local", "-f", "access.yaml", "-o", "name", "x=y"]
        done = subprocess.run(
            command, cwd=self.recipe, capture_output=True, text=True, timeout=LIMIT
        )
        rights = "rbac.authorization.k8s.io/relay"
        expected = ["namespace/shop", f"role.{rights}", f"rolebinding.{rights}"]
        self.assertEqual(done.stdout.split(), expected, done.stderr)
