"""make-image.py VERSION: writes the image of a trial into the folder `image`, as an OCI layout for
two architectures. It holds no program, only the list of one Debian package, for the SBOM.
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

OCI = "application/vnd.oci.image."
FILES = {
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n',
    "var/lib/dpkg/status": "Package: shop\nStatus: install ok installed\n"
    "Maintainer: shop <shop@example.com>\nArchitecture: all\nVersion: {version}\n",
}

version = sys.argv[1]
blobs = Path("image/blobs/sha256")
blobs.mkdir(parents=True, exist_ok=True)


def store(kind, content):
    """Stores a blob, and returns what refers to it."""
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"mediaType": OCI + kind, "digest": f"sha256:{digest}", "size": len(content)}


def store_json(kind, value):
    return store(kind, json.dumps(value).encode())


packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w") as layer:
    for name, text in FILES.items():
        content = text.replace("{version}", version).encode()
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        layer.addfile(entry, io.BytesIO(content))
layer = store("layer.v1.tar+gzip", gzip.compress(packed.getvalue(), mtime=0))
content_digest = f"sha256:{hashlib.sha256(packed.getvalue()).hexdigest()}"

manifests = []
for architecture in ("amd64", "arm64"):
    system = {"os": "linux", "architecture": architecture}
    root = {"type": "layers", "diff_ids": [content_digest]}
    config = store_json("config.v1+json", {**system, "config": {}, "rootfs": root})
    manifest = {"schemaVersion": 2, "mediaType": f"{OCI}manifest.v1+json", "config": config}
    described = store_json("manifest.v1+json", {**manifest, "layers": [layer]})
    manifests.append({**described, "platform": system})

kind = f"{OCI}index.v1+json"
index = store_json("index.v1+json", {"schemaVersion": 2, "mediaType": kind, "manifests": manifests})
layout = {"schemaVersion": 2, "manifests": [index]}
Path("image/index.json").write_text(json.dumps(layout))
Path("image/oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
