"""Every merge method once more, in plain numpy and float64, written from the formulas and the papers.

Slow and obvious on purpose: the package's kernels are compared with these functions. Nothing here is
shared with the package, and nothing knows files, types narrower than float64 or random numbers: the
masks of the random methods are arguments.

b is the base, x_i a model, d_i = x_i - b, w_i a weight; ranks and counts are of one tensor. Where two
magnitudes are equal, the lower flat index stands first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

Array = np.ndarray
Arrays = Sequence[Array]

#: A norm, or a sum of weights, up to which nothing is divided by it.
TINY = 1e-8


# Averages and rotations


def linear(models: Arrays, *, weights: Sequence[float], normalize: bool = True) -> Array:
    """Model soups (Wortsman et al., 2203.05482): sum w_i x_i, divided by sum w_i if `normalize`."""
    total = sum(weights) if normalize else 1.0
    if abs(total) < TINY:
        raise ValueError("the weights sum to zero")
    return sum(w * x for w, x in zip(weights, models, strict=True)) / total


def passthrough(model: Array, *, scale: float = 1.0) -> Array:
    """The model itself, times `scale`."""
    return scale * model


def slerp(base: Array, model: Array, *, t: float) -> Array:
    """Shoemake's slerp of the flattened tensors (SIGGRAPH 1985); a straight line if |cos| > .9995."""
    return _arc(base, model, t=t, straight=lambda cosine: abs(cosine) > 0.9995)


def nuslerp(
    first: Array,
    second: Array,
    *,
    weights: tuple[float, float],
    base: Array | None = None,
    flatten: bool = True,
    row_wise: bool = False,
) -> Array:
    """Slerp with t = w_2/(w_1+w_2), between task vectors if there is a base.

    Whole tensors, or (`flatten` off) each vector along the last axis, along the first if `row_wise`.
    """
    if base is not None:
        options = {"weights": weights, "flatten": flatten, "row_wise": row_wise}
        return base + nuslerp(first - base, second - base, **options)
    total = weights[0] + weights[1]
    t = 0.5 if abs(total) < 1e-6 else weights[1] / total

    def arc(a: Array, b: Array) -> Array:
        return _arc(a, b, t=t, straight=lambda cosine: math.sin(math.acos(cosine)) < 1e-7)

    if flatten or first.ndim < 2:
        return arc(first, second)
    if row_wise:
        columns = arc_each(arc, np.moveaxis(first, 0, -1), np.moveaxis(second, 0, -1))
        return np.moveaxis(columns, -1, 0)
    return arc_each(arc, first, second)


def arc_each(arc: Callable[[Array, Array], Array], first: Array, second: Array) -> Array:
    """`arc` of every pair of vectors along the last axis."""
    out = np.empty(first.shape)
    for place in np.ndindex(first.shape[:-1]):
        out[place] = arc(first[place], second[place])
    return out


def multislerp(
    models: Arrays,
    *,
    weights: Sequence[float],
    base: Array | None = None,
    normalize_weights: bool = True,
    eps: float = 1e-8,
) -> Array:
    """Goddard's barycentre: the weighted tangents at the weighted mean direction, mapped back.

    u_i = x_i/(|x_i|+eps); m = sum w_i u_i made a unit vector; T = sum w_i (u_i - <u_i,m> m);
    out = (m cos|T| + T sin|T|/|T|) sum w_i |x_i|. T is zero up to rounding, as m has the direction of
    sum w_i u_i. A single model is itself. Directions that cancel (|sum w_i u_i| < eps) have no mean:
    then out = sum w_i x_i.
    """
    if base is not None:
        options = {"weights": weights, "normalize_weights": normalize_weights, "eps": eps}
        return base + multislerp([x - base for x in models], **options)
    if len(models) == 1:
        return models[0].copy()
    total = sum(weights) if normalize_weights else 1.0
    if abs(total) < TINY:
        raise ValueError("the weights sum to zero")
    shares = [w / total for w in weights]
    units = [x / (norm(x) + eps) for x in models]
    mean = sum(w * u for w, u in zip(shares, units, strict=True))
    if norm(mean) < eps:
        return sum(w * x for w, x in zip(shares, models, strict=True))
    mean = mean / norm(mean)
    tangent = sum(w * (u - dot(u, mean) * mean) for w, u in zip(shares, units, strict=True))
    return _exponential(mean, tangent) * sum(w * norm(x) for w, x in zip(shares, models, strict=True))


def karcher(models: Arrays, *, max_iter: int = 10, tol: float = 1e-5) -> Array:
    """The Riemannian mean of the directions (Karcher 1977; Grove 1973), times the mean norm.

    Zero tensors have no direction but count in the mean norm. Starts at the normalised mean of the
    unit vectors, at the first of them if they cancel; a vector opposite to the present mean is passed over.
    """
    if len(models) == 1:
        return models[0].copy()
    units = [x / norm(x) for x in models if norm(x) > 0]
    if not units:
        return np.zeros(models[0].shape)
    mean = sum(units) / len(units)
    mean = mean / norm(mean) if norm(mean) > TINY else units[0]
    for _ in range(max_iter):
        tangent = sum(_logarithm(mean, u) for u in units) / len(units)
        if norm(tangent) < tol:
            break
        mean = _exponential(mean, tangent)
        mean = mean / norm(mean)
    return mean * (sum(norm(x) for x in models) / len(models))


def nearswap(base: Array, model: Array, *, t: float) -> Array:
    """g x + (1-g) b with g = clip(t/|b-x|, 0, 1), element by element; b where they are equal."""
    out = base.copy()
    for i in np.ndindex(base.shape):
        gap = abs(base[i] - model[i])
        if gap > 0:
            g = min(max(t / gap, 0.0), 1.0)
            out[i] = g * model[i] + (1 - g) * base[i]
    return out


def model_stock(base: Array, models: Arrays, *, filter_wise: bool = False) -> Array:
    """Model Stock (Jang et al., 2403.19522): t mean(x_i) + (1-t) b, t = N c/(1+(N-1)c).

    c is the mean cosine of all pairs of task vectors (a zero vector has cosine 0 with any).
    t = 0 where |1+(N-1)c| < 1e-6. `filter_wise`: each vector along the last axis by itself.
    """
    if filter_wise and base.ndim > 1:
        out = np.empty(base.shape)
        for place in np.ndindex(base.shape[:-1]):
            out[place] = model_stock(base[place], [x[place] for x in models])
        return out
    count = len(models)
    pairs = combinations([x - base for x in models], 2)
    cosine = float(np.mean([dot(a, b) / ((norm(a) * norm(b)) or 1.0) for a, b in pairs]))
    below = 1 + (count - 1) * cosine
    t = 0.0 if abs(below) < 1e-6 else count * cosine / below
    return t * (sum(models) / count) + (1 - t) * base


# Task vectors: sparsified, weighted, agreed on, summed


def task_arithmetic(
    base: Array, models: Arrays, *, weights: Sequence[float], normalize: bool = False, lam: float = 1.0
) -> Array:
    """Task arithmetic (Ilharco et al., 2212.04089): b + lambda sum w_i d_i."""
    return base + lam * total_of([x - base for x in models], weights, normalize=normalize)


def ties(
    base: Array,
    models: Arrays,
    *,
    weights: Sequence[float],
    densities: Sequence[float],
    normalize: bool = True,
    rescale: bool = False,
    lam: float = 1.0,
) -> Array:
    """TIES (Yadav et al., 2306.01708): keep the largest |d_i|, elect a sign, sum what has it."""
    deltas = [x - base for x in models]
    masks = [magnitude_mask(d, density=p) for d, p in zip(deltas, densities, strict=True)]
    sparse = _masked(deltas, masks, rescale="l1" if rescale else "none")
    return base + lam * agreed(sparse, weights, normalize=normalize)


def dropped(
    base: Array,
    models: Arrays,
    *,
    weights: Sequence[float],
    masks: Arrays,
    consensus: bool,
    normalize: bool = False,
    rescale: str = "l1",
    keep: Sequence[float | Array] | None = None,
    lam: float = 1.0,
) -> Array:
    """DARE (Yu et al., 2311.03099) and DELLA (Deep et al., 2406.11617), the drawn masks given.

    dare_linear and della_linear sum without `consensus`, dare_ties and della with it (and della
    normalises). `rescale` is "l1", "none", or "density": each kept entry over its keep probability
    `keep`, one number a model (DARE) or one an entry (DELLA), as in the papers.
    """
    sparse = _masked([x - base for x in models], masks, rescale=rescale, keep=keep)
    join = agreed if consensus else total_of
    return base + lam * join(sparse, weights, normalize=normalize)


def breadcrumbs(
    base: Array,
    models: Arrays,
    *,
    weights: Sequence[float],
    densities: Sequence[float],
    gammas: Sequence[float],
    consensus: bool = False,
    normalize: bool = False,
    rescale: bool = False,
    lam: float = 1.0,
) -> Array:
    """Model Breadcrumbs (Davari and Belilovsky, 2312.06795): neither the largest |d_i| nor the smallest."""
    deltas = [x - base for x in models]
    masks = [outlier_mask(d, density=p, gamma=g) for d, p, g in zip(deltas, densities, gammas, strict=True)]
    sparse = _masked(deltas, masks, rescale="l1" if rescale else "none")
    join = agreed if consensus else total_of
    return base + lam * join(sparse, weights, normalize=normalize)


def magnitude_mask(delta: Array, *, density: float) -> Array:
    """The max(1, int(density n)) largest magnitudes; none at density 0, all from 1 on."""
    kept = 0 if density <= 0 else max(1, int(min(density, 1.0) * delta.size))
    return _window(delta, start=0, count=kept)


def outlier_mask(delta: Array, *, density: float, gamma: float) -> Array:
    """int(density n) magnitudes, after the largest int(gamma n), or fewer if so many do not remain."""
    kept = int(min(density, 1.0) * delta.size)
    return _window(delta, start=min(int(gamma * delta.size), delta.size - kept), count=kept)


def keep_probabilities(delta: Array, *, density: float, epsilon: float) -> Array:
    """MagPrune's probability of each entry: density - epsilon + 2 epsilon r/(c-1).

    r is the rank of |d|, smallest first (equal: lower index lower), among the c entries of its row:
    the last axis, or the whole vector. A row of one has `density`; at density 1 all is kept.
    """
    if density >= 1:
        return np.ones(delta.shape)
    rows = delta.reshape(-1, delta.shape[-1] if delta.ndim else 1)
    out = np.empty(rows.shape)
    for row, probabilities in zip(np.abs(rows), out, strict=True):
        last = len(row) - 1
        for rank, index in enumerate(sorted(range(len(row)), key=lambda i: row[i])):
            spread = 2 * epsilon * rank / last - epsilon if last else 0.0
            probabilities[index] = density + spread
    return out.reshape(delta.shape)


def total_of(sparse: Arrays, weights: Sequence[float], *, normalize: bool) -> Array:
    """Sum of w_i d_i; if `normalize`, divided by the sum of all weights unless that is nearly 0."""
    total = sum(weights)
    below = total if normalize and abs(total) >= TINY else 1.0
    return sum(w * d for w, d in zip(weights, sparse, strict=True)) / below


def agreed(sparse: Arrays, weights: Sequence[float], *, normalize: bool) -> Array:
    """Sum of the w_i d_i that have the sign of their sum (0 is +); zeros agree with nobody.

    If `normalize`, divided by the sum of the weights of those that agree, unless that is nearly 0.
    """
    out = np.zeros(sparse[0].shape)
    for i in np.ndindex(out.shape):
        terms = [(w, w * d[i]) for w, d in zip(weights, sparse, strict=True)]
        positive = sum(v for _, v in terms) >= 0
        agree = [(w, v) for w, v in terms if v != 0 and (v > 0) == positive]
        total = sum(w for w, _ in agree)
        below = total if normalize and abs(total) >= TINY else 1.0
        out[i] = sum(v for _, v in agree) / below
    return out


# Variance, importance, overlap


def sce(base: Array, models: Arrays, *, select_topk: float = 1.0) -> Array:
    """SCE of FuseChat (Wan et al., 2408.07990): select, calculate, erase.

    Positions of the largest variance over the models, int(select_topk times those that vary at all);
    w_i = the share of sum m_i^2; the sign of the plain sum; the weighted mean of those that have it.
    """
    deltas = [x - base for x in models]
    mask = np.ones(base.shape, dtype=bool)
    if select_topk < 1:
        variance = np.var(deltas, axis=0)
        mask = _window(variance, start=0, count=int(select_topk * np.count_nonzero(variance)))
    kept = [d * mask for d in deltas]
    energies = [float((m**2).mean()) for m in kept]
    weights = [e / (sum(energies) or 1.0) for e in energies]
    out = base.copy()
    for i in np.ndindex(base.shape):
        positive = sum(m[i] for m in kept) >= 0
        agree = [(w, w * m[i]) for w, m in zip(weights, kept, strict=True) if m[i] and (m[i] > 0) == positive]
        out[i] += sum(v for _, v in agree) / (sum(w for w, _ in agree) or 1.0)
    return out


def arcee_fusion(base: Array, model: Array) -> Array:
    """b + d where |d| KL(softmax x || softmax b) reaches the median plus 1.5 interquartile ranges.

    Softmax and KL are of each vector along the last axis; the quantiles are the lower order
    statistics, sorted[floor(f (n-1))], of ALL elements.
    """
    x, b = np.atleast_1d(model), np.atleast_1d(base)
    log_p, log_q = _log_softmax(x), _log_softmax(b)
    divergence = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1, keepdims=True)
    importance = np.abs(x - b) * divergence
    ordered = np.sort(importance, axis=None)
    low, middle, high = (ordered[math.floor(f * (ordered.size - 1))] for f in (0.25, 0.5, 0.75))
    keep = importance >= middle + 1.5 * (high - low)
    return (b + (x - b) * keep).reshape(base.shape)


def ram(base: Array, models: Arrays, *, epsilon: float = 1e-5) -> Array:
    """Reinforced Agent Merging (2601.13572): the mean of the d_i of those with |d_i| > epsilon."""
    return base + _overlap_sum([x - base for x in models], [1.0] * len(models), epsilon=epsilon)


def ramplus_tl(
    base: Array, models: Arrays, *, r: float = 0.1, alpha: float = 0.2, epsilon: float = 1e-5
) -> Array:
    """RAM+ within one tensor (2601.13572): what only model i changed, times 1 + r clip(rho_i, 0, alpha).

    rho_i = (entries that i and others changed)/(entries that only i changed).
    """
    deltas = [x - base for x in models]
    changed = [np.abs(d) > epsilon for d in deltas]
    count = sum(c.astype(int) for c in changed)
    factors = []
    for own in changed:
        shared, unique = int((own & (count > 1)).sum()), int((own & (count == 1)).sum())
        factors.append(1 + r * min(max(shared / unique, 0.0), alpha) if unique else 1.0)
    return base + _overlap_sum(deltas, factors, epsilon=epsilon)


# Shared pieces


def norm(x: Array) -> float:
    """The Euclidean norm of all entries."""
    return math.sqrt(dot(x, x))


def dot(x: Array, y: Array) -> float:
    """The inner product over all entries, summed exactly rounded."""
    return math.fsum((x * y).ravel().tolist())


def _arc(a: Array, b: Array, *, t: float, straight: Callable[[float], bool]) -> Array:
    unit_a, unit_b = (v / (norm(v) if norm(v) > TINY else 1.0) for v in (a, b))
    cosine = min(max(dot(unit_a, unit_b), -1.0), 1.0)
    if straight(cosine):
        return (1 - t) * a + t * b
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def _exponential(point: Array, tangent: Array) -> Array:
    length = norm(tangent)
    if length == 0:
        return point
    return point * math.cos(length) + tangent * (math.sin(length) / length)


def _logarithm(point: Array, unit: Array) -> Array:
    cosine = min(max(dot(point, unit), -1.0), 1.0)
    angle = math.acos(cosine)
    if math.sin(angle) < 1e-7:
        return np.zeros(point.shape)
    return (unit - cosine * point) * (angle / math.sin(angle))


def _window(values: Array, *, start: int, count: int) -> Array:
    magnitudes = np.abs(values).ravel()
    order = sorted(range(magnitudes.size), key=lambda i: (-magnitudes[i], i))
    mask = np.zeros(magnitudes.size, dtype=bool)
    mask[order[start : start + count]] = True
    return mask.reshape(values.shape)


def _masked(
    deltas: Arrays, masks: Arrays, *, rescale: str, keep: Sequence[float | Array] | None = None
) -> list[Array]:
    sparse = []
    for i, (delta, mask) in enumerate(zip(deltas, masks, strict=True)):
        kept = delta * mask
        remaining = math.fsum(np.abs(kept).ravel().tolist())
        if rescale == "l1" and remaining:
            kept = kept * (math.fsum(np.abs(delta).ravel().tolist()) / remaining)
        if rescale == "density" and keep is not None:
            kept = kept / np.where(mask, keep[i], 1.0)
        sparse.append(kept)
    return sparse


def _overlap_sum(deltas: Arrays, factors: Sequence[float], *, epsilon: float) -> Array:
    out = np.zeros(deltas[0].shape)
    for i in np.ndindex(out.shape):
        changers = [(d[i], f) for d, f in zip(deltas, factors, strict=True) if abs(d[i]) > epsilon]
        if len(changers) == 1:
            out[i] = changers[0][0] * changers[0][1]
        elif changers:
            out[i] = sum(d for d, _ in changers) / len(changers)
    return out


def _log_softmax(x: Array) -> Array:
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
