"""What an alias wants of a promotion, as `promotion.json` of the yard declares it.

How many must approve and whose approvals count, how weak a claim the certificate may make, and on which
packs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.faults import Section, json_section
from modelyard.registry.records import ALIASES, PROD, STAGE

FILE = "promotion.json"
_DEFAULT = {STAGE: 0, PROD: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one alias wants of a promotion."""

    # How many approvals, each by a key of its own.
    approvals: int
    # Key ids of those who may approve; anybody with a trusted key where it is empty.
    approvers: tuple[str, ...] = ()
    # The most that a certificate's design may have declared: its error over all iterations, how much worse
    # still counts, and how many new failures of critical items.
    max_alpha: float = 0.05
    max_margin: float = 0.05
    max_critical_failures: int = 0
    # Digests of the snapshots of packs that may prove it, as certificates have them; any pack where empty.
    packs: tuple[str, ...] = ()

    def objections(self, design: Mapping[str, Any], pack: str) -> Iterator[str]:
        """Where a certificate proves less than this rule wants; its design and its snapshot are verified."""
        if self.packs and pack not in self.packs:
            yield (
                f"the certificate's pack (snapshot {pack}) is none of the {len(self.packs)} that {FILE} "
                "allows (packs); certify it on one of those"
            )
        for key, field, value in (
            ("nominal_alpha", "max_alpha", self.max_alpha),
            ("margin", "max_margin", self.max_margin),
            ("critical_failures_allowed", "max_critical_failures", self.max_critical_failures),
        ):
            if design[key] > value:
                yield (
                    f"the certificate was declared with {key} {design[key]:g}, where {FILE} allows {value:g} "
                    f"({field}); certify it by a stricter design"
                )


Policy = Mapping[str, Rule]


def read_policy(yard_root: Path) -> Policy:
    """The policy of a yard; where none is declared, nobody need approve for stage and one for prod.

    Raises:
        DocumentError: With every fault of `promotion.json`.
    """
    path = yard_root / FILE
    if not path.exists():
        return {alias: Rule(approvals=count) for alias, count in _DEFAULT.items()}
    section = json_section(path)
    policy = {alias: _rule(section.section(alias), _DEFAULT[alias]) for alias in ALIASES}
    section.close()
    section.faults.raise_if_any()
    return policy


def _rule(section: Section, default: int) -> Rule:
    approvers = section.texts("approvers")
    few = len(set(approvers)) if approvers else None
    usual = Rule(approvals=default)
    rule = Rule(
        approvals=section.integer("approvals", default, low=0),
        approvers=approvers,
        max_alpha=section.number("max_alpha", usual.max_alpha, above=0.0, below=0.5),
        max_margin=max(0.0, section.number("max_margin", usual.max_margin, above=-1e-300, below=1.0)),
        max_critical_failures=section.integer("max_critical_failures", usual.max_critical_failures, low=0),
        packs=section.texts("packs"),
    )
    if few is not None and rule.approvals > few:
        section.faults.add(
            section.key("approvals"), rule.approvals, f"can never be reached by {few} approvers",
            "lower it or name more approvers",
        )  # fmt: skip
    section.close()
    return rule
