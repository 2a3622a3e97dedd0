"""Rules that hedge: ML-Poly on the regrets of the gradient trick, AdaHedge and Fixed Share on losses.

Each is discounted by the one memory `beta` where an expert is awake, and leaves a sleeper as it is
(Freund et al. 1997; Devaine et al. 2013). None has a rate to tune, and none knows the scale of the
losses. With one rate for all experts, linearised losses of a far-off expert swing so widely that the
others cannot be told apart; the two that have one rate therefore take the losses as they are, and
compete with the best expert (the best switching one), not with the best mixture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelyard.ensemble.combining.lessons import LOWEST, Floats, Lesson, State, add_discounted, mixture

_FAR = -1e6  # the log weight beside a leader while AdaHedge's rate is infinite
_LEAST = 1e-150  # its inverse and its square are still ordinary numbers


@dataclass(frozen=True, slots=True)
class MlPoly:
    """Polynomially weighted averages with one rate an expert.

    Gaillard, Stoltz & van Erven (2014), "A second-order bound with excess losses", section 4: `w_k ~
    eta_k max(R_k, 0)` with `1 / eta_k = B + sum r_k^2`, B the largest squared regret of the mixture.

    Attributes:
        beta: The memory, in (0, 1].
        blocks: The mixtures.
    """

    beta: float
    blocks: tuple[slice, ...]

    def start(self, shape: tuple[int, int]) -> State:
        """Regret, its squares, and the largest square of the mixture in each of its slots."""
        return {"regret": np.zeros(shape), "square": np.zeros(shape), "reach": np.zeros(shape)}

    def learn(self, state: State, lesson: Lesson) -> None:
        """Discount and add the regret, its square and their largest."""
        squared = lesson.regret * lesson.regret
        add_discounted(state["regret"], lesson.regret, lesson.awake, self.beta)
        add_discounted(state["square"], squared, lesson.awake, self.beta)
        for block in self.blocks:
            own = state["reach"][:, block]
            somebody = lesson.awake[:, block].max(axis=1, keepdims=True)
            own *= 1.0 - (1.0 - self.beta) * somebody
            np.maximum(own, squared[:, block].max(axis=1, keepdims=True), out=own)

    def log_weights(self, state: State) -> Floats:
        """`ln(R / (B + V))` where an expert is ahead of the mixture; below every other elsewhere."""
        ahead = state["regret"] > 0
        caution = np.maximum(state["square"] + state["reach"], _LEAST)
        share = np.where(ahead, state["regret"], 1.0) / np.where(ahead, caution, 1.0)
        return np.where(ahead, np.log(np.maximum(share, _LEAST)), LOWEST)


@dataclass(frozen=True, slots=True)
class AdaHedge:
    """Exponential weights whose rate follows the mixability gap.

    De Rooij, van Erven, Grünwald & Koolen (2014), "Follow the leader if you can, hedge if you must",
    section 2: `w_k ~ exp(eta R_k)` with `eta = ln K / sum(delta)`, delta what the mixture lost above
    the mix loss. The gap is taken at the weights that stand when a row is learnt: with the delay of its
    lead these are newer than those it was issued with. An infinite rate follows the leaders.

    Attributes:
        beta: The memory, in (0, 1]; of the gaps too.
        blocks: The mixtures.
    """

    beta: float
    blocks: tuple[slice, ...]

    def start(self, shape: tuple[int, int]) -> State:
        """Regrets, and the sum of gaps of the mixture in each of its slots."""
        return {"regret": np.zeros(shape), "gap": np.zeros(shape)}

    def learn(self, state: State, lesson: Lesson) -> None:
        """Measure the gap at the weights of before, and add the regret to their mean loss."""
        before = self.log_weights(state)
        for block in self.blocks:
            awake, error = lesson.awake[:, block], lesson.error[:, block]
            weight, mean = mixture(before[:, block], awake, error)
            regret = (mean[:, None] - error) * awake
            gap = self._gap(state["gap"][:, block][:, :1], weight, regret)
            somebody = awake.max(axis=1, keepdims=True)
            add_discounted(state["gap"][:, block], gap[:, None], somebody, self.beta)
            add_discounted(state["regret"][:, block], regret, awake, self.beta)

    def log_weights(self, state: State) -> Floats:
        """`eta R`; where no gap was seen yet, the leaders and far behind them the rest."""
        out = np.empty_like(state["regret"])
        for block in self.blocks:
            regret, gap = state["regret"][:, block], state["gap"][:, block]
            lead = regret - regret.max(axis=1, keepdims=True)
            known = gap > 0
            rate = np.log(max(block.stop - block.start, 2)) / np.where(known, gap, 1.0)
            out[:, block] = np.maximum(np.where(known, rate * lead, np.where(lead < 0, _FAR, 0.0)), LOWEST)
        return out

    def _gap(self, total: Floats, weight: Floats, centred: Floats) -> Floats:
        """What the mean loses above the mix loss, at least 0, `(rows,)`."""
        rivals = max(weight.shape[1], 2)
        best = np.where(weight > 0, centred, -np.inf).max(axis=1, initial=-np.inf)
        best = np.where(np.isfinite(best), best, 0.0)
        rate = np.log(rivals) / np.where(total[:, 0] > 0, total[:, 0], 1.0)
        spread = np.exp(np.minimum(rate[:, None] * (centred - best[:, None]), 0.0))
        mass = np.maximum((weight * spread).sum(axis=1), 1e-300)
        hedged = best + np.log(mass) / rate
        gap = np.maximum(np.where(total[:, 0] > 0, hedged, best), 0.0)
        return np.asarray(gap * (weight.sum(axis=1) > 0))


@dataclass(frozen=True, slots=True)
class FixedShare:
    """Exponential weights that give a share of their mass back at every row, to follow a switch.

    Herbster & Warmuth (1998), "Tracking the best expert", section 5: `v_k <- (1 - a) v_k + a / K`. The
    share `a` is `1 - beta`, one switch expected in what the memory holds; the rate `min(1 / B, sqrt(ln K
    / V))` is taken from the discounted variance V and range B of the regrets within the mixture.

    Attributes:
        beta: The memory, in (0, 1]; 1 shares nothing.
        blocks: The mixtures.
    """

    beta: float
    blocks: tuple[slice, ...]

    def start(self, shape: tuple[int, int]) -> State:
        """Log weights, and the variance and range of the mixture in each of its slots."""
        return {"log": np.zeros(shape), "square": np.zeros(shape), "reach": np.zeros(shape)}

    def learn(self, state: State, lesson: Lesson) -> None:
        """Move the awake mass by the regrets, and share a part of it equally among the awake."""
        for block in self.blocks:
            parts = {name: array[:, block] for name, array in state.items()}
            self._learn_block(parts, lesson.error[:, block], lesson.awake[:, block])

    def log_weights(self, state: State) -> Floats:
        """As they stand."""
        return state["log"]

    def _learn_block(self, parts: State, error: Floats, awake: Floats) -> None:
        log, square, reach = parts["log"], parts["square"], parts["reach"]
        somebody = awake.max(axis=1, keepdims=True)
        weight, mean = mixture(log, awake, error)
        regret = (mean[:, None] - error) * awake
        add_discounted(square, (weight * regret * regret).sum(axis=1, keepdims=True), somebody, self.beta)
        reach *= 1.0 - (1.0 - self.beta) * somebody
        np.maximum(reach, np.abs(regret).max(axis=1, keepdims=True), out=reach)
        rivals = max(log.shape[1], 2)
        caution = np.maximum(np.maximum(reach, np.sqrt(square / np.log(rivals))), _LEAST)
        moved, _ = mixture(log + regret / caution, awake, regret)
        count = np.maximum(awake.sum(axis=1, keepdims=True), 1.0)
        shared = self.beta * moved + (1.0 - self.beta) * awake / count
        top = np.where(awake > 0, log, -np.inf).max(axis=1, keepdims=True, initial=LOWEST)
        spread = awake * np.exp(np.minimum(log - top, 0.0))
        mass = top + np.log(np.maximum(spread.sum(axis=1, keepdims=True), 1e-300))
        log[...] = np.where(awake > 0, mass + np.log(np.maximum(shared, 1e-300)), log)
        log -= log.max(axis=1, keepdims=True)
