"""Judges relay's records and keys with third-party libraries only.

verify.py record RECORD BUNDLE PUBLIC_KEY    the DSSE envelope, the in-toto statement, the bundle
verify.py statement FILE PUBLIC_KEY          the DSSE envelope and the in-toto statement alone
verify.py key PRIVATE_PEM PUBLIC_KEY         a key of `relay keygen`
verify.py request REQUEST_JSON PUBLIC_KEY    the envelope of a request
verify.py schema SCHEMA DOCUMENT...          that JSON documents fit a JSON Schema

A public key is base64 of its SubjectPublicKeyInfo, as relay writes it. Prints the statement.
"""

import base64
import json
import sys

import jsonschema
from cryptography.hazmat.primitives import serialization
from google.protobuf.json_format import ParseDict
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey
from sigstore_models.bundle.v1 import Bundle


def public_key(text):
    return serialization.load_der_public_key(base64.b64decode(text, validate=True))


def dsse(envelope, key):
    """Verifies the envelope with securesystemslib; one signature by this key is enough."""
    # relay's key id is SHA-256 of the SubjectPublicKeyInfo; a key id is only a hint in DSSE.
    sslib = SSlibKey.from_crypto(public_key(key), envelope["signatures"][0]["keyid"])
    parsed = Envelope.from_dict(json.loads(json.dumps(envelope)))
    assert len(parsed.verify([sslib], 1)) == 1
    return parsed


def statement(path, key):
    """The DSSE envelope and the in-toto statement in it. Returns both."""
    envelope = json.load(open(path, "rb"))
    parsed = dsse(envelope, key)
    assert parsed.payload_type == "application/vnd.in-toto+json"
    message = ParseDict(json.loads(parsed.payload), StatementMessage())
    Statement.copy_from_pb(message).validate()

    # The judgement can fail.
    envelope["payload"] = base64.b64encode(parsed.payload + b" ").decode()
    try:
        dsse(envelope, key)
    except VerificationError:
        print(parsed.payload.decode())
        return parsed
    raise AssertionError("a changed payload was accepted")


def record(record_path, bundle_path, key):
    parsed = statement(record_path, key)
    bundle = Bundle.from_json(open(bundle_path, "rb").read())
    assert bundle.media_type == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert bundle.dsse_envelope.payload in (parsed.payload, base64.b64encode(parsed.payload))
    assert len(bundle.dsse_envelope.signatures) == 1


def request(path, key):
    print(dsse(json.load(open(path, "rb"))["request"], key).payload.decode())


def key(private_path, public):
    private = serialization.load_pem_private_key(open(private_path, "rb").read(), None)
    public_key(public).verify(private.sign(b"text"), b"text")
    print(private.__class__.__name__)


def schema(path, *documents):
    rules = json.load(open(path))
    jsonschema.Draft202012Validator.check_schema(rules)
    validator = jsonschema.Draft202012Validator(rules)
    for document in documents:
        validator.validate(json.loads(document))
        # The judgement can fail.
        assert not validator.is_valid({**json.loads(document), "surprise": 1}), document


if __name__ == "__main__":
    {"record": record, "statement": statement, "request": request, "key": key, "schema": schema}[sys.argv[1]](*sys.argv[2:])
