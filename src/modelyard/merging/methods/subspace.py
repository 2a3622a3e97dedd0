"""Methods on the singular vectors of task matrices; tensors that are no matrices have none.

A matrix is decomposed in whole, in float64. With T models of m x n elements the memory was measured
as 8 m n bytes times 4 T + 6 for `tsv_merge`, 6 T + 4 for `knots` and 2 T + 5 for `iso_c`; the time
grows as m n min(m, n). Singular vectors whose value is at the level of rounding are left out: they
would be LAPACK's choice, not the models'.

These methods are the exception to the rule that nothing depends on threads: LAPACK sums in an order
that changes with its own number of threads (OPENBLAS_NUM_THREADS) and with the processor, which now
and then turns the last place of an element.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelyard.core.errors import MergeError
from modelyard.merging.blocks import Floats
from modelyard.merging.method import Base, MergeMethod, Parameter
from modelyard.merging.methods.elementwise import agreed, largest
from modelyard.merging.methods.parameters import DENSITY, LAMBDA, WEIGHT, normalize
from modelyard.merging.methods.task_vectors import add_up, trimmed
from modelyard.merging.tensors import Election, Mask, Tensors


def tsv_merge(tensors: Tensors) -> None:
    """Keep 1/T of each task's singular vectors, make those of all tasks orthogonal, and add.

    d_i = U_i S_i V_i^T; U' and V' are the orthonormal matrices nearest to [U_1 .. U_T] and
    [V_1 .. V_T]; the result is b + lambda U' diag(S_1 .. S_T) V'^T.
    """
    if tensors.count == 1 or not _is_matrix(tensors):
        _add_mean(tensors)
        return
    base, tasks = _base_and_tasks(tensors)
    if not _all_finite(tasks):
        tensors.emit(base + sum(tasks))
        return
    kept = max(1, min(tensors.shape) // tensors.count)
    parts = [_decomposed(tensors.name, task) for task in tasks]
    left = np.hstack([u[:, :kept] for u, _, _ in parts])
    values = np.concatenate([s[:kept] for _, s, _ in parts])
    right = np.hstack([vt[:kept].T for _, _, vt in parts])
    change = (_orthonormal(tensors.name, left) * values) @ _orthonormal(tensors.name, right).T
    tensors.emit(base + tensors.number("lambda") * change)


def iso_c(tensors: Tensors) -> None:
    """Give all singular vectors of the summed tasks the same length: the mean singular value."""
    if not _is_matrix(tensors):
        _add_mean(tensors)
        return
    base, tasks = _base_and_tasks(tensors)
    total: Floats = sum(tasks[1:], tasks[0])
    if not _all_finite([total]):
        tensors.emit(base + total)
        return
    u, s, vt = _decomposed(tensors.name, total)
    tensors.emit(base + tensors.number("lambda") * float(s.sum()) / min(tensors.shape) * (u @ vt))


def knots(tensors: Tensors) -> None:
    """Merge tasks by TIES in coordinates that they share: the left singular vectors of all of them.

    [d_1 .. d_T] = U S [V_1 .. V_T]^T; the result is b + lambda U TIES(S V_1^T, .., S V_T^T).
    """
    if not _is_matrix(tensors):
        add_up(tensors, trimmed(tensors), Election.SUM)
        return
    base, tasks = _base_and_tasks(tensors, weighted=False)
    if not _all_finite(tasks):
        tensors.emit(base + sum(tasks))
        return
    u, s, vt = _decomposed(tensors.name, np.hstack(tasks))
    weights = tensors.numbers("weight")
    terms = [
        weight * _trimmed(part, density)
        for weight, density, part in zip(
            weights, tensors.numbers("density"), np.split(s[:, None] * vt, tensors.count, axis=1), strict=True
        )
    ]
    change = u @ agreed(terms, weights, divide=tensors.flag("normalize"))
    tensors.emit(base + tensors.number("lambda") * change)


def _is_matrix(tensors: Tensors) -> bool:
    return len(tensors.shape) == 2 and tensors.size > 0


def _add_mean(tensors: Tensors) -> None:
    """b + lambda times the mean of the weighted differences."""
    weights = tensors.numbers("weight") / tensors.count
    tensors.combine([Mask()] * tensors.count, weights=weights, scale=tensors.number("lambda"))


def _base_and_tasks(tensors: Tensors, *, weighted: bool = True) -> tuple[Floats, list[Floats]]:
    base = tensors.base()
    weights = tensors.numbers("weight") if weighted else np.ones(tensors.count)
    return base, [weight * (tensors.array(j) - base) for j, weight in enumerate(weights)]


def _all_finite(matrices: Sequence[Floats]) -> bool:
    """Whether they can be decomposed; inputs that are not finite are reported where they are read."""
    return all(bool(np.isfinite(matrix).all()) for matrix in matrices)


def _decomposed(name: str, matrix: Floats) -> tuple[Floats, Floats, Floats]:
    """U, S and V^T with the singular values above rounding alone."""
    try:
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    except np.linalg.LinAlgError as error:
        raise MergeError(
            f"{name}: the singular values of {matrix.shape[0]} x {matrix.shape[1]} elements were not found "
            f"({error}); merge this tensor by another method"
        ) from error
    rank = int(np.count_nonzero(s > s[0] * max(matrix.shape) * np.finfo(np.float64).eps)) if s.size else 0
    return u[:, :rank], s[:rank], vt[:rank]


def _orthonormal(name: str, matrix: Floats) -> Floats:
    """The nearest matrix with orthonormal columns, in the space that the columns span."""
    p, _, qt = _decomposed(name, matrix)
    return p @ qt


def _trimmed(part: Floats, density: float) -> Floats:
    """The int(density n) largest elements, at least one unless the density is 0."""
    count = min(part.size, max(1, int(density * part.size))) if density > 0 else 0
    return np.where(largest(np.abs(part), count), part, 0.0)


_FACTOR = Parameter(
    name="weight", help="Factor of a model's difference to the base.", default=1.0, per_model=True
)

TSV_MERGE = MergeMethod(
    name="tsv_merge",
    merge=tsv_merge,
    formula="b + λ U' diag(S_1 .. S_T) V'^T; U', V' nearest orthonormal to the tasks' top singular vectors",
    paper="Gargiulo et al., Task Singular Vectors, CVPR 2025 (arXiv 2412.00081)",
    base=Base.REQUIRED,
    parameters=(_FACTOR, LAMBDA),
)

ISO_C = MergeMethod(
    name="iso_c",
    merge=iso_c,
    formula="b + λ mean(S) U V^T, where sum_i d_i = U S V^T",
    paper="Marczak et al., No task left behind: isotropic model merging, ICML 2025 (arXiv 2502.04959)",
    base=Base.REQUIRED,
    parameters=(_FACTOR, LAMBDA),
)

KNOTS = MergeMethod(
    name="knots",
    merge=knots,
    formula="b + λ U TIES(S V_1^T, .., S V_T^T), where [d_1 .. d_T] = U S [V_1 .. V_T]^T",
    paper="Stoica et al., Model merging with SVD to tie the KnOTS, ICLR 2025 (arXiv 2410.19735)",
    base=Base.REQUIRED,
    parameters=(WEIGHT, DENSITY, LAMBDA, normalize(default=True)),
)
