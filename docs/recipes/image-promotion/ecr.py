"""ecr.py PORT: stands for the API of Amazon ECR in a trial, on loopback.

No scanner's database comes with a trial, so every image has the findings of report.json, which is
read anew for each call. What that file leaves out is filled in: the digest that was asked about,
the present as the time of the scan, and how many findings there are. Without the file, there is no
report.
"""

import base64
import json
import sys
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REPORT = Path(__file__).with_name("report.json")


class Ecr(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        action = self.headers["X-Amz-Target"].rpartition(".")[2]
        if action == "GetAuthorizationToken":
            token = base64.b64encode(b"AWS:a-token").decode()
            self.answer(200, {"authorizationData": [{"authorizationToken": token}]})
        elif action == "DescribeImageScanFindings" and REPORT.exists():
            report = {"imageId": request["imageId"], **json.loads(REPORT.read_text())}
            found = report["imageScanFindings"]
            found.setdefault("imageScanCompletedAt", time.time())
            counts = Counter(finding["severity"] for finding in found["findings"])
            found.setdefault("findingSeverityCounts", counts)
            self.answer(200, report)
        else:
            self.answer(400, {"__type": "ScanNotFoundException", "message": "There is no scan."})

    def answer(self, status, content):
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Ecr).serve_forever()
