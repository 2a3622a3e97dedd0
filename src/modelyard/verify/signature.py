"""Who signed a record, found with nothing of ours: ECDSA on P-256 over the RFC 8785 bytes of the rest.

A record brings its signer's public key along, which shows that it is whole but not that its signer is
to be believed: that the reader's own set of public keys decides.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import rfc8785
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

_ALGORITHM = "ecdsa-p256-sha256"
_PARTS = ("algorithm", "key_id", "public_key", "value")


def read_record(content: bytes) -> dict[str, Any]:
    """The JSON object in a file; a name that stands twice in one object is refused.

    Raises:
        ValueError: It is not one JSON object, or two readers could read it in two ways.
    """
    try:
        record = json.loads(
            content,
            object_pairs_hook=_unambiguous,
            parse_constant=_no_number,
            parse_int=_exact,
            parse_float=_finite,
        )
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if not isinstance(record, dict):
        raise ValueError("is not a JSON object")
    return record


def trusted_in(folder: Path) -> dict[str, str]:
    """The public keys in a folder's `*.pem` files by key id.

    Raises:
        ValueError: A file is not a public key on P-256.
    """
    keys = {}
    for path in sorted(folder.glob("*.pem")):
        pem = path.read_text(errors="replace")
        key = _public(pem)
        if key is None:
            raise ValueError(f"{path}: is not a public key on the curve P-256")
        keys[_key_id(key)] = pem
    return keys


def check_signature(record: Mapping[str, Any], trusted: Mapping[str, str] | None) -> tuple[str, str]:
    """The signer's key id (empty: unknown) and what is wrong with the signature (empty: nothing).

    Without `trusted` keys it is only checked that the record is as the bearer of that key signed it.
    """
    signature = record.get("signature")
    if not isinstance(signature, dict):
        return "", "there is none"
    if not all(isinstance(signature.get(part), str) for part in _PARTS) or len(signature) != len(_PARTS):
        return "", f"it does not have the texts {', '.join(_PARTS)}"
    if signature["algorithm"] != _ALGORITHM:
        return "", f"it is {signature['algorithm']!r} where {_ALGORITHM} is expected"
    brought = _public(signature["public_key"])
    if brought is None or _key_id(brought) != signature["key_id"]:
        return "", "its public_key is not the key that its key_id names"
    key_id = _key_id(brought)
    if not _covers(brought, signature["value"], record):
        return key_id, "it does not cover the record: something was changed after signing"
    if trusted is not None and not _same(trusted.get(key_id), brought):
        return key_id, f"its key {key_id} is none of the {len(trusted)} trusted ones"
    return key_id, ""


def _covers(key: EllipticCurvePublicKey, value: str, record: Mapping[str, Any]) -> bool:
    try:
        body = rfc8785.dumps({name: part for name, part in record.items() if name != "signature"})
        key.verify(base64.b64decode(value, validate=True), body, ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError, RecursionError):
        return False
    return True


def _same(pem: str | None, key: EllipticCurvePublicKey) -> bool:
    known = _public(pem) if pem is not None else None
    return known is not None and _key_id(known) == _key_id(key)


def _public(pem: str) -> EllipticCurvePublicKey | None:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1) else None


def _key_id(key: EllipticCurvePublicKey) -> str:
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(der).hexdigest()


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("has one name twice in an object, so that two readers could read it in two ways")
    return record


def _exact(text: str) -> int:
    value = int(text)
    return value if abs(value) < 2**53 else _no_number(text)


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"holds {text[:40]}, which is no number that JSON readers agree on")
