"""Write the generated pages and tables of docs/, or with --check fail if they are not up to date."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ihds import errors
from ihds.analysis.agree import CONTRIBUTIONS as AGREEMENT
from ihds.analysis.method import leaves, methods
from ihds.audit.log import EVENTS
from ihds.cli import EXIT_STATUS, build_parser
from ihds.connector.dsp import negotiation, transfer
from ihds.governance import application, permit
from ihds.governance.jurisdiction import jurisdictions
from ihds.governance.lifecycle import mermaid
from ihds.governance.policy import NAMESPACE, VOCABULARY
from ihds.privacy.disclosure import Thresholds

DOCS = Path(__file__).parent.parent / "docs"
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
        ("Data permit", permit.NEXT, permit.PermitState.GRANTED),
        ("Contract negotiation (DSP)", negotiation.NEXT, negotiation.State.START),
        ("Transfer process (DSP)", transfer.NEXT, transfer.State.START),
    ):
        states += [f"## {title}", "", f"```mermaid\n{mermaid(table, start)}\n```", ""]
    made[DOCS / "reference/lives.md"] = MADE + "\n".join(states)

    rules = ["# Rules of offers, permits and jurisdictions", "", f"Left operands are `{NAMESPACE}` + term.", ""]
    rules += ["| term | meaning |", "|---|---|", *(f"| `{t}` | {m} |" for t, m in VOCABULARY.items()), ""]
    rules += ["## Thresholds", "", "| name | default | floor |", "|---|---|---|"]
    default, floor = Thresholds(), Thresholds.floor()
    for field in dataclasses.fields(Thresholds):
        shown = [f"{getattr(t, field.name):.3g}" for t in (default, floor)]
        rules.append(f"| `{field.name}` | {shown[0]} | {shown[1]} |")
    rules += [
        "",
        "## Jurisdictions",
        "",
        "| law | rule | article | artefacts | needs | text |",
        "|---|---|---|---|---|---|",
    ]
    for name, law in sorted(jurisdictions().items()):
        for rule in law.RULES:
            needs = "never" if rule.needs is None else ", ".join(sorted(rule.needs)) or "nothing"
            artefacts = ", ".join(sorted(rule.artefacts))
            rules.append(f"| {name} | {rule.id} | {rule.article} | {artefacts} | {needs} | {rule.text} |")
    made[DOCS / "reference/rules.md"] = MADE + "\n".join(rules) + "\n"

    for name, chosen in methods().items():
        path = DOCS / f"methods/{name}.md"
        if not path.exists():
            sys.exit(f"{path} is missing: every method has its page")
        text = path.read_text(encoding="utf-8")
        text = _fill(text, "leaves", leaves_table(chosen.CONTRIBUTIONS), path)
        made[path] = _fill(text, "parameters", parameters_table(chosen.Params), path)
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
