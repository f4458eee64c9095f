"""R formulas, read safely: what the study's author may ask a site to compute, and nothing else.

Expansion of terms and contrasts is formulaic's. Because formulaic evaluates factor expressions
as Python, every expression is first checked node by node against the short list below; a formula
is text from a stranger.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import formulaic
import formulaic.errors
import numpy as np
import pandas as pd

from ihds.analysis import splines
from ihds.errors import BadFormula, UnknownVariable

_FUNCTIONS: dict[str, Any] = {
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "I": lambda value: value,
}
_RESERVED = frozenset({"Intercept", "C", "I", "Surv", "contr", "strata", "cluster", "offset", "weights", "factor"})
#: What in a formula is no column.
WORDS = _RESERVED | frozenset(_FUNCTIONS) | {"rcs", splines.TERM}
_SPECIALS = ("strata", "cluster", "offset", "weights")
_NODES = (
    ast.Expression,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.Call,
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.USub, ast.UAdd),
    *(ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)
#: Longer formulas, larger exponents and wider crossings are refused: a stranger wrote them.
_MAX_TEXT = 4000
_MAX_EXPONENT = 8
_MAX_CROSSINGS = 8
_FORBIDDEN_HINT = (
    "allowed are columns, numbers, + - * / **, comparisons, "
    f"{', '.join(sorted(_FUNCTIONS))}, C(), rcs(column, knots), strata(), cluster(), offset(), weights()"
)


@dataclass(frozen=True, slots=True)
class Formula:
    """A checked formula.

    ``response`` holds the arguments of ``Surv()`` (2 or 3) or the one response expression;
    ``terms`` the right-hand side in formulaic's words without the special terms.
    """

    text: str
    survival: bool
    response: tuple[str, ...]
    terms: tuple[str, ...]
    intercept: bool
    strata: tuple[str, ...]
    cluster: str
    offset: tuple[str, ...]
    weights: str
    variables: frozenset[str]
    categorical: frozenset[str]
    alias: tuple[tuple[str, str], ...] = ()

    @property
    def right(self) -> str:
        """The right-hand side as formulaic reads it."""
        return " + ".join(("1" if self.intercept else "0", *self.terms))

    def label(self, column: str) -> str:
        """Return a column name in the words the formula was written in."""
        for name, alias in self.alias:
            column = column.replace(alias, name)
        return splines.label(column)


def parse(text: str, columns: Iterable[str], categories: Iterable[str] = ()) -> Formula:
    """Parse an R formula against the variables of a codebook.

    ``categories`` are the variables that are categories whether or not ``C()`` is written.

    Raises:
        BadFormula: the text is not a formula, or asks for something outside the list.
        UnknownVariable: a name is not a column.

    """
    columns = list(columns)
    if len(text) > _MAX_TEXT:
        raise BadFormula(f"the formula is longer than {_MAX_TEXT} characters", remedy="use fewer terms")
    aliased, alias = _alias(splines.expand(text.replace("^", "**")), columns)
    if aliased.count("~") != 1:
        raise BadFormula(
            f"{text!r} is not a formula: it needs exactly one '~'",
            remedy='write for example "Surv(time, status) ~ age + C(stage)"',
        )
    known = {a for _, a in alias} | {c for c in columns if _plain(c)}
    left, right = (part.strip() for part in aliased.split("~"))
    if max((t.count("*") - 2 * t.count("**") for t in right.split("+")), default=0) > _MAX_CROSSINGS:
        raise BadFormula(f"{text!r} crosses too many terms", remedy="write the interactions you need with :")
    survival, response = _response(left, text)
    right = re.sub(r"\b(as\.factor|factor)\s*\(", "C(", right)
    try:
        parsed = formulaic.Formula(right or "1")
        all_terms = [[str(f.expr) for f in term.factors] for term in parsed]
    except (
        formulaic.errors.FormulaicError,
        SyntaxError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        raise BadFormula(
            f"the right-hand side of {text!r} cannot be read: {str(error).splitlines()[0]}",
            remedy="write R-style terms joined by +, : or *",
        ) from error
    terms: list[str] = []
    specials: dict[str, list[str]] = {name: [] for name in _SPECIALS}
    intercept = ["1"] in all_terms
    forced: set[str] = set()
    for factors in all_terms:
        if factors in (["1"], ["0"]):
            continue
        head = re.fullmatch(rf"({'|'.join(_SPECIALS)})\((.*)\)", factors[0], re.DOTALL)
        if head and len(factors) == 1:
            arguments = _arguments(head[2], text)
            if not arguments.args or arguments.keywords:
                raise BadFormula(f"{factors[0]!r} in {text!r} names nothing", remedy=f"write {head[1]}(column)")
            specials[head[1]].extend(ast.unparse(a) for a in arguments.args)
            continue
        for factor in factors:
            forced |= _check(factor, known, text)
        terms.append(":".join(factors))
    for name in ("cluster", "weights"):
        if len(specials[name]) > 1:
            raise BadFormula(f"{text!r} names two {name.rstrip('s')}s", remedy=f"keep one {name}()")
    used: set[str] = set()
    for expression in (
        *response,
        *(e for name in _SPECIALS for e in specials[name] if (name, e) != ("strata", "site")),
    ):
        _check(expression, known, text)
    for expression in (*response, *terms, *(e for v in specials.values() for e in v)):
        used |= _names(expression) & known
    back = {a: n for n, a in alias}
    plain = {n for t in terms for n in _names(t) if back.get(n, n) in set(categories)}
    category_names = forced | plain | {n for e in specials["strata"] for n in _names(e) if n in known}
    return Formula(
        text=text,
        survival=survival,
        response=response,
        terms=tuple(terms),
        intercept=intercept,
        strata=tuple(specials["strata"]),
        cluster="".join(specials["cluster"]),
        offset=tuple(specials["offset"]),
        weights="".join(specials["weights"]),
        variables=frozenset(back.get(n, n) for n in used),
        categorical=frozenset(back.get(n, n) for n in category_names),
        alias=alias,
    )


def _arguments(inner: str, text: str) -> ast.Call:
    try:
        call = ast.parse(f"f({inner})", mode="eval").body
    except SyntaxError as error:
        raise BadFormula(f"{inner!r} in {text!r} cannot be read", remedy=_FORBIDDEN_HINT) from error
    if not isinstance(call, ast.Call):
        raise BadFormula(f"{inner!r} in {text!r} cannot be read", remedy=_FORBIDDEN_HINT)
    return call


def _alias(text: str, columns: list[str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Replace column names that are no Python names (``ph.ecog``) by safe ones."""
    alias = []
    for index, name in enumerate(sorted(columns, key=len, reverse=True)):
        if _plain(name):
            continue
        safe = f"x{index}_" + re.sub(r"[^A-Za-z0-9_]", "_", name)
        pattern = rf"`{re.escape(name)}`"
        if not re.fullmatch(r"[\d.]+", name):  # a column called 2 must not change the number 2
            pattern += rf"|(?<![\w.`]){re.escape(name)}(?![\w.`]|\s*\()"
        replaced = re.sub(pattern, safe, text)
        if replaced != text:
            alias.append((name, safe))
            text = replaced
    return text, tuple(alias)


def _plain(name: str) -> bool:
    """Return whether a column may stand in Python text as it is."""
    usable = name.isidentifier() and not keyword.iskeyword(name) and name.isascii()
    return usable and name not in _RESERVED


def _response(left: str, text: str) -> tuple[bool, tuple[str, ...]]:
    if not left:
        return False, ()
    try:
        tree = ast.parse(left, mode="eval").body
    except SyntaxError as error:
        raise BadFormula(
            f"the left-hand side of {text!r} cannot be read", remedy="write Surv(...) or a column"
        ) from error
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "Surv":
        if len(tree.args) not in (2, 3) or tree.keywords:
            raise BadFormula(
                f"Surv() takes (time, event) or (start, stop, event); {text!r} gives {len(tree.args)}",
                remedy="give two or three arguments by position",
            )
        return True, tuple(ast.unparse(a) for a in tree.args)
    return False, (ast.unparse(tree),)


def _check(expression: str, known: set[str], text: str) -> set[str]:
    """Check one factor; return the names it forces to be categories by ``C()``."""
    try:
        tree = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadFormula(f"{expression!r} in {text!r} cannot be read", remedy=_FORBIDDEN_HINT) from error
    forced: set[str] = set()
    functions: set[int] = set()
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name == "C" and node.args and isinstance(node.args[0], ast.Name):
                forced.add(node.args[0].id)
                for extra in (*node.args[1:], *(k.value for k in node.keywords)):
                    _check_contrast(extra, text)
                    skipped |= {id(n) for n in ast.walk(extra)}
                skipped |= {id(k) for k in node.keywords}
            elif splines.is_term(node):
                skipped |= {id(n) for a in node.args[1:] for n in ast.walk(a)}
            elif name not in _FUNCTIONS or node.keywords or len(node.args) != 1:
                raise BadFormula(
                    f"{ast.unparse(node)!r} in {text!r} is not allowed: it is unknown here, or it "
                    "would learn from one site's rows",
                    remedy=_FORBIDDEN_HINT,
                )
            functions.add(id(node.func))
        elif isinstance(node, ast.Name):
            if id(node) not in functions and node.id not in known:
                raise UnknownVariable(
                    f"variable {node.id!r} in {text!r} is not in the codebook",
                    remedy=f"use one of: {', '.join(sorted(known))}",
                )
        elif isinstance(node, ast.Compare) and len(node.ops) != 1:
            raise BadFormula(f"{expression!r} compares more than two things", remedy="compare two")
        elif isinstance(node, ast.BinOp) and not _bounded(node):
            raise BadFormula(f"{expression!r} in {text!r} is not allowed", remedy=_FORBIDDEN_HINT)
        elif not isinstance(node, _NODES):
            raise BadFormula(
                f"{expression!r} in {text!r} is not allowed ({type(node).__name__})",
                remedy=_FORBIDDEN_HINT,
            )
    return forced


def _bounded(node: ast.BinOp) -> bool:
    """Return whether an operation cannot blow up: small literal exponents, no text, no number tower."""
    sides = (node.left, node.right)
    if any(isinstance(s, ast.Constant) and not isinstance(s.value, (int, float)) for s in sides):
        return False
    if isinstance(node.op, ast.Pow):
        power = node.right.operand if isinstance(node.right, ast.UnaryOp) else node.right
        if not isinstance(power, ast.Constant) or not isinstance(power.value, (int, float)):
            return False
        return abs(power.value) <= _MAX_EXPONENT and not isinstance(node.left, ast.Constant)
    return not all(isinstance(s, ast.Constant) for s in sides)


def _check_contrast(node: ast.expr, text: str) -> None:
    """Allow ``contr.treatment(base="b")``, the choice of a reference level."""
    ok = (
        isinstance(node, ast.Call)
        and ast.unparse(node.func) == "contr.treatment"
        and all(isinstance(a, ast.Constant) for a in node.args)
        and all(isinstance(k.value, ast.Constant) and k.arg == "base" for k in node.keywords)
    )
    if not ok:
        raise BadFormula(
            f"{ast.unparse(node)!r} in {text!r} is not allowed",
            remedy="C() takes a column and at most contr.treatment(base='level')",
        )


def _names(expression: str) -> set[str]:
    parts = expression.split(":") if ":" in expression and "(" not in expression else [expression]
    found: set[str] = set()
    for part in parts:
        try:
            tree = ast.parse(part, mode="eval")
        except SyntaxError:  # an interaction of calls; split at the top level only
            return set(re.findall(r"[A-Za-z_]\w*", expression))
        found |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    return found


def evaluate(expression: str, frame: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Evaluate a checked response, offset or cluster expression on rows, as float64 (n,).

    Text columns may only be compared.

    Raises:
        BadFormula: text is used as a number.

    """
    try:
        value = _value(ast.parse(expression, mode="eval").body, frame, expression)
    except (TypeError, ValueError) as error:
        raise BadFormula(
            f"{expression!r} mixes text and numbers", remedy="compare like with like, for example status == 2"
        ) from error
    array = np.asarray(value)
    if array.dtype == object or array.dtype.kind in "US":
        raise BadFormula(
            f"{expression!r} is text where a number is needed",
            remedy=f"compare it, for example {expression} == 'level'",
        )
    return np.broadcast_to(array.astype(np.float64), (len(frame),)).copy()


_OPERATORS: dict[type[ast.AST], Any] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.USub: np.negative,
    ast.UAdd: np.positive,
}


def _value(node: ast.expr, frame: pd.DataFrame, text: str) -> Any:
    match node:
        case ast.Name(id=name):
            return frame[name].to_numpy()
        case ast.Constant(value=value):
            return float(value) if isinstance(value, int) else value
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(operand, frame, text))
        case ast.BinOp(left=a, op=op, right=b) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(a, frame, text), _value(b, frame, text))
        case ast.Compare(left=a, ops=[op], comparators=[b]) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(a, frame, text), _value(b, frame, text))
        case ast.Call(func=ast.Name(id=name), args=[argument]) if name in _FUNCTIONS:
            with np.errstate(all="ignore"):
                return _FUNCTIONS[name](np.asarray(_value(argument, frame, text), dtype=float))
    raise BadFormula(f"{text!r} cannot be evaluated", remedy=_FORBIDDEN_HINT)


def matrix(formula: Formula, frame: pd.DataFrame) -> tuple[list[str], np.ndarray[Any, np.dtype[np.float64]]]:
    """Return names and columns (n, p) of the right-hand side's model matrix, column by column in memory.

    Categories must already be pandas categoricals with the agreed levels.
    """
    if all(t in frame.columns and frame[t].dtype.kind == "f" for t in formula.terms):  # nothing to expand
        names = ["Intercept"] * formula.intercept + list(formula.terms)
        columns = np.empty((len(frame), len(names)), order="F")
        columns[:, : int(formula.intercept)] = 1.0
        for j, term in enumerate(formula.terms, start=int(formula.intercept)):
            columns[:, j] = frame[term].to_numpy()
        return names, columns
    context = {name: function for name, function in _FUNCTIONS.items() if name != "I"} | {splines.TERM: splines.term}
    try:
        with np.errstate(all="ignore"):
            built = formulaic.model_matrix(formula.right, frame, context=context, na_action="ignore", output="pandas")
        return [str(c) for c in built.columns], np.asfortranarray(pd.DataFrame(built).to_numpy(dtype=float))
    except (formulaic.errors.FormulaicError, TypeError, ValueError, KeyError, OverflowError) as error:
        raise BadFormula(
            f"the terms of {formula.text!r} cannot be computed: {str(error).splitlines()[0]}",
            remedy="use categories with C(), numbers with log() and the like; base= must be a level's text",
        ) from error
