"""R formulas, read safely: what the study's author may ask a site to compute, and nothing else.

Expansion of terms and contrasts is formulaic's. Because formulaic evaluates factor expressions
as Python, every expression is first checked node by node against the short list below; a formula
is text from a stranger.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import formulaic
import formulaic.errors
import numpy as np
import pandas as pd

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
_SPECIALS = ("strata", "cluster", "offset")
_NODES = (
    ast.Expression,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.Call,
    ast.operator,
    ast.unaryop,
    ast.cmpop,
)
_FORBIDDEN_HINT = (
    "allowed are columns, numbers, + - * / **, comparisons, "
    f"{', '.join(sorted(_FUNCTIONS))}, C(), strata(), cluster(), offset()"
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
        return column


def parse(text: str, columns: Iterable[str], categories: Iterable[str] = ()) -> Formula:
    """Parse an R formula against the variables of a codebook.

    ``categories`` are the variables that are categories whether or not ``C()`` is written.

    Raises:
        BadFormula: the text is not a formula, or asks for something outside the list.
        UnknownVariable: a name is not a column.

    """
    columns = list(columns)
    if text.count("~") != 1:
        raise BadFormula(
            f"{text!r} is not a formula: it needs exactly one '~'",
            remedy='write for example "Surv(time, status) ~ age + C(stage)"',
        )
    aliased, alias = _alias(text, columns)
    known = {a for _, a in alias} | {c for c in columns if c.isidentifier()}
    left, right = (part.strip() for part in aliased.split("~"))
    survival, response = _response(left, text)
    right = re.sub(r"\b(as\.factor|factor)\s*\(", "C(", right.replace("^", "**"))
    try:
        parsed = formulaic.Formula(right or "1")
        all_terms = [[str(f.expr) for f in term.factors] for term in parsed]
    except (formulaic.errors.FormulaicError, SyntaxError, TypeError, AttributeError) as error:
        raise BadFormula(
            f"the right-hand side of {text!r} cannot be read: {str(error).splitlines()[0]}",
            remedy="write R-style terms joined by +, : or *",
        ) from error
    terms: list[str] = []
    specials: dict[str, list[str]] = {name: [] for name in _SPECIALS}
    intercept = False
    forced: set[str] = set()
    for factors in all_terms:
        if factors in (["1"], ["0"]):
            intercept = intercept or factors == ["1"]
            continue
        head = re.fullmatch(r"(strata|cluster|offset)\((.*)\)", factors[0], re.DOTALL)
        if head and len(factors) == 1:
            arguments = ast.parse(f"f({head[2]})", mode="eval").body
            assert isinstance(arguments, ast.Call)
            specials[head[1]].extend(ast.unparse(a) for a in arguments.args)
            continue
        for factor in factors:
            forced |= _check(factor, known, text)
        terms.append(":".join(factors))
    if len(specials["cluster"]) > 1:
        raise BadFormula(f"{text!r} names two clusters", remedy="keep one cluster()")
    used: set[str] = set()
    for expression in (*response, *specials["offset"]):
        _check(expression, known, text)
    for expression in specials["strata"]:
        if expression != "site":
            _check(expression, known, text)
    for expression in specials["cluster"]:
        _check(expression, known, text)
    for expression in (*response, *terms, *(e for v in specials.values() for e in v)):
        used |= _names(expression) & known
    back = {a: n for n, a in alias}
    in_terms = {n for t in terms for n in _names(t)}
    plain = {n for n in in_terms if back.get(n, n) in set(categories)}
    whole = {n for e in specials["strata"] for n in _names(e) if n in known}
    category_names = forced | plain | whole
    return Formula(
        text=text,
        survival=survival,
        response=response,
        terms=tuple(terms),
        intercept=intercept,
        strata=tuple(specials["strata"]),
        cluster="".join(specials["cluster"]),
        offset=tuple(specials["offset"]),
        variables=frozenset(back.get(n, n) for n in used),
        categorical=frozenset(back.get(n, n) for n in category_names),
        alias=alias,
    )


def _alias(text: str, columns: list[str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Replace column names that are no Python names (``ph.ecog``) by safe ones."""
    alias = []
    for index, name in enumerate(sorted(columns, key=len, reverse=True)):
        if name.isidentifier():
            continue
        safe = f"x{index}_" + re.sub(r"\W", "_", name)
        pattern = rf"`{re.escape(name)}`|(?<![\w.]){re.escape(name)}(?![\w.])"
        replaced = re.sub(pattern, safe, text)
        if replaced != text:
            alias.append((name, safe))
            text = replaced
    return text, tuple(alias)


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
    except SyntaxError as error:
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
            elif name not in _FUNCTIONS or node.keywords:
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
        elif not isinstance(node, _NODES):
            raise BadFormula(
                f"{expression!r} in {text!r} is not allowed ({type(node).__name__})",
                remedy=_FORBIDDEN_HINT,
            )
    return forced


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
    value = _value(ast.parse(expression, mode="eval").body, frame, expression)
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
    ast.BitAnd: np.logical_and,
    ast.BitOr: np.logical_or,
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
            return value
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


def matrix(formula: Formula, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the model matrix (n, p) of the right-hand side, intercept column excluded for none.

    Categories must already be pandas categoricals with the agreed levels.
    """
    if all(t in frame.columns and frame[t].dtype.kind == "f" for t in formula.terms):  # nothing to expand
        columns = {"Intercept": np.ones(len(frame))} if formula.intercept else {}
        return pd.DataFrame({**columns, **{t: frame[t] for t in formula.terms}})
    context = {name: function for name, function in _FUNCTIONS.items() if name != "I"}
    with np.errstate(all="ignore"):
        built = formulaic.model_matrix(formula.right, frame, context=context, na_action="ignore", output="pandas")
    return pd.DataFrame(built).astype(float)
