"""Write the generated pages and tables of docs/, or with --check fail if they are not up to date."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ihds import errors
from ihds.analysis import release
from ihds.analysis.agree import CONTRIBUTIONS as AGREEMENT
from ihds.analysis.method import leaves, methods
from ihds.attacks import attacks
from ihds.attacks.attack import carried_out
from ihds.attacks.page import page as attacked
from ihds.audit.log import EVENTS
from ihds.cli import EXIT_STATUS, build_parser
from ihds.connector.dsp import negotiation, transfer
from ihds.governance import agreement, application, bodies, opt_out, permit
from ihds.governance.access import MAY_NOT_APPLY, ContractQuestion, Question
from ihds.governance.deadlines import DEADLINES, OPEN
from ihds.governance.duties import FOUR_EYES, SEPARATE, Role
from ihds.governance.fees import TARIFF
from ihds.governance.holidays import CALENDARS
from ihds.governance.jurisdiction import evidence_terms, jurisdictions
from ihds.governance.lifecycle import Steps, mermaid, plain
from ihds.governance.lives import (
    AMENDMENT,
    APPEAL,
    APPLICATION,
    CONTRACT,
    CONTRACT_AMENDMENT,
    CONTRACT_REQUEST,
    REQUEST,
)
from ihds.governance.policy import NAMESPACE, VOCABULARY
from ihds.governance.rights import ADMINISTRATION, ANY, COMMANDS, DUTIES, rights
from ihds.governance.rule import ARTEFACTS, NEVER, REGIMES, in_words
from ihds.governance.truth import DESTINATIONS, ORIGINS, as_csv, truth_table
from ihds.privacy import rules
from ihds.privacy.disclosure import Thresholds

DOCS = Path(__file__).parent.parent / "docs"
TESTS = DOCS.parent / "tests"
LIVES: dict[str, Steps[Any, Any]] = {
    "Application": APPLICATION,
    "Request": REQUEST,
    "Permit": permit.STEPS,
    "Amendment": AMENDMENT,
    "Appeal": APPEAL,
    "Application under an agreement": CONTRACT,
    "Request under an agreement": CONTRACT_REQUEST,
    "Amendment under an agreement": CONTRACT_AMENDMENT,
    "Agreement": agreement.STEPS,
}
HOLIDAY_YEARS = range(2026, 2031)
MADE = "<!-- made by scripts/generate_docs.py; change the code instead -->\n\n"


def leaves_table(contributions: tuple[type, ...]) -> str:
    """Return the table of what leaves a site."""
    lines = ["| contribution | class | field | shape | unit |", "|---|---|---|---|---|"]
    for contribution in contributions:
        for name, declared in leaves(contribution).items():
            lines.append(
                f"| {contribution.__name__} | {contribution.kind} | `{name}` | `{declared.shape}` | {declared.unit} |"
            )
    lines += ["", "With every contribution travels one more masked word: 1 if this site's values did not fit, else 0."]
    return "\n".join(lines)


def parameters_table(params: type) -> str:
    """Return the table of a method's parameters."""
    lines = ["| parameter | default |", "|---|---|"]
    for field in dataclasses.fields(params):
        default = "required" if field.default is dataclasses.MISSING else f"`{field.default}`"
        lines.append(f"| `{field.name}` | {default} |")
    return "\n".join(lines)


def commands(parser: argparse.ArgumentParser, prefix: str = "ihds") -> Iterator[tuple[str, str]]:
    """Yield every command with its help text."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from commands(child, f"{prefix} {name}")
            return
    parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=90)
    yield prefix, parser.format_help()


def exercised() -> dict[str, list[str]]:
    """Return the tests of the law by what they name: "law rule", or the id of a clock."""
    found: dict[str, list[str]] = {}
    for path in sorted((TESTS / "governance").glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for part in ast.walk(node):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        found.setdefault(part.value, []).append(f"`{path.stem}.{node.name}`")
    return {key: sorted(set(names)) for key, names in found.items()}


def law_rules() -> list[str]:
    """Return the page of every rule of law."""
    lines = ["# The law, rule by rule", ""]
    lines += ["Engineering guidance, not legal advice. Certainty is that of the text at its least sure part; days of"]
    lines += ["entry into force before 2025 are from memory. A lawyer is to check what is from memory.", ""]
    lines += ["A rule that opens lets something leave with what it needs; a condition adds to that. The most"]
    lines += [
        "restrictive rule wins; where no rule opens, the answer is no. `ihds policy explain --artefact` asks them.",
        "",
    ]
    tests = exercised()
    for name, law in sorted(jurisdictions().items()):
        lines += [f"## {name}", "", (law.__doc__ or "").strip(), ""]
        lines += [
            "| rule | article | about | needs | says | in force | certainty | tests |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for rule in law.RULES:
            about = (
                f"{', '.join(sorted(rule.artefacts))} {rule.destinations.words}; {' or '.join(sorted(rule.regimes))}"
            )
            force = f"{rule.since} –{f' {rule.until}' if rule.until else ''}"
            named = ", ".join(tests.get(f"{name} {rule.id}", []))
            kind = "forbids" if rule.needs == NEVER else "opens" if rule.opens else "condition"
            lines.append(
                f"| {rule.id} ({kind}) | {rule.article} | {about} | {in_words(rule.needs)} | {rule.text} | {force} "
                f"| {rule.certainty} | {named} |"
            )
        lines += [
            "",
            "| limit | article | thresholds | says | in use | since | certainty |",
            "|---|---|---|---|---|---|---|",
        ]
        for limit in law.LIMITS:
            least = ", ".join(f"{k} {v:g}" for k, v in dataclasses.asdict(limit.thresholds).items())
            lines.append(_row(limit.id, limit.article, least, limit.text, limit.source, limit.since, limit.certainty))
        lines.append("")
    lines += [
        "## Evidence",
        "",
        "What is shown of the recipient is stated with its DID: `recipient_screened did:web:…`.",
        "",
    ]
    lines += ["| term | meaning | of |", "|---|---|---|"]
    for name, term in sorted(evidence_terms().items()):
        lines.append(f"| `{name}` | {term.meaning} | {'the recipient' if term.of_recipient else 'the data'} |")
    return lines


def disclosure_rules() -> list[str]:
    """Return the page of the rules against disclosure: classes of output, rules, and every field of a result."""
    lines = ["# Rules against disclosure", "", (rules.__doc__ or "").strip().split("\n\n", 1)[1], ""]
    lines += [
        "The strictest of permit, laws and holder holds, threshold by threshold. A study names it and is signed; a"
    ]
    lines += [
        "site that asks for more refuses. A result is looked at once more before it is told: where a rule would be"
    ]
    lines += ["broken, the study ends without it.", "", "## Classes of output", ""]
    lines += ["| class | what it is | rules |", "|---|---|---|"]
    for name, text in rules.CLASSES.items():
        lines.append(_row(name, text, ", ".join(f"`{r.id}`" for r in rules.rules_of(name))))
    lines += [
        "",
        "## Rules",
        "",
        "| rule | says | threshold (default, floor) | judged | source |",
        "|---|---|---|---|---|",
    ]
    default, floor = Thresholds(), Thresholds.floor()
    for rule in rules.RULES:
        limits = [f"`{n}` ({getattr(default, n):.3g}, {getattr(floor, n):.3g})" for n in rule.thresholds]
        lines.append(_row(f"`{rule.id}`", rule.text, "; ".join(limits), ", ".join(rule.where), rule.source))
    lines += [
        "",
        "## Fields of results",
        "",
        "A field that stands in no line does not leave. `*` stands for any name.",
        "",
    ]
    lines += ["| class | fields |", "|---|---|"]
    for kind in (*rules.CLASSES, rules.PUBLIC):
        named = sorted(path for path, of in release.FIELDS.items() if of == kind)
        if named:
            lines.append(_row(kind, ", ".join(f"`{path}`" for path in named)))
    return lines


def law_choices() -> list[str]:
    """Return the rules on opt-outs, their scopes and exceptions."""
    lines = ["## Opt-outs", "", "Applied when a holder opens data under a permit; `ihds citizen` records choices.", ""]
    lines += [_row("rule", "article", "says", "certainty"), "|---|---|---|---|"]
    lines += [_row(*rule) for rule in opt_out.RULES]
    lines += ["", _row("scope", "article", "reaches", "since", "certainty"), "|---|---|---|---|---|"]
    lines += [_row(s.id, s.article, s.text, s.since, s.certainty) for s in opt_out.SCOPES]
    laws = [f"{law.country} {law.article}" for law in opt_out.EXEMPTIONS]
    return [
        *lines,
        "",
        f"National laws under Art. 71(4): {', '.join(laws) or 'none is known, so no exception holds'}.",
        "",
    ]


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def law_clocks() -> list[str]:
    """Return the page of the clocks and the holidays they know."""
    lines = ["# Clocks of the law", "", "No clock grants anything when it runs out: there is no tacit approval."]
    lines += ["Days are counted by Regulation (EEC, Euratom) No 1182/71. `ihds policy clock` asks one of them.", ""]
    heads = ("clock", "article", "who", "must", "counted from", "within", "extension", "means", "running out")
    heads += ("since", "certainty", "tests")
    lines += [_row(*heads), "|" + "---|" * len(heads)]
    tests = exercised()
    for c in DEADLINES:
        more = (
            "none" if c.extension is None else "once, to a day set" if c.extension == OPEN else f"once, {c.extension}"
        )
        means = f"{c.kind}; pauses while information is awaited" if c.pauses else str(c.kind)
        named = ", ".join(tests.get(c.id, []))
        words = (c.id, c.article, c.who, c.what, c.starts, c.period, more, means, c.on_expiry, c.since, c.certainty)
        lines.append(_row(*words, named))
    lines += ["", "## Public holidays", "", "Saturdays and Sundays are no working days either.", ""]
    for key, calendar in CALENDARS.items():
        lines += [f"### {calendar.name} (`{key}`)", "", f"Source: {calendar.source}; {calendar.certainty}.", ""]
        for year in HOLIDAY_YEARS:
            days = ", ".join(f"{day:%d.%m.} {name}" for day, name in sorted(calendar.of_year(year).items()))
            lines.append(f"- {year}: {days}")
        lines.append("")
    return lines


def law_lives() -> list[str]:
    """Return the page of the access lives: a diagram and a table each, from the same data."""
    lines = [
        "# Lives of access",
        "",
        "A step not in a table does not exist; another role is refused. Silence grants nothing:",
    ]
    lines += ["no step of the clock leads to a grant. What countries tell each other of an application is"]
    lines += [
        "[in the reference](../reference/lives.md). All of them are at work in the access body; how an officer works a"
    ]
    lines += ["case stands [here](../how-to/work-a-case.md). An agreement rests on no EHDS permit (Art. 1(8)).", ""]
    for title, steps in LIVES.items():
        start = next(iter(steps))
        lines += [f"## {title}", "", f"```mermaid\n{mermaid(plain(steps), start)}\n```", ""]
        lines += ["| state | action | by | leads to | needs |", "|---|---|---|---|---|"]
        for state, row in steps.items():
            for action, step in row.items():
                needs = "; ".join(sorted(step.needs)) or "nothing"
                lines.append(f"| {state} | {action} | {step.by} | {step.to} | {needs} |")
        lines.append("")
    lines += ["## Verdicts", "", "Each is answered with assessor and justification; those marked may not apply.", ""]
    marked = [f"- {question}{' (may not apply)' if question in MAY_NOT_APPLY else ''}" for question in Question]
    duties = ", ".join(sorted(SEPARATE))
    marked += ["", "Under an agreement, where no permit of the EHDS is asked for:", ""]
    marked += [f"- {question}" for question in ContractQuestion]
    marked += [
        "",
        "## Fees",
        "",
        "EHDS Art. 62 names no amount; a body puts its own tariff in the place of this one.",
        "",
    ]
    marked += [_row("fee", "article", "for", "euros", "each", "public body of the Union"), "|" + "---|" * 6]
    marked += [_row(f.id, f.article, f.what, f.euros, f.unit, f.reduced) for f in TARIFF]
    return [*lines, *marked, "", f"One person holds at most one of these duties in a project (55(3)): {duties}."]


def law_roles() -> list[str]:
    """Return the page of who may do what: the one table, by role."""
    lines = [
        "# Who may do what",
        "",
        "Role by state by action; what is not here is refused, and the refusal names the role. How people sign in:",
        "[here](../how-to/sign-in.md). A person holds at most one of these duties in a project (EHDS Art. 55(3)),",
        f"whatever its account is called: {', '.join(sorted(SEPARATE))}.",
        f"Four eyes, a rule of this software: {' and '.join(sorted(FOUR_EYES))} are two persons in a project.",
        "",
        "## Duties by institution",
        "",
        "| institution | duties an account may have |",
        "|---|---|",
    ]
    lines += [f"| {role.replace('_', ' ')} | {', '.join(sorted(duties))} |" for role, duties in DUTIES.items()]
    for role in Role:
        rows = [r for r in rights() if r.role is role]
        if not rows:
            continue
        lines += ["", f"## {role[0].upper()}{role[1:]}", "", "| what | in state | may |", "|---|---|---|"]
        for noun, state in dict.fromkeys((r.noun, r.state) for r in rows):
            acts = ", ".join(r.action for r in rows if (r.noun, r.state) == (noun, state))
            lines.append(f"| {noun} | {state if state != ANY else '-'} | {acts} |")
    lines += [
        "",
        "## Commands",
        "",
        "What changes something, and who may give it; whoever has an account here reads.",
    ]
    lines += ["", "| command | who |", "|---|---|"]
    lines += [f"| `{c}` | {', '.join(sorted(g.roles))} |" for c, g in sorted(COMMANDS.items()) if not g.reads]
    lines += ["", f"With the node's own key only: {', '.join(f'`{c}`' for c in sorted(ADMINISTRATION))}."]
    return lines


def law_at_a_glance() -> list[str]:
    """Return the page of the truth table."""
    lines = ["# Who may receive what", ""]
    lines += ["Judged without any evidence: **no** whatever is shown, **yes** with nothing shown, else the rules whose"]
    lines += [
        "evidence must be shown ([rules](rules.md)). The same lines, with that evidence in words, are the golden file"
    ]
    lines += ["`tests/governance/truth_table.csv`.", ""]
    cells = {(t.on, t.origin, t.artefact, t.legal_regime, t.destination): t for t in truth_table()}
    for on in sorted({key[0] for key in cells}):
        lines += [f"## On {on}", "", f"| from | what | regime | {' | '.join(f'to {d}' for d in DESTINATIONS)} |"]
        lines.append("|---|---|---|" + "---|" * len(DESTINATIONS))
        for origin, artefact, regime in itertools.product(ORIGINS, ARTEFACTS, REGIMES):
            row = [cells[on, origin, artefact, regime, d] for d in DESTINATIONS]
            said = [f"{t.answer} {', '.join(t.rules)}" if t.answer == "with" else t.answer for t in row]
            lines.append(f"| {origin} | {artefact} | {regime} | {' | '.join(said)} |")
        lines.append("")
    return lines


def pages() -> dict[Path, str]:
    """Return the generated pages by path."""
    made: dict[Path, str] = {}
    cli = ["# Commands", "", "Every command takes `--json`.", "", f"```text\n{EXIT_STATUS}\n```", ""]
    for name, text in commands(build_parser()):
        cli += [f"## `{name}`", "", f"```text\n{text.rstrip()}\n```", ""]
    made[DOCS / "reference/commands.md"] = MADE + "\n".join(cli)

    rows = ["# Errors", "", "| code | class | exit status | HTTP | meaning |", "|---|---|---|---|---|"]
    for code, cls in sorted(errors.all_errors().items()):
        meaning = (cls.__doc__ or "").strip().splitlines()[0]
        rows.append(f"| `{code}` | `{cls.__name__}` | {cls.exit_status} | {cls.http_status} | {meaning} |")
    made[DOCS / "reference/errors.md"] = MADE + "\n".join(rows) + "\n"

    rows = ["# Events of the audit log", "", "| kind | meaning |", "|---|---|"]
    rows += [f"| `{kind}` | {text} |" for kind, text in EVENTS.items()]
    made[DOCS / "reference/events.md"] = MADE + "\n".join(rows) + "\n"

    states = ["# Lives", ""]
    for title, table, start in (
        ("Data access application", application.NEXT, application.ApplicationState.SUBMITTED),
        ("Motion of a body", bodies.NEXT, bodies.MotionState.OPEN),
        ("Data permit", permit.NEXT, permit.PermitState.GRANTED),
        ("Contract negotiation (DSP)", negotiation.NEXT, negotiation.State.START),
        ("Transfer process (DSP)", transfer.NEXT, transfer.State.START),
    ):
        states += [f"## {title}", "", f"```mermaid\n{mermaid(table, start)}\n```", ""]
    made[DOCS / "reference/lives.md"] = MADE + "\n".join(states)

    terms = ["# Rules of offers, permits and jurisdictions", "", f"Left operands are `{NAMESPACE}` + term.", ""]
    terms += ["| term | meaning |", "|---|---|", *(f"| `{t}` | {m} |" for t, m in VOCABULARY.items()), ""]
    terms += ["## Thresholds", "", "| name | default | floor |", "|---|---|---|"]
    default, floor = Thresholds(), Thresholds.floor()
    for field in dataclasses.fields(Thresholds):
        shown = [f"{getattr(t, field.name):.3g}" for t in (default, floor)]
        terms.append(f"| `{field.name}` | {shown[0]} | {shown[1]} |")
    terms += ["", "The rules of law stand on [their own page](../law/rules.md), what the thresholds are for on"]
    terms += ["[that of disclosure control](disclosure.md)."]
    made[DOCS / "reference/rules.md"] = MADE + "\n".join(terms) + "\n"

    made[DOCS / "reference/disclosure.md"] = MADE + "\n".join(disclosure_rules()) + "\n"

    made[DOCS / "law/rules.md"] = MADE + "\n".join([*law_rules(), "", *law_choices()]) + "\n"
    made[DOCS / "law/clocks.md"] = MADE + "\n".join(law_clocks()) + "\n"
    made[DOCS / "law/lives.md"] = MADE + "\n".join(law_lives()) + "\n"
    made[DOCS / "law/roles.md"] = MADE + "\n".join(law_roles()) + "\n"
    made[DOCS / "law/truth-table.md"] = MADE + "\n".join(law_at_a_glance()) + "\n"
    made[TESTS / "governance/truth_table.csv"] = as_csv()

    for name, chosen in methods().items():
        path = DOCS / f"methods/{name}.md"
        if not path.exists():
            sys.exit(f"{path} is missing: every method has its page")
        text = path.read_text(encoding="utf-8")
        text = _fill(text, "leaves", leaves_table(chosen.CONTRIBUTIONS), path)
        made[path] = _fill(text, "parameters", parameters_table(chosen.Params), path)
    made[DOCS / "explanation/attacks.md"] = MADE + attacked(map(carried_out, attacks().values()))
    path = DOCS / "explanation/agreement.md"
    made[path] = _fill(path.read_text(encoding="utf-8"), "leaves", leaves_table(AGREEMENT), path)
    return made


def _fill(text: str, name: str, table: str, path: Path) -> str:
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"{path} has no place for the table {name!r}: <!-- {name} --> <!-- /{name} -->")
    return pattern.sub(lambda m: f"{m[1]}{table}\n{m[2]}", text)


def main() -> int:
    """Write or check; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for path, text in pages().items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(path))
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if check and stale:
        sys.stderr.write("not up to date, run `make docs`: " + ", ".join(stale) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
