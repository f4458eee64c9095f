"""Commands about one node: make it, run it, its keys, its worker."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ihds.cli.words import ERR, command, open_space, show, show_rows
from ihds.errors import BadInput

if TYPE_CHECKING:
    from ihds.data.codebook import Codebook
    from ihds.data.sources.tabular import Beside
    from ihds.data.table import Opened
    from ihds.roles.config import DatasetConfig


def node_commands(sub: Any) -> None:
    """Declare ``ihds node``."""
    init = command(
        sub,
        "init",
        "make a node: folder, keys, configuration and, for a holder, its data",
        "ihds node init lih --role holder --country LU --data bladder.csv --codebook bladder.toml",
        _node_init,
        node=False,
    )
    init.add_argument("folder", type=Path)
    init.add_argument("--role", required=True, choices=("holder", "access_body", "authority", "user", "environment"))
    init.add_argument("--country", required=True, help="ISO 3166-1 code, for example LU")
    init.add_argument("--name", help="name shown to others (default: the folder's)")
    init.add_argument("--url", help="address others reach it at (default: a free loopback port)")
    init.add_argument("--port", type=int, help="port to listen on (default: that of the address)")
    init.add_argument("--store", default="", help="postgresql://… (default: SQLite in the folder)")
    init.add_argument("--authority", default="", help="DID of the data space authority")
    init.add_argument("--access-body", action="append", default=[], help="DID trusted to issue permits")
    init.add_argument("--catalogue", action="append", default=[], help="DID of a holder to harvest")
    init.add_argument("--member", action="append", default=[], help="DID the authority admits")
    init.add_argument("--environment", default="", help="DID of the environment an access body names in permits")
    init.add_argument(
        "--environment-required", action="store_true", help="a holder answers no permit that names no environment"
    )
    init.add_argument("--legal-regime", default="contract", choices=("contract", "ehds"))
    init.add_argument("--data", type=Path, help="CSV or Parquet table of a holder")
    init.add_argument("--codebook", type=Path, help="its codebook in TOML (default: a draft is inferred)")
    init.add_argument("--genotypes", type=Path, help=".bed or .pgen file of the same persons, read where it lies")
    init.add_argument("--build", default="", help="its genome build, for example GRCh38")
    init.add_argument("--file", default="", help="a file a holder lets out (path or URL), instead of a table")
    init.add_argument("--artefact", default="METADATA", choices=("METADATA", "AGGREGATE", "MODEL"), help="what it is")
    init.add_argument("--evidence", action="append", default=[], help="what the holder vouches for: docs/law/rules.md")
    init.add_argument("--threshold", action="append", default=[], help="of the holder's own, for example min_cell=10")
    init.add_argument("--person", default="", help="column that tells persons apart, for a draft codebook")
    init.add_argument("--dataset", help="dataset id (default: the file's name)")
    init.add_argument("--title", help="dataset title")
    init.add_argument("--description", default="", help="dataset description")
    init.add_argument("--keyword", action="append", default=[], help="search word; may be repeated")
    init.add_argument("--worker", action="store_true", help="a holder whose rows lie with a worker in an inner zone")
    run = command(sub, "run", "run a node until interrupted", "ihds node run lih", _node_run, node=False)
    run.add_argument("folder", type=Path)


def _node_init(given: Any) -> None:
    from urllib.parse import urlsplit

    from ihds.roles import node
    from ihds.roles.config import NodeConfig, free_port

    name = given.name or given.folder.name
    url = given.url or f"http://127.0.0.1:{given.port or free_port()}"
    port = given.port or urlsplit(url).port or 443
    rows = given.role == "holder" and not given.worker and not given.file
    holding = _read_holding(given, name) if rows else None
    if given.genotypes and not (holding and given.build):
        raise BadInput(
            "genotypes need a holder's table and their genome build", remedy="give --data and --build GRCh38"
        )
    dataset = given.dataset or Path(given.file).stem
    settings = _settings(given, dataset) if (given.worker or given.file) and dataset else None
    config = NodeConfig(
        name=name,
        role=given.role,
        country=given.country,
        base_url=url.rstrip("/"),
        port=port,
        store=given.store,
        authority=given.authority,
        access_bodies=tuple(given.access_body),
        catalogues=tuple(given.catalogue),
        members=tuple(given.member),
        legal_regime=given.legal_regime,
        environment=given.environment,
        datasets=(holding[0],) if holding else (settings,) if settings else (),
        worker=given.worker,
    )
    node.create(given.folder, config)
    loaded = 0
    if holding:
        dataset, table, book, beside = holding
        loaded = node.load_dataset(given.folder, dataset.id, table, book, beside)
        book.write(given.folder / "codebook.toml")
    answer = {"node": name, "did": config.did, "url": config.base_url, "folder": str(given.folder), "rows": loaded}
    show(given, answer, f"{name} is ready: {config.did}\nrun it with: ihds node run {given.folder}")


def _read_holding(given: Any, name: str) -> tuple[DatasetConfig, Opened, Codebook, Beside | None]:
    """Read and check a holder's table, and the genotypes beside it, before anything is made."""
    from ihds.data.codebook import Codebook
    from ihds.data.sources.tabular import Beside
    from ihds.data.table import Opened, conformed, draft_codebook

    if given.data is None:
        raise BadInput("a holder needs data", remedy="give --data TABLE.csv, or --file for a file it lets out")
    table = Opened(given.data, name)
    book = Codebook.read(given.codebook) if given.codebook else draft_codebook(name, table, given.person)
    settings = _settings(given, given.dataset or given.data.stem)
    for _ in conformed(table, book, name):
        pass
    beside = Beside(given.genotypes, given.build) if given.genotypes else None
    if beside:
        beside.join(table, book)
    return settings, table, book, beside


def _settings(given: Any, dataset: str) -> DatasetConfig:
    from ihds.roles.config import DatasetConfig

    moved: dict[str, Any] = {}
    if given.file:
        path = given.file if "://" in given.file else str(Path(given.file).resolve())
        moved = {"file": path, "artefact": given.artefact}
    words = (given.title or dataset, given.description, tuple(given.keyword))
    return DatasetConfig(
        dataset,
        *words,
        evidence=tuple(given.evidence),
        environment_required=given.environment_required,
        thresholds=_thresholds(given.threshold),
        **moved,
    )


def _thresholds(given: list[str]) -> dict[str, Any]:
    """Read thresholds as they are typed: NAME=VALUE each.

    Raises:
        BadInput: one is not.

    """
    found: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            found[name.strip()] = json.loads(value)
        except ValueError as error:
            raise BadInput(f"{text!r} is no threshold", remedy="write for example min_cell=10") from error
    return found


def _node_run(given: Any) -> None:
    import uvicorn

    from ihds.roles.node import Node
    from ihds.wire.memory import keep_freed_memory
    from ihds.wire.serve import Patient

    keep_freed_memory()
    node = Node(given.folder)
    ERR.print(f"{node.config.name} ({node.config.role}, {node.config.country}) at {node.config.base_url}")
    uvicorn.run(
        node.app(),
        host=node.config.host,
        port=node.config.port,
        log_level="info" if given.verbose else "warning",
        access_log=given.verbose,
        timeout_graceful_shutdown=3,
        http=Patient,
    )


def key_commands(sub: Any) -> None:
    """Declare ``ihds key``."""
    command(sub, "list", "list the keys the node's DID document shows", "ihds key list --node lih", _key_list)
    rotate = command(
        sub, "rotate", "sign with a new key from now on; older ones still verify", "ihds key rotate --node lih", _rotate
    )
    rotate.add_argument("--signer", default="file", help="file, or an installed signer such as pkcs11")
    rotate.add_argument("--option", action="append", default=[], help="NAME=VALUE of the signer; may be repeated")
    retire = command(
        sub,
        "retire",
        "stop believing a former key, for example a lost one",
        "ihds key retire key-1 --node lih",
        _retire,
    )
    retire.add_argument("key")


def _key_list(given: Any) -> None:
    show_rows(given, open_space(given).call("key.list"), ("key", "signs", "vouches"))


def _rotate(given: Any) -> None:
    options = dict(pair.partition("=")[::2] for pair in given.option)
    answer = open_space(given).call("key.rotate", signer=given.signer, options=options)
    show(given, answer, f"{answer['key']} signs now; {answer['before']} still verifies what it signed")


def _retire(given: Any) -> None:
    answer = open_space(given).call("key.retire", key=given.key)
    show(given, answer, f"{answer['key']} is retired")


def worker_commands(sub: Any) -> None:
    """Declare ``ihds worker``."""
    text = "write what a worker is made from; carry it to the inner zone and keep it secret"
    ticket = command(sub, "ticket", text, "ihds worker ticket lih.ticket --node lih", _worker_ticket)
    ticket.add_argument("file", type=Path)
    init = command(
        sub,
        "init",
        "make a worker in the inner zone: keys, data, pinned documents",
        "ihds worker init inner --ticket lih.ticket --connector http://dmz.lih:8080 --data lih.csv --dataset bladder",
        _worker_init,
        node=False,
    )
    init.add_argument("folder", type=Path)
    init.add_argument("--ticket", type=Path, required=True)
    init.add_argument("--connector", default="", help="the connector's address from here (default: the ticket's)")
    init.add_argument("--data", type=Path, required=True, help="CSV or Parquet table")
    init.add_argument("--codebook", type=Path, help="its codebook in TOML (default: a draft is inferred)")
    init.add_argument("--evidence", action="append", default=[], help="what the holder vouches for: docs/law/rules.md")
    init.add_argument("--threshold", action="append", default=[], help="of the holder's own, for example min_cell=10")
    init.add_argument("--person", default="", help="column that tells persons apart, for a draft codebook")
    init.add_argument("--dataset", help="dataset id, as the connector lists it (default: the file's name)")
    run = command(sub, "run", "run a worker; it opens no port", "ihds worker run inner", _worker_run, node=False)
    run.add_argument("folder", type=Path)


def _worker_ticket(given: Any) -> None:
    from ihds.wire.keys import write_secret

    ticket = open_space(given).call("worker.ticket")
    write_secret(given.file, json.dumps(ticket, indent=1).encode())
    show(given, {"file": str(given.file)}, f"{given.file} is written; whoever has it can speak as the inner zone")


def _worker_init(given: Any) -> None:
    from ihds.data.codebook import Codebook
    from ihds.data.table import Opened, conformed, draft_codebook
    from ihds.roles import worker

    try:
        ticket = json.loads(given.ticket.read_text(encoding="utf-8"))
        key, connector = ticket.pop("key"), ticket.pop("connector")
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{given.ticket} is no ticket: {error!r}", remedy="write one: ihds worker ticket") from error
    name = given.dataset or given.data.stem
    table = Opened(given.data, name)
    book = Codebook.read(given.codebook) if given.codebook else draft_codebook(name, table, given.person)
    for _ in conformed(table, book, name):
        pass
    tables = {name: (table, book)}
    settings = {**ticket, "evidence": tuple(given.evidence), "thresholds": _thresholds(given.threshold)}
    config = worker.create(given.folder, key, given.connector or connector, settings, tables)
    answer = {"folder": str(given.folder), "connector": config.connector, "rows": table.height}
    show(given, answer, f"{table.height} rows are ready; run it with: ihds worker run {given.folder}")


def _worker_run(given: Any) -> None:
    import signal

    from ihds.roles.worker import Worker
    from ihds.wire.memory import keep_freed_memory

    keep_freed_memory()
    worker = Worker(given.folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ERR.print(f"worker of {worker.config.did} asks {worker.config.connector}")
    worker.run()
