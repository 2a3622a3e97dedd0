"""Keys and signed records: who says so, and that no byte of it was changed.

A signed record is a JSON object with one more field, `signature`: the algorithm, the signer's key id
and public key, and an ECDSA signature (P-256, SHA-256) over the RFC 8785 bytes of everything else. A
key id is the digest of the public key's DER form. Whom to believe is never read from the record:
only a public key in the reader's own folder of trusted keys counts.

Private keys are PEM files (PKCS #8, not encrypted) that nobody else may read; a key is made in one
step, so two processes that make it at once get the same one. The module does not know what records
mean.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import stat
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.core.digests import canonical_json
from modelyard.core.errors import SignatureError
from modelyard.core.files import write_whole

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

ALGORITHM = "ecdsa-p256-sha256"
OWN_KEY = "yard.pem"
TRUSTED = "trusted"
_FIELDS = {"algorithm", "key_id", "public_key", "value"}
_OTHERS_READ_OR_WRITE = stat.S_IRWXG | stat.S_IRWXO


class Signer:
    """A private key in memory. Threads may share it; it has no way to give the key away."""

    def __init__(self, key: EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public_pem, self.key_id = _described(key.public_key())

    def sign(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record with its `signature`.

        Raises:
            SignatureError: It is signed already, or holds what JSON cannot (NaN, a huge integer).
        """
        if "signature" in record:
            raise SignatureError(
                "the record is signed already, and a second signature would replace the first; "
                "sign it without its signature"
            )
        value = self.sign_bytes(_signed_bytes(record))
        signature = {
            "algorithm": ALGORITHM,
            "key_id": self.key_id,
            "public_key": self.public_pem,
            "value": base64.b64encode(value).decode(),
        }
        return {**record, "signature": signature}

    def sign_bytes(self, content: bytes) -> bytes:
        """The signature of some bytes, in DER form; see `covers`."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        return self._key.sign(content, ec.ECDSA(hashes.SHA256()))


def open_signer(path: Path, *, create: bool) -> Signer:
    """The key in a file, made on first use when told to.

    A new key is written whole with mode 0600, its folder, where it is new too, with 0700. Of several
    processes that make the same key at once all get the one that was first. A new key by the name of
    `yard.pem` is a yard's own: its public key is put into `trusted/` beside it, once, so that who
    takes it out later is obeyed.

    Raises:
        SignatureError: There is no key, others may read or change it, or it is no P-256 key.
    """
    _need_library()
    if create and not path.exists():
        pem = _new_key_pem()
        _private_folder(path.parent)
        # the public key first: a death in between leaves a trusted key that nobody has
        public = _trust(path, Signer(_parsed_private(pem, path))) if path.name == OWN_KEY else None
        if not _create(path, pem) and public is not None:
            public.unlink(missing_ok=True)
    return Signer(_private_key(path))


def public_pem(path: Path) -> str:
    """The public key of a private or a public key's file, as PEM with one spelling.

    Raises:
        SignatureError: The file holds neither, or a private key that others may read.
    """
    _need_library()
    content = _content(path)
    if b"PRIVATE KEY" in content:
        return open_signer(path, create=False).public_pem
    return _described(_parsed_public(content, str(path)))[0]


def trusted_keys(folder: Path) -> dict[str, str]:
    """The public keys in a folder's `*.pem` files by their key id; no folder is an empty set.

    Raises:
        SignatureError: A file is no public P-256 key, or anyone may change the folder or a file.
    """
    paths = sorted(folder.glob("*.pem"))
    if paths:
        _need_library()
        _refuse_writable_by_all(folder)
    keys = {}
    for path in paths:
        _refuse_writable_by_all(path)
        content = _content(path)
        if b"PRIVATE KEY" in content:
            raise SignatureError(
                f"{path}: holds a private key where public ones belong; put there only its public key"
            )
        pem, key_id = _described(_parsed_public(content, str(path)))
        keys[key_id] = pem
    return keys


def verify_record(record: Mapping[str, Any], trusted: Mapping[str, str]) -> str:
    """The key id of the trusted signer of a record.

    Args:
        record: A JSON object with its `signature`.
        trusted: Public keys that count, by key id; see `trusted_keys`.

    Raises:
        SignatureError: No signature, an unknown signer, or another record than the one that was signed.
    """
    _need_library()
    key_id, public_key, value = _signature_fields(record)
    if key_id not in trusted:
        raise SignatureError(
            f"the record is signed by {key_id}, which is none of the {len(trusted)} trusted keys; "
            "put the signer's public key into the folder of trusted keys if you believe them"
        )
    key = _parsed_public(trusted[key_id].encode(), f"the trusted key {key_id}")
    if _described(key)[1] != key_id:
        raise SignatureError(f"the trusted key filed under {key_id} is another one; load the keys anew")
    if _described(_parsed_public(public_key.encode(), "the record's public_key"))[1] != key_id:
        raise SignatureError(
            f"the record's public_key is not the key {key_id} that it names; the record was changed, "
            "ask its maker for the original"
        )
    body = {name: part for name, part in record.items() if name != "signature"}
    if not _covers(key, value, _signed_bytes(body)):
        raise SignatureError(
            f"the signature of {key_id} does not cover this record: it was changed after it was signed; "
            "ask its maker for the original"
        )
    return key_id


def covers(public_pem: str, signature: bytes, content: bytes) -> bool:
    """Whether the bearer of a public key signed these bytes.

    Raises:
        SignatureError: It is no public P-256 key.
    """
    _need_library()
    return _covers(_parsed_public(public_pem.encode(), "the trusted key"), signature, content)


def _signature_fields(record: Mapping[str, Any]) -> tuple[str, str, bytes]:
    """Key id, public key and signature of a record, whatever else it is."""
    signature = record.get("signature")
    if signature is None:
        raise SignatureError("the record is not signed; ask its maker for the signed one")
    if (
        not isinstance(signature, Mapping)
        or set(signature) != _FIELDS
        or not all(isinstance(part, str) for part in signature.values())
    ):
        raise SignatureError(f"the record's signature must have the texts {', '.join(sorted(_FIELDS))}")
    if signature["algorithm"] != ALGORITHM:
        raise SignatureError(f"the signature is {signature['algorithm']!r} where {ALGORITHM} is understood")
    try:
        value = base64.b64decode(signature["value"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise SignatureError("the signature's value is not base64; the record was changed") from error
    return signature["key_id"], signature["public_key"], value


def _signed_bytes(body: Mapping[str, Any]) -> bytes:
    try:
        return canonical_json(body)
    except (ValueError, TypeError, RecursionError) as error:
        raise SignatureError(f"the record has no canonical form ({error}); mend the value") from error


def _covers(key: EllipticCurvePublicKey, signature: bytes, content: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _need_library() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise SignatureError("signing needs cryptography; pip install 'modelyard[prove]'") from error


def _new_key_pem() -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _trust(path: Path, signer: Signer) -> Path:
    """Put a yard's public key among those that count; the file that was written."""
    public = path.parent / TRUSTED / f"yard-{signer.key_id.removeprefix('sha256:')[:16]}.pem"
    _private_folder(public.parent)
    write_whole(public, signer.public_pem)
    return public


def _create(path: Path, pem: bytes) -> bool:
    """Whether this call made the file; another process may have been first."""
    own = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(own, path)
            return True
    finally:
        own.unlink(missing_ok=True)
    return False


def _private_folder(folder: Path) -> None:
    """Make a folder for its owner alone; one that is there stays as it is."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SignatureError(f"{path}: cannot be read as a key ({error.strerror}); name another") from error


def _private_key(path: Path) -> EllipticCurvePrivateKey:
    """The key in a file, judged by the file that was opened and not by what lies there later."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read()
    except FileNotFoundError as error:
        raise SignatureError(f"{path}: there is no key here; name one that is or make it first") from error
    except OSError as error:
        raise SignatureError(f"{path}: cannot be read as a key ({error.strerror}); name another") from error
    if mode & _OTHERS_READ_OR_WRITE:
        raise SignatureError(
            f"{path}: has mode {mode:04o}, so others than its owner can use the key, where 0600 is required; "
            f"run `chmod 600 {path}`, or make a new key if others had a login here"
        )
    return _parsed_private(content, path)


def _parsed_private(content: bytes, path: Path) -> EllipticCurvePrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignatureError(
            f"{path}: is not a private key in PEM form without a password; name another or remove it"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise SignatureError(f"{path}: is a key of another kind where one on the curve P-256 is required")
    return key


def _parsed_public(content: bytes, place: str) -> EllipticCurvePublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(
            f"{place}: is not a public key in PEM form; replace it or take it out"
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise SignatureError(f"{place}: is a key of another kind where one on the curve P-256 is required")
    return key


def _described(key: EllipticCurvePublicKey) -> tuple[str, str]:
    """A public key's PEM text and its key id."""
    from cryptography.hazmat.primitives import serialization

    form = serialization.PublicFormat.SubjectPublicKeyInfo
    der = key.public_bytes(serialization.Encoding.DER, form)
    pem = key.public_bytes(serialization.Encoding.PEM, form).decode()
    return pem, "sha256:" + hashlib.sha256(der).hexdigest()


def _refuse_writable_by_all(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & stat.S_IWOTH:
        raise SignatureError(
            f"{path}: has mode {mode:04o}, so anyone can change whom to believe; run `chmod o-w {path}`"
        )
