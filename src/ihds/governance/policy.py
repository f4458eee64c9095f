"""ODRL policies of offers: evaluated against what is known, and denied when anything is not.

A rule is a permission or a prohibition to ``use`` under constraints. Left operands are the terms
of ``VOCABULARY``; an action, operand or operator outside it denies and says so (never ignored).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

NAMESPACE = "https://w3id.org/ihds/policy#"

#: The left operands IHDS understands, with their meaning.
VOCABULARY: dict[str, str] = {
    "purpose": "purpose of the permit (EHDS Art. 53(1))",
    "permit": "identifier of the data permit",
    "permitStatus": "state of the data permit: GRANTED, REVOKED, EXPIRED",
    "method": "federated method of the study, name only",
    "recipientCountry": "country (ISO 3166-1) the result goes to",
    "legalRegime": "regime of the grant: ehds or contract",
    "minimumSitePersons": "persons a site must hold to take part",
    "minimumCell": "persons in a released cell",
    "timeBin": "width of the pooled time grid",
    "membership": "member, from the membership credential",
    "role": "role in the data space, from the membership credential",
    "jurisdiction": "law that applies to the data, by its name in IHDS, for example luxembourg",
    "epsilon": "differential privacy a study spends; without noise nothing is known of it",
    "retentionDays": "days for which the permit lets the results' inputs be kept",
}

#: Left operands whose right operand is a number, and the purposes of EHDS Art. 53(1).
_NUMBERS = frozenset({"minimumSitePersons", "minimumCell", "timeBin", "epsilon", "retentionDays"})


@dataclass(frozen=True, slots=True)
class Granted:
    """Yes, and why."""

    because: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """No, with the reasons; each cites its rule."""

    reasons: tuple[str, ...]


Decision = Granted | Refused
Facts = Mapping[str, str | tuple[str, ...]]


def evaluate(policy: Mapping[str, Any], facts: Facts) -> Decision:
    """Judge a policy: some permission must hold and no prohibition may.

    ``facts`` maps vocabulary terms to text or several texts; an absent term is unknown and makes
    its constraint false.
    """
    reasons: list[str] = []
    for name in policy:
        if name.startswith("@") or name in _POLICY_KEYS:
            continue
        reasons.append(f"policy: the term {name!r} is unknown")
    for rule in policy.get("prohibition", []):
        problems = _unknown_in(rule)
        if problems:
            reasons += problems
        elif not _failures(rule, facts) or _absent(rule, facts):
            reasons.append(f"prohibition: {_words(rule)}")
    for rule in policy.get("obligation", []):
        reasons.append(f"obligation: {rule.get('action')!r} is a duty this node cannot discharge")
    permissions = policy.get("permission", [])
    tried: list[str] = []
    held: tuple[str, ...] = ()
    for rule in permissions:
        problems = _unknown_in(rule) or _failures(rule, facts)
        if not problems:
            held = (f"permission: {_words(rule)}",)
            break
        tried += problems
    if not held:
        reasons += tried or ["policy: there is no permission"]
    return Refused(tuple(reasons)) if reasons else Granted(held)


def validate(policy: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a policy as somebody writes it; an empty list if nothing is.

    A policy that could never be granted, or would be read otherwise elsewhere, is found here, before
    anybody negotiates under it: unknown terms, operators and actions, right operands of a wrong kind.
    """
    found = [f"policy: the term {k!r} is unknown" for k in policy if not k.startswith("@") and k not in _POLICY_KEYS]
    if not policy.get("permission"):
        found.append("policy: it has no permission, so it allows nothing")
    for kind in ("permission", "prohibition", "obligation"):
        rules = policy.get(kind, [])
        if not isinstance(rules, list):
            found.append(f"{kind}: it must be a list")
            continue
        for number, rule in enumerate(rules, 1):
            where = f"{kind} {number}"
            if not isinstance(rule, Mapping):
                found.append(f"{where}: it must be an object")
                continue
            if kind == "obligation":
                found.append(f"{where}: this node cannot discharge the duty {rule.get('action')!r}")
                continue
            found += [f"{where}: {problem}" for problem in _unknown_in(rule)]
    return found


def _wrong_operands(constraints: Any) -> list[str]:
    if not isinstance(constraints, list):
        return ["constraint must be a list"]
    found = []
    for part in constraints:
        if not isinstance(part, Mapping):
            found.append("a constraint must be an object")
            continue
        inner = [k for k in _LOGICAL if k in part]
        if inner:
            found += _wrong_operands(part[inner[0]])
            found += [] if part[inner[0]] else _unknown_constraint(part)
            continue
        left, right = term(str(part.get("leftOperand"))), part.get("rightOperand")
        values = right if isinstance(right, list) else [right]
        if not values or not all(isinstance(v, (str, Mapping)) for v in values):
            found.append(f"{left}: the right operand must be text, an object or a list of them (DSP 2025-1)")
        elif left in _NUMBERS and not all(_is_number(_text(v)) for v in values):
            found.append(f"{left}: {_text(values[0])!r} is not a number")
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an explanation: what a rule asks, whether it holds, what is known; ``depth`` indents it."""

    text: str
    holds: bool
    known: str
    depth: int


def explain(policy: Mapping[str, Any], facts: Facts) -> tuple[Decision, list[Line]]:
    """Judge a policy and say in words how: every rule, every constraint, what is known and what is missing."""
    lines: list[Line] = []
    for kind, wanted in (("permission", True), ("prohibition", False)):
        for number, rule in enumerate(policy.get(kind, []), 1):
            unknown = _unknown_in(rule)
            applies = not unknown and not _failures(rule, facts)
            text = f"{kind} {number}: {rule.get('action')}"
            lines.append(Line(text, applies, "applies" if applies else "does not apply", 0))
            lines += [Line(problem, False, "unknown terms deny", 1) for problem in unknown]
            if not unknown:
                lines += [line for part in rule.get("constraint", []) for line in _explained(part, facts, 1)]
            if not wanted and not unknown and _absent(rule, facts):
                lines.append(Line("something it asks for is unknown, so it is taken to apply", True, "", 1))
    lines += [
        Line(f"obligation: {rule.get('action')}", False, "a duty this node cannot discharge", 0)
        for rule in policy.get("obligation", [])
    ]
    return evaluate(policy, facts), lines


def explained(policy: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """Return an explanation as JSON."""
    decision, lines = explain(policy, facts)
    refused = isinstance(decision, Refused)
    return {
        "granted": not refused,
        "reasons": list(decision.reasons if isinstance(decision, Refused) else decision.because),
        "lines": [asdict(line) for line in lines],
        "facts": {k: v if isinstance(v, str) else list(v) for k, v in facts.items()},
    }


def _explained(part: Mapping[str, Any], facts: Facts, depth: int) -> list[Line]:
    for name in _LOGICAL:
        if name in part:
            inner = [line for each in part[name] for line in _explained(each, facts, depth + 1)]
            words = {"or": "any of", "xone": "exactly one of"}.get(name, "all of")
            return [Line(words, _holds(part, facts), "", depth), *inner]
    left = term(str(part.get("leftOperand")))
    meaning = VOCABULARY.get(left, "unknown term")
    return [Line(f"{_said(part)}   [{meaning}]", _holds(part, facts), _known(part, facts), depth)]


_POLICY_KEYS = {"permission", "prohibition", "obligation", "target", "assigner", "assignee", "profile", "timestamp"}
_RULE_KEYS = {"action", "constraint", "target", "assigner", "assignee"}


def _unknown_in(rule: Mapping[str, Any]) -> list[str]:
    """Return what of a rule cannot be understood: unknown terms, operands of a wrong kind."""
    found = [f"rule: the term {k!r} is unknown" for k in rule if k not in _RULE_KEYS]
    if rule.get("action") not in ("use", "odrl:use"):
        found.append(f"rule: the action {rule.get('action')!r} is unknown")
    constraints = rule.get("constraint", [])
    wrong = _wrong_operands(constraints)
    return found + wrong if wrong else found + [p for part in constraints for p in _unknown_constraint(part)]


def _unknown_constraint(constraint: Mapping[str, Any]) -> list[str]:
    logical = [k for k in _LOGICAL if k in constraint]
    if logical:
        inner = constraint[logical[0]]
        if len(constraint) != 1 or not isinstance(inner, list) or not inner:
            return [f"constraint: {sorted(constraint)} is not one connective with parts"]
        return [p for part in inner for p in _unknown_constraint(part)]
    extra = sorted(set(constraint) - {"leftOperand", "operator", "rightOperand"})
    if extra:
        return [f"constraint: the term {extra[0]!r} is unknown"]
    left, operator = str(constraint.get("leftOperand")), str(constraint.get("operator"))
    found = []
    if term(left) not in VOCABULARY:
        found.append(f"constraint: the left operand {left!r} is unknown")
    if operator.removeprefix("odrl:") not in _OPERATORS:
        found.append(f"constraint: the operator {operator!r} is unknown")
    return found


def _absent(rule: Mapping[str, Any], facts: Facts) -> bool:
    """Return whether a rule asks, however deep, for something nobody knows; a prohibition then holds."""
    return any(_asks_unknown(part, facts) for part in rule.get("constraint", []))


def _asks_unknown(part: Mapping[str, Any], facts: Facts) -> bool:
    for name in _LOGICAL:
        if name in part:
            return any(_asks_unknown(inner, facts) for inner in part[name])
    return not facts.get(term(str(part.get("leftOperand"))))


def term(left: str) -> str:
    """Return the vocabulary term of a left operand IRI."""
    return left.removeprefix(NAMESPACE)


def _failures(rule: Mapping[str, Any], facts: Facts) -> list[str]:
    return [
        f"constraint: {_said(c)} does not hold ({_known(c, facts)})"
        for c in rule.get("constraint", [])
        if not _holds(c, facts)
    ]


_LOGICAL: dict[str, Callable[[list[bool]], bool]] = {
    "and": lambda values: all(values),
    "andSequence": lambda values: all(values),
    "or": lambda values: any(values),
    "xone": lambda values: sum(values) == 1,
}


def _holds(constraint: Mapping[str, Any], facts: Facts) -> bool:
    for name, combine in _LOGICAL.items():
        if name in constraint:
            return bool(combine([_holds(inner, facts) for inner in constraint[name]]))
    known = facts.get(term(str(constraint.get("leftOperand"))))
    operator = _OPERATORS.get(str(constraint.get("operator")).removeprefix("odrl:"))
    if known is None or operator is None:
        return False
    left = (known,) if isinstance(known, str) else known
    right = constraint.get("rightOperand")
    wanted = tuple(map(_text, right)) if isinstance(right, list) else (_text(right),)
    return bool(left) and operator(left, wanted)


def _text(value: Any) -> str:
    return str(value.get("@id") or value.get("@value")) if isinstance(value, Mapping) else str(value)


def _order(a: str, b: str) -> int:
    """Compare as numbers where both are, else as text (dates in ISO form sort as text)."""
    try:
        x, y = float(a), float(b)
    except ValueError:
        return (a > b) - (a < b)
    return (x > y) - (x < y)


_OPERATORS: dict[str, Callable[[tuple[str, ...], tuple[str, ...]], bool]] = {
    "eq": lambda a, b: len(a) == len(b) and set(a) == set(b),
    "neq": lambda a, b: set(a) != set(b),
    "lt": lambda a, b: _order(a[0], b[0]) < 0,
    "term-lteq": lambda a, b: _order(a[0], b[0]) <= 0,
    "lteq": lambda a, b: _order(a[0], b[0]) <= 0,
    "gt": lambda a, b: _order(a[0], b[0]) > 0,
    "gteq": lambda a, b: _order(a[0], b[0]) >= 0,
    "isA": lambda a, b: set(b) <= set(a),
    "hasPart": lambda a, b: set(b) <= set(a),
    "isPartOf": lambda a, b: set(a) <= set(b),
    "isAllOf": lambda a, b: set(a) == set(b),
    "isAnyOf": lambda a, b: bool(set(a) & set(b)),
    "isNoneOf": lambda a, b: not set(a) & set(b),
}


def _said(constraint: Mapping[str, Any]) -> str:
    for name in _LOGICAL:
        if name in constraint:
            return f" {name} ".join(_said(inner) for inner in constraint[name])
    left = term(str(constraint.get("leftOperand")))
    right = constraint.get("rightOperand")
    texts = ", ".join(map(_text, right)) if isinstance(right, list) else _text(right)
    return f"{left} {constraint.get('operator')} {texts}"


def _known(constraint: Mapping[str, Any], facts: Facts) -> str:
    known = facts.get(term(str(constraint.get("leftOperand", ""))))
    if known is None:
        return "nothing is known of it"
    return "it is " + (known if isinstance(known, str) else ", ".join(known))


def _words(rule: Mapping[str, Any]) -> str:
    said = [_said(c) for c in rule.get("constraint", [])]
    return "use" + (" where " + " and ".join(said) if said else "")


def constraint(left: str, operator: str, right: str | list[str]) -> dict[str, Any]:
    """Return a constraint in DSP's form; the left operand becomes an IRI."""
    return {"leftOperand": NAMESPACE + left, "operator": operator, "rightOperand": right}


def vocabulary() -> dict[str, Any]:
    """Return the published vocabulary as JSON-LD: each left operand with its meaning."""
    return {
        "@context": {
            "skos": "http://www.w3.org/2004/02/skos/core#",
            "odrl": "http://www.w3.org/ns/odrl/2/",
            "terms": {"@reverse": "skos:inScheme"},
        },
        "@id": NAMESPACE,
        "@type": "skos:ConceptScheme",
        "terms": [
            {
                "@id": NAMESPACE + name,
                "@type": ["skos:Concept", "odrl:LeftOperand"],
                "skos:notation": name,
                "skos:definition": {"@value": meaning, "@language": "en"},
            }
            for name, meaning in VOCABULARY.items()
        ],
    }
