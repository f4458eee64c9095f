"""ODRL policies of offers: evaluated against what is known, and denied when anything is not.

A rule is a permission or a prohibition to ``use`` under constraints. Left operands are the terms
of ``VOCABULARY``; an action, operand or operator outside it denies and says so (never ignored).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
    "membership": "role in the data space, from the membership credential",
}


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
        problems = [*_unknown_in(rule), *_failures(rule, facts)]
        if not problems:
            held = (f"permission: {_words(rule)}",)
            break
        tried += problems
    if not held:
        reasons += tried or ["policy: there is no permission"]
    return Refused(tuple(reasons)) if reasons else Granted(held)


_POLICY_KEYS = {"permission", "prohibition", "obligation", "target", "assigner", "assignee", "profile", "timestamp"}
_RULE_KEYS = {"action", "constraint", "target", "assigner", "assignee"}


def _unknown_in(rule: Mapping[str, Any]) -> list[str]:
    found = [f"rule: the term {k!r} is unknown" for k in rule if k not in _RULE_KEYS]
    if rule.get("action") not in ("use", "odrl:use"):
        found.append(f"rule: the action {rule.get('action')!r} is unknown")
    for constraint in rule.get("constraint", []):
        found += _unknown_constraint(constraint)
    return found


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
    """Return whether a rule asks for something nobody knows; a prohibition then holds."""
    parts = [c for c in rule.get("constraint", []) if "leftOperand" in c]
    return any(term(str(c["leftOperand"])) not in facts for c in parts)


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
