"""The images of a release: built for two architectures, pushed to a registry of this machine."""

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import unittest
from pathlib import Path

from kit import LIMIT, ROOT, end, make_certificate, need, start_registry

CONFIGURATION = "version: 0.1\nstorage: {filesystem: {}}\nhttp: {addr: 127.0.0.1:0}\n"


class Images(unittest.TestCase):
    def setUp(self):
        need("buildah", "Debian's package buildah has it")
        need("skopeo", "Debian's package skopeo has it")
        self.folder = Path(tempfile.mkdtemp(prefix="relay-images-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        make_certificate(self.folder)
        configuration = self.folder / "registry.yaml"
        configuration.write_text(CONFIGURATION)
        process, self.registry = start_registry(configuration, self.folder, "registry")
        self.addCleanup(end, process)
        # Nothing is left in the user's own store of images.
        store = {name: str(self.folder / name) for name in ("XDG_DATA_HOME", "XDG_RUNTIME_DIR")}
        (self.folder / "XDG_RUNTIME_DIR").mkdir(mode=0o700)
        settings = self.folder / "storage.conf"
        graph, run = (json.dumps(str(self.folder / name)) for name in ("graph", "run"))
        settings.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = {graph}\nrunroot = {run}\n')
        self.environment = {
            **os.environ,
            **store,
            "CONTAINERS_STORAGE_CONF": str(settings),
            "SSL_CERT_FILE": str(self.folder / "tls.pem"),
        }

    def release(self, name, version, program):
        """The files of a release from which the images are built."""
        files = self.folder / name
        for arch in ("x86_64", "aarch64"):
            top = f"relay-images-{version}-{arch}"
            for kind, binary in (("runner", "relay-runner"), ("cli", "relay")):
                image = files / top / kind
                image.mkdir(parents=True)
                shutil.copy(ROOT / "infra" / kind / "Dockerfile", image)
                (image / "ca-certificates.crt").write_text("certificates")
                (image / binary).write_text(f"{program} for {arch}")
            with tarfile.open(files / f"{top}.tar.gz", "w:gz") as archive:
                archive.add(files / top, top)
        return files

    def push(self, version, files):
        command = [ROOT / "infra/push-images", f"{self.registry}/relay", version, files]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=LIMIT
        )

    def images(self, image):
        """The digest of the image for each architecture."""
        command = ["skopeo", "inspect", "--raw", f"docker://{self.registry}/relay/{image}"]
        index = json.loads(subprocess.check_output(command, env=self.environment, timeout=LIMIT))
        return {each["platform"]["architecture"]: each["digest"] for each in index["manifests"]}

    def test_both_images_are_pushed_once_for_each_architecture(self):
        done = self.push("1.0", self.release("files", "1.0", "a program"))
        self.assertEqual(done.returncode, 0, done.stderr)
        digests = dict(line.split("=") for line in done.stdout.splitlines())
        self.assertEqual(list(digests), ["cli", "runner"])
        for kind, name in (("cli", "relay"), ("runner", "relay-runner")):
            images = self.images(f"{name}@{digests[kind]}")
            self.assertEqual(images, self.images(f"{name}:1.0"))
            self.assertEqual(sorted(images), ["amd64", "arm64"])

        again = self.push("1.0", self.folder / "files")
        self.assertEqual((again.returncode, again.stdout), (0, done.stdout), again.stderr)

        other = self.push("1.0", self.release("other", "1.0", "another program"))
        self.assertEqual(other.returncode, 1)
        self.assertIn("relay:1.0 exists already, with other images", other.stderr)
        self.assertEqual(images, self.images("relay-runner:1.0"))

    def test_a_registry_that_does_not_answer_gets_nothing(self):
        files = self.release("files", "1.0", "a program")
        self.registry = "localhost:9"
        done = self.push("1.0", files)
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot tell whether localhost:9/relay/relay:1.0 exists", done.stderr)

    def test_a_folder_without_images_is_named(self):
        (self.folder / "empty").mkdir()
        done = self.push("1.0", self.folder / "empty")
        self.assertEqual(done.returncode, 1)
        self.assertIn("has no relay-images-1.0-ARCH.tar.gz", done.stderr)


if __name__ == "__main__":
    unittest.main()
