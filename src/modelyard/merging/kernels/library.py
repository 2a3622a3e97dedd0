"""The compiled kernels: made once a machine by numba, kept as object code, loaded without numba.

Loading numba with its own cache costs 0.5 CPU seconds at every start; the object code that LLVM
made of the kernels' intermediate representation loads in a twentieth of that. It is kept under
`MODELYARD_CACHE` (else the user's cache folder) by a digest of the kernels' source, the compiler
and the processor, so that nothing stale is ever found.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from modelyard.core.errors import MergeError
from modelyard.core.files import write_whole
from modelyard.merging.kernels.constants import SIGNATURES

_PREFIX = "modelyard_"
_DIGEST_BYTES = 32
#: numba's own functions, which its code refers to on paths that the kernels never take.
_UNREACHED = (
    "numba_gil_ensure",
    "numba_gil_release",
    "numba_unpickle",
    "numba_runtime_build_excinfo_struct",
    "numba_do_raise",
    "NRT_Free",
)
_C_TYPES = {
    "p": ctypes.c_void_p,
    "n": ctypes.c_void_p,
    "v": ctypes.c_void_p,
    "a": ctypes.c_uint64,
    "i": ctypes.c_int64,
    "d": ctypes.c_double,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """The kernels of `source.py` as functions of addresses and numbers; each lets other threads run."""

    widen: Callable[..., int]
    narrow: Callable[..., int]
    weighted_sum: Callable[..., None]
    gram: Callable[..., None]
    histogram: Callable[..., None]
    collect: Callable[..., None]
    masked_sums: Callable[..., None]
    combine: Callable[..., None]
    digest: Callable[..., None]
    # What the functions' code lives in.
    engine: Any


@functools.cache
def load_kernels() -> Kernels:
    """The kernels for this machine, compiled first where the cache does not have them."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    place = cache_folder() / "kernels" / f"{_key()}.o"
    code = _kept(place)
    if code is None:
        code = _compile()
        _keep(place, code)
    return _bound(code)


def cache_folder() -> Path:
    """Where compiled code is kept between runs."""
    given = os.environ.get("MODELYARD_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelyard"


def _key() -> str:
    here = Path(__file__).parent
    running = hashlib.sha256()
    for name in ("source.py", "elements.py", "constants.py", "library.py"):
        running.update((here / name).read_bytes())
    machine = (llvmlite.__version__, llvm.get_process_triple(), llvm.get_host_cpu_name(), _features())
    running.update(repr(machine).encode())
    return running.hexdigest()[:32]


def _features() -> str:
    return str(llvm.get_host_cpu_features().flatten())


def _target_machine() -> Any:
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=_features(),
        opt=3,
        reloc="pic",
        codemodel="jitdefault",
        jit=True,
    )


def _kept(place: Path) -> bytes | None:
    """The object code in the cache, if it is there and whole."""
    try:
        data = place.read_bytes()
    except OSError:
        return None
    digest, code = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    return code if hashlib.sha256(code).digest() == digest else None


def _keep(place: Path, code: bytes) -> None:
    try:
        write_whole(place, hashlib.sha256(code).digest() + code, durable=False)
    except OSError:
        return  # a cache that cannot be written makes the next start slower, and nothing else


def _compile() -> bytes:
    """All kernels as one object file."""
    try:
        from numba import cfunc

        from modelyard.merging.kernels.source import KERNELS, numba_signature
    except ImportError as error:
        raise MergeError(f"the kernels need numba ({error}); pip install 'modelyard[merge]'") from error

    whole = llvm.parse_assembly("")
    for kernel in KERNELS:
        compiled = cfunc(numba_signature(kernel.__name__))(kernel)  # type: ignore[no-untyped-call]
        module = llvm.parse_assembly(compiled.inspect_llvm())
        module.get_function(compiled.native_name).name = _PREFIX + kernel.__name__
        whole.link_in(module)
    code: bytes = _target_machine().emit_object(whole)
    return code


def _bound(code: bytes) -> Kernels:
    never = ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value
    for name in _UNREACHED:
        llvm.add_symbol(name, never)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
    engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(code))
    engine.finalize_object()
    functions = {
        name: ctypes.CFUNCTYPE(_C_TYPES.get(result), *(_C_TYPES[letter] for letter in arguments))(
            engine.get_function_address(_PREFIX + name)
        )
        for name, (arguments, result) in SIGNATURES.items()
    }
    return Kernels(**functions, engine=engine)
