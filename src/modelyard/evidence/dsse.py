"""Signed envelopes as other tools read them: DSSE, the Dead Simple Signing Envelope, version 1.

A payload of any type is signed as the bytes that stand in the envelope, so nobody has to bring it into a
canonical form. What is signed is the pre-authentication encoding (PAE) of its type and its bytes:
`"DSSEv1" SP LEN(type) SP type SP LEN(body) SP body`, lengths in bytes as ASCII decimals
(github.com/secure-systems-lab/dsse, protocol.md and envelope.md). An envelope names its signer's key by id
and does not bring the key along: only a key that the reader trusts already can open it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.errors import SignatureError
from modelyard.core.signing import covers, open_signer

#: Base64 as it is written, by the signs of its variant for URLs, which a reader takes too.
_STANDARD = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a trusted key signed."""

    payload: bytes
    payload_type: str
    key_id: str


def sealed(payload: bytes, payload_type: str, key: Path) -> dict[str, Any]:
    """An envelope around a payload, signed with the key in a file: ECDSA on P-256 with SHA-256, DER.

    Raises:
        SignatureError: The key cannot be used.
    """
    signer = open_signer(key, create=False)
    value = signer.sign_bytes(encoding(payload_type, payload))
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [{"keyid": signer.key_id, "sig": base64.b64encode(value).decode()}],
    }


def opened(envelope: Mapping[str, Any], trusted: Mapping[str, str]) -> Opened:
    """The payload of an envelope, if a trusted key signed it; others may have signed it too.

    Args:
        envelope: As JSON.
        trusted: Public keys that count, by key id; see `core.signing.trusted_keys`.

    Raises:
        SignatureError: It is no envelope, no trusted key signed it, or it was changed afterwards.
    """
    payload_type, signatures = envelope.get("payloadType"), envelope.get("signatures")
    if not isinstance(payload_type, str) or not isinstance(signatures, list):
        raise SignatureError("this is no DSSE envelope: it needs payload, payloadType and signatures")
    payload = _decoded(envelope.get("payload"), "payload")
    signers = [_signature(each) for each in signatures]
    signed = encoding(payload_type, payload)
    known = [(key_id, value) for key_id, value in signers if key_id in trusted]
    if not known:
        named = ", ".join(key_id or "an unnamed key" for key_id, _ in signers) or "nobody"
        raise SignatureError(
            f"the envelope is signed by {named}, and none of the {len(trusted)} trusted keys; "
            "put the signer's public key into the folder of trusted keys if you believe them"
        )
    for key_id, value in known:
        if covers(trusted[key_id], value, signed):
            return Opened(payload=payload, payload_type=payload_type, key_id=key_id)
    raise SignatureError(
        f"the signature of {known[0][0]} does not cover this envelope: its payload or type was changed; "
        "ask its maker for the original"
    )


def encoding(payload_type: str, payload: bytes) -> bytes:
    """PAE: the bytes that are signed. No two pairs of a type and a payload have the same."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _signature(told: object) -> tuple[str, bytes]:
    """Key id, empty where none is named, and signature."""
    if not isinstance(told, Mapping):
        raise SignatureError("this is no DSSE envelope: each signature is an object with keyid and sig")
    return str(told.get("keyid") or ""), _decoded(told.get("sig"), "sig")


def _decoded(text: object, name: str) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text.translate(_STANDARD), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SignatureError(f"the envelope's {name} is not base64 ({error}); it was changed") from error
    raise SignatureError(f"this is no DSSE envelope: its {name} is no text")
