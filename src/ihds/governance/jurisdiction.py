"""What a legal regime must answer, and how several of them are asked together, as of any day.

Every law that applies to the data's origin is asked; the most restrictive answer wins; where no
rule speaks, the answer is no. A fourth jurisdiction is one more file in ``jurisdictions/``.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any, Protocol

from ihds.canonical import sha256
from ihds.governance.countries import COUNTRIES
from ihds.governance.policy import Decision, Granted, Refused
from ihds.governance.rule import NEVER, Artefact, Limit, Needs, Rule, Term, in_words
from ihds.privacy.disclosure import Thresholds


@dataclass(frozen=True, slots=True)
class Export:
    """Something that would cross a border: what, from where to where, under which evidence."""

    artefact: Artefact
    origin: str
    destination: str
    legal_regime: str
    evidence: frozenset[str]


class Jurisdiction(Protocol):
    """A module in ``jurisdictions/``; ``EVIDENCE`` says what its own terms mean."""

    COUNTRIES: frozenset[str]
    RULES: tuple[Rule, ...]
    LIMITS: tuple[Limit, ...]
    EVIDENCE: Mapping[str, Term]


#: Evidence that more than one law asks for, with its meaning.
COMMON_EVIDENCE: dict[str, Term] = {
    "permit": Term("a permit in force names dataset, method and recipient"),
    "research_purpose": Term("the permit is for scientific research or statistics"),
    "secure_aggregation": Term("only the sum over sites can be opened"),
    "disclosure_check": Term("the thresholds against disclosure were checked"),
    "catalogue_check": Term("a description was looked through: no small counts, nothing that identifies in free text"),
    "audit_log": Term("what leaves is written into the audit log first"),
    "no_linkage": Term("no record of one holder is joined with one of another"),
    "irb_approval": Term("an ethics board approved the research"),
    "irb_exemption": Term("an ethics board, or the law it names, exempts the research"),
    "standard_clauses": Term("standard contractual clauses are signed with the recipient", of_recipient=True),
    "transfer_assessment": Term("the law of the recipient's country was assessed", of_recipient=True),
    "dpf_certified": Term("the recipient is certified under the EU-US Data Privacy Framework", of_recipient=True),
}


@functools.cache
def jurisdictions() -> dict[str, Jurisdiction]:
    """Return every jurisdiction by name."""
    package = importlib.import_module("ihds.governance.jurisdictions")
    found: dict[str, Jurisdiction] = {}
    for info in pkgutil.iter_modules(package.__path__):
        module: object = importlib.import_module(f"{package.__name__}.{info.name}")
        found[info.name] = module  # type: ignore[assignment]  # a module satisfies the protocol
    return found


@functools.cache
def version() -> str:
    """Return the digest of all rules of all laws here: what a data space approves as a rule set."""
    found = {
        name: [sorted(law.COUNTRIES), [asdict(r) for r in law.RULES], [asdict(limit) for limit in law.LIMITS]]
        for name, law in jurisdictions().items()
    }
    return sha256(json.dumps(found, sort_keys=True, default=_plain).encode())


def _plain(value: Any) -> Any:
    """Return sets in an order of their own, and days as text."""
    return sorted(map(str, value)) if isinstance(value, frozenset) else str(value)


def evidence_terms() -> dict[str, Term]:
    """Return every term of evidence with its meaning."""
    terms = dict(COMMON_EVIDENCE)
    for law in jurisdictions().values():
        terms |= law.EVIDENCE
    return terms


def unknown_evidence(stated: Iterable[str]) -> str:
    """Return what is wrong with evidence as a holder states it, "TERM" or "TERM DID"; empty if nothing is."""
    terms = evidence_terms()
    for text in stated:
        name, _, recipient = text.partition(" ")
        if name not in terms:
            return f"the evidence {name!r} is unknown"
        if terms[name].of_recipient != bool(recipient):
            told = "is of one recipient: write its DID after it" if terms[name].of_recipient else "is of no recipient"
            return f"the evidence {name!r} {told}"
    return ""


def shown_of(recipient: str, stated: Iterable[str]) -> frozenset[str]:
    """Return what a holder's evidence shows of one recipient: what is stated of another does not count."""
    terms = evidence_terms()
    found = set()
    for text in stated:
        name, _, about = text.partition(" ")
        if name in terms and (about == recipient != "" if terms[name].of_recipient else about == ""):
            found.add(name)
    return frozenset(found)


def applying(country: str) -> dict[str, Jurisdiction]:
    """Return the jurisdictions whose law applies to data of a country."""
    return {n: j for n, j in jurisdictions().items() if country in j.COUNTRIES}


#: A federation inside one process on the user's own tables: no law is asked, nothing leaves.
SIMULATION = "simulation"


def thresholds(country: str, legal_regime: str, permit: Thresholds) -> Thresholds:
    """Return the strictest of the permit's thresholds and those of the country's law."""
    strict = permit
    if legal_regime == SIMULATION:
        return strict
    for jurisdiction in applying(country).values():
        for limit in jurisdiction.LIMITS:
            strict = strict.strictest(limit.thresholds)
    return strict


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that speaks, and what it still misses: no set of evidence for never, an empty set for nothing."""

    law: str
    rule: Rule
    missing: Needs

    @property
    def holds(self) -> bool:
        """Whether nothing is missing."""
        return frozenset() in self.missing

    @property
    def words(self) -> str:
        """The rule as it is cited: law, id, article."""
        return f"{self.law} {self.rule.id} ({self.rule.article})"

    @property
    def reason(self) -> str:
        """Why the rule refuses."""
        asked = "" if self.missing == NEVER else f"; evidence missing: {in_words(self.missing)}"
        return f"{self.words}: {self.rule.text}{asked}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A decision, the rules that spoke, and the evidence that would turn a refusal: any one of these sets."""

    decision: Decision
    findings: tuple[Finding, ...]
    would_help: Needs


def may_leave(export: Export, on: date) -> Decision:
    """Judge an export under every law of its origin, as of a day."""
    return judge(export, on).decision


def judge(export: Export, on: date) -> Judgement:
    """Judge an export under every law of its origin, as of a day, and keep what each rule said."""
    if export.legal_regime == SIMULATION and export.origin == export.destination:
        return Judgement(Granted(("simulation: nothing leaves this process",)), (), NEVER)
    if export.destination not in COUNTRIES:
        return Judgement(Refused((f"the destination {export.destination!r} is no country: no rule means no",)), (), ())
    laws = applying(export.origin)
    if not laws:
        return Judgement(Refused((f"no jurisdiction is known for {export.origin!r}: no rule means no",)), (), NEVER)
    findings: list[Finding] = []
    silent: list[str] = []
    for name, law in laws.items():
        covering = [r for r in law.RULES if r.covers(export.artefact, export.destination, export.legal_regime)]
        spoken = [r for r in covering if r.in_force(on)]
        findings += [Finding(name, r, tuple(s - export.evidence for s in r.needs)) for r in spoken]
        if not any(r.opens for r in spoken):
            silent.append(_silence(name, export, on, covering))
    refusing = [f for f in findings if not f.holds]
    if not silent and not refusing:
        return Judgement(Granted(tuple(f.words for f in findings)), tuple(findings), NEVER)
    helps = NEVER if silent else together([f.missing for f in refusing])
    return Judgement(Refused((*silent, *(f.reason for f in refusing))), tuple(findings), helps)


def _silence(name: str, export: Export, on: date, covering: list[Rule]) -> str:
    later = sorted((r.since, r.id) for r in covering if r.opens and r.since > on)
    hint = f"; {later[0][1]} opens it from {later[0][0]}" if later else ""
    way = f"{export.artefact} leave to {export.destination} under the regime {export.legal_regime}"
    return f"{name}: no rule in force on {on} lets {way}{hint}"


def together(needs: list[Needs]) -> Needs:
    """Return the smallest sets of evidence that meet all of several needs."""
    unions = {frozenset().union(*chosen) for chosen in itertools.product(*needs)}
    least = [s for s in unions if not any(other < s for other in unions)]
    return tuple(sorted(least, key=lambda s: (len(s), sorted(s))))


def may_be_shown(export: Export, origins: frozenset[str], on: date) -> Decision:
    """Judge something made from data of several origins, or shown on to another: every origin is asked (X15)."""
    judged = {o: may_leave(replace(export, origin=o), on) for o in sorted(origins)}
    refused = [f"{o}: {reason}" for o, said in judged.items() if isinstance(said, Refused) for reason in said.reasons]
    if refused or not origins:
        return Refused(tuple(refused) or ("nothing is known of the origins: no rule means no",))
    return Granted(
        tuple(f"{o}: {why}" for o, said in judged.items() if isinstance(said, Granted) for why in said.because)
    )


def explained(export: Export, on: date) -> dict[str, Any]:
    """Return a judgement as JSON: which rules spoke, what they ask, and what evidence would change it."""
    judged = judge(export, on)
    refused = isinstance(judged.decision, Refused)
    meanings = evidence_terms()
    asked = sorted(set().union(*judged.would_help)) if judged.would_help else []
    return {
        "granted": not refused,
        "on": on.isoformat(),
        "artefact": export.artefact,
        "origin": export.origin,
        "destination": export.destination,
        "legal_regime": export.legal_regime,
        "reasons": list(judged.decision.reasons if isinstance(judged.decision, Refused) else judged.decision.because),
        "rules": [
            {
                "law": f.law,
                "rule": f.rule.id,
                "article": f.rule.article,
                "text": f.rule.text,
                "certainty": f.rule.certainty.value,
                "since": f.rule.since.isoformat(),
                "until": f.rule.until.isoformat() if f.rule.until else None,
                "holds": f.holds,
                "needs": in_words(f.rule.needs),
                "missing": "" if f.holds else in_words(f.missing),
            }
            for f in judged.findings
        ],
        "would_change": [sorted(s) for s in judged.would_help],
        "meanings": {name: meanings[name].meaning for name in asked},
    }
