"""An AWS client that relay's code has no part in: botocore, one JSON request a line in, one JSON answer a line out.

In:  {"endpoint", "key", "secret", "token"?, "service", "operation", "parameters"}; a value {"$bytes": base64} or {"$file": path} is bytes.
Out: {"ok": answer} or {"error": {"code", "message"}}; bytes come back as {"$bytes": base64}.
"""

import base64
import datetime
import json
import sys

import botocore
import botocore.config
import botocore.exceptions
import botocore.session

CONFIG = botocore.config.Config(
    retries={"max_attempts": 1}, connect_timeout=5, read_timeout=60, s3={"addressing_style": "path"}
)
SESSION = botocore.session.Session()
CLIENTS = {}


def client(request):
    identity = tuple(request.get(name) for name in ("service", "endpoint", "key", "secret", "token", "region"))
    if identity not in CLIENTS:
        service, endpoint, key, secret, token, region = identity
        CLIENTS[identity] = SESSION.create_client(
            service,
            endpoint_url=endpoint,
            region_name=region,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            aws_session_token=token,
            config=CONFIG,
        )
    return CLIENTS[identity]


def decode(value):
    if isinstance(value, dict):
        if set(value) == {"$bytes"}:
            return base64.b64decode(value["$bytes"])
        if set(value) == {"$file"}:
            with open(value["$file"], "rb") as file:
                return file.read()
        return {name: decode(member) for name, member in value.items()}
    return [decode(item) for item in value] if isinstance(value, list) else value


def encode(value):
    if hasattr(value, "read"):
        value = value.read()
    if isinstance(value, (bytes, bytearray)):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, datetime.datetime):
        # With Z, as AWS writes it: its SDKs read no other.
        return value.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(value)


for line in sys.stdin:
    try:
        request = json.loads(line)
        operation = getattr(client(request), botocore.xform_name(request["operation"]))
        answer = operation(**decode(request["parameters"]))
        result = {"ok": answer}
    except botocore.exceptions.ClientError as error:
        details = error.response.get("Error", {})
        result = {"error": {"code": details.get("Code", ""), "message": details.get("Message", "")}}
    except Exception as error:
        result = {"error": {"code": type(error).__name__, "message": str(error)}}
    print(json.dumps(result, default=encode), flush=True)
