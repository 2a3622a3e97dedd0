"""Signatures of checkpoints in the content store, in the form of OpenSSF's model signing.

Whoever gets a checkpoint with its signature can check every file of it with the `model_signing` command and
a public key, without this project (with `--no-ignore-git-paths`, where it has files of git). One file a
signer: `signatures/DIGEST/KEY.sig` in the yard, named by digests alone. A signature covers the names and the
contents of all files, hidden ones too; links are refused, so is a file that was not there when it was
signed, and a signature that leaves files out. It says nothing of how good a model is: that is what
certificates say.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.artifacts.store import ArtifactStore
from modelyard.core.errors import ArtifactError, RegistryError, SignatureError
from modelyard.core.files import write_whole
from modelyard.core.journal import Draft
from modelyard.core.signing import open_signer
from modelyard.registry.records import Version
from modelyard.runs.yard import Yard

if TYPE_CHECKING:
    from model_signing.hashing import Config

SIGNED = "model.signed"
FOLDER = "signatures"
_MISMATCH = ("is not what was signed", "get the model anew from who signed it")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A signature of a checkpoint, and what is wrong with it."""

    path: Path
    # Of the trusted signer; empty where no trusted key made it.
    key_id: str
    # Empty where it holds.
    fault: str = ""


def sign_model(yard: Yard, version: Version, key: Path, *, actor: str) -> Signed:
    """Sign the stored checkpoint of a version; a signature by the same key is made anew.

    Raises:
        RegistryError: The content store does not have it, whole, or it holds a link.
        SignatureError: The key cannot be used, or the library is not installed.
    """
    signer = open_signer(key, create=False)
    content = _content(yard, version)
    path = _folder(yard, version) / f"{_hex(signer.key_id)}.sig"
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.sig"
        with _refusals(content, "cannot be signed", "put the files themselves there and sign again"):
            from model_signing.signing import Config

            config = Config().set_hashing_config(_everything())  # type: ignore[no-untyped-call]
            config.use_elliptic_key_signer(private_key=key).sign(content, made)
        signature = made.read_bytes()
    told = {"name": version.name, "version": version.version, "digest": version.digest,
            "key_id": signer.key_id, "actor": actor}  # fmt: skip
    yard.journal.append([Draft(kind=SIGNED, run=version.run_id or "", data=told)])
    write_whole(path, signature)
    return Signed(path=path, key_id=signer.key_id)


def verify_model(yard: Yard, version: Version, trusted: Mapping[str, str]) -> tuple[Signed, ...]:
    """Every signature of a version's stored checkpoint, held against its files.

    One by nobody who counts has a fault and no key id: anybody may have put it there.

    Raises:
        RegistryError: The content store does not have it, whole.
    """
    content = _content(yard, version)
    found = []
    for path in sorted(_folder(yard, version).glob("*.sig")):
        key_id = ""
        try:
            key_id = _signer(path, _read(path)[1], trusted)
            verify_checkpoint(content, path, trusted)
            found.append(Signed(path=path, key_id=key_id))
        except SignatureError as error:
            found.append(Signed(path=path, key_id=key_id, fault=str(error)))
    return tuple(found)


def verify_checkpoint(content: Path, signature: Path, trusted: Mapping[str, str]) -> str:
    """The key id of the trusted signer of a file or folder, wherever it lies.

    Args:
        content: The checkpoint.
        signature: A bundle as `model_signing` writes it.
        trusted: Public keys that count, by key id; see `core.signing.trusted_keys`.

    Raises:
        SignatureError: No trusted key signed it, or a file was changed, added, taken away or is a link.
    """
    content_of, bundle = _read(signature)
    key_id = _signer(signature, bundle, trusted)
    with tempfile.TemporaryDirectory() as folder, _refusals(content, *_MISMATCH):
        from model_signing.verifying import Config

        key, copy = Path(folder) / "public.pem", Path(folder) / "read.sig"
        key.write_text(trusted[key_id])
        copy.write_bytes(content_of)
        config = Config().set_hashing_config(_everything())  # type: ignore[no-untyped-call]
        with redirect_stdout(io.StringIO()):  # it prints warnings where commands print JSON
            config.use_elliptic_key_verifier(public_key=key).verify(content, copy)
        left_out = _left_out(bundle)
    if left_out:
        raise SignatureError(
            f"{signature}: leaves out {', '.join(left_out)}, so anything may lie there; sign the model anew "
            "with all its files"
        )
    return key_id


def _read(signature: Path) -> tuple[bytes, dict[str, Any]]:
    """A signature's bytes, and what they say."""
    try:
        content = signature.read_bytes()
        bundle = json.loads(content)
        if isinstance(bundle, dict):
            return content, bundle
        problem = f"it holds {type(bundle).__name__}"
    except (OSError, ValueError, RecursionError) as error:
        problem = str(getattr(error, "strerror", None) or error)
    raise SignatureError(f"{signature}: is no signature of a model ({problem}); sign the model anew")


def _signer(signature: Path, bundle: Mapping[str, Any], trusted: Mapping[str, str]) -> str:
    """Which trusted key a signature says it is of: its hint is the digest of the key's PEM text."""
    try:
        hint = bundle["verificationMaterial"]["publicKey"]["hint"]
    except (KeyError, TypeError) as error:
        raise SignatureError(
            f"{signature}: is no signature of a model by a key ({type(error).__name__}: {error}); "
            "sign the model anew"
        ) from error
    for key_id, pem in trusted.items():
        if hashlib.sha256(pem.encode()).hexdigest() == hint:
            return key_id
    raise SignatureError(
        f"{signature}: is by none of the {len(trusted)} trusted keys; put the signer's public key into the "
        "folder of trusted keys if you believe them"
    )


def _left_out(bundle: Mapping[str, Any]) -> list[str]:
    """The files that a signature does not cover, as its signer declared."""
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    return [str(path) for path in payload["predicate"]["serialization"].get("ignore_paths", ())]


def _everything() -> Config:
    """All files are covered, also those of git that the library would leave out."""
    from model_signing.hashing import Config

    config = Config()  # type: ignore[no-untyped-call]
    return config.set_ignored_paths(paths=(), ignore_git_paths=False)


def _content(yard: Yard, version: Version) -> Path:
    try:
        return ArtifactStore(yard.artifacts_dir).path(f"sha256:{_hex(version.digest)}", verify=True)
    except ArtifactError as error:
        raise RegistryError(
            f"{version.label}: only a checkpoint in the yard's content store can be signed ({error})"
        ) from error


def _folder(yard: Yard, version: Version) -> Path:
    return yard.root / FOLDER / _hex(version.digest)


def _hex(digest: str) -> str:
    """The digits of a digest, which are safe as a file's name."""
    found = _DIGEST.fullmatch(digest)
    if found is None:
        raise RegistryError(f"{digest!r} is no digest; the registry was changed, see `registry verify`")
    return found[1]


@contextmanager
def _refusals(content: Path, problem: str, remedy: str) -> Iterator[None]:
    """What the library refuses, as an error of ours."""
    try:
        import model_signing  # noqa: F401
        from cryptography.exceptions import InvalidSignature
    except ImportError as error:
        raise SignatureError(
            "signatures of models need model-signing; pip install 'modelyard[signing]'"
        ) from error
    try:
        yield
    except InvalidSignature as error:
        raise SignatureError(
            f"{content}: the signature was changed, or is another key's; sign the model anew"
        ) from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError) as error:
        # of a changed file the library gives both digests, as Python's raw bytes
        told = str(error).partition(": Expected")[0].replace("\\'", "'")
        raise SignatureError(f"{content}: {problem} ({told}); {remedy}") from error
