"""Whose keys count in a yard: public keys in `keys/trusted`, by the names that people know them by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelyard.core.errors import RegistryError
from modelyard.core.files import write_whole
from modelyard.core.journal import Draft
from modelyard.core.signing import OWN_KEY, TRUSTED, open_signer, public_pem, trusted_keys
from modelyard.jobs.step import is_name
from modelyard.runs.yard import Yard

TRUST = "key.trusted"


def trust(yard: Yard, public: Path, *, name: str, actor: str) -> str:
    """Let a public key count, and say so in the journal first; its key id.

    Raises:
        SignatureError: The file holds no key that can be used.
        RegistryError: The name is none, or another key has it.
    """
    if not is_name(name) or "/" in name:
        raise RegistryError(f"{name!r} is no name for a key's file; use letters, digits, dots and dashes")
    open_signer(yard.keys_dir / OWN_KEY, create=True)  # with its folders, which are for their owner alone
    pem = public_pem(public)
    place = yard.keys_dir / TRUSTED / f"{name}.pem"
    known = place.exists()
    if known and public_pem(place) != pem:
        raise RegistryError(f"{place}: is another key; choose another name, or remove that file first")
    if not known:
        told = {"name": name, "public_key": pem, "actor": actor}
        yard.journal.append([Draft(kind=TRUST, run="", data=told)])
        write_whole(place, pem)
    return next(key_id for key_id, each in trusted_keys(place.parent).items() if each == pem)


def with_keys(yard: Yard, people: frozenset[str]) -> frozenset[str]:
    """Names and key ids of people, with the ids of the trusted keys that are filed under those names.

    Raises:
        SignatureError: A file holds no key, or anybody may change it.
    """
    folder = yard.keys_dir / TRUSTED
    by_pem = {pem: key_id for key_id, pem in trusted_keys(folder).items()}
    named = [path for path in folder.glob("*.pem") if path.stem in people]
    return people | {by_pem[public_pem(path)] for path in named}


def key_names(yard: Yard) -> Mapping[str, str]:
    """The names of the trusted keys' files by key id; of two files of one key, the later by name.

    Raises:
        SignatureError: A file holds no key, or anybody may change it.
    """
    folder = yard.keys_dir / TRUSTED
    by_pem = {pem: key_id for key_id, pem in trusted_keys(folder).items()}
    return {by_pem[public_pem(path)]: path.stem for path in sorted(folder.glob("*.pem"))}
