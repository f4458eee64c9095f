"""Commands about people: sign in and out, see who one is, and the small provider that comes with this software."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Any

from ihds.cli.words import ERR, command, open_space, show, show_rows
from ihds.errors import BadInput, SetupFailed


def sign_in_commands(sub: Any) -> None:
    """Declare ``ihds login``, ``ihds logout`` and ``ihds whoami``."""
    login = command(
        sub,
        "login",
        "sign in at a node by its OpenID provider; the session lies in a folder of your own",
        "ihds login https://hdab.example --node anna\n"
        "  ihds permit assess urn:uuid:… --all yes --because 'see the protocol' --node anna",
        _login,
    )
    login.add_argument("url", help="the node's address")
    login.add_argument("--device", action="store_true", help="type a code on another device instead of a browser here")
    login.add_argument("--user", help="fill in the form of the built-in provider without a browser, as this user")
    login.add_argument("--password-file", type=Path, help="file with the password of --user")
    text = "end the session at its node and forget it here"
    command(sub, "logout", text, "ihds logout --node anna", _logout)
    command(sub, "whoami", "show who is signed in, and with which duties", "ihds whoami --node anna", _whoami)


def _login(given: Any) -> None:
    from ihds.people import client
    from ihds.wire.http import Http

    if (given.node / "node.toml").exists():
        raise BadInput(f"{given.node} is a node's folder", remedy="choose a folder of your own: --node FOLDER")
    http = Http(timeout_seconds=120, allowed=("0.0.0.0/0", "::/0"))
    if given.user:
        if not given.password_file:
            raise BadInput("a user needs a password", remedy="--password-file FILE")
        way = client.by_browser(client.filled_in(given.user, _password(given.password_file), http))
    elif given.device:
        way = client.by_code(lambda page, code: ERR.print(f"open {page} and type the code {code}", markup=False))
    else:
        way = client.by_browser(_browse)
    try:
        session, told = client.sign_in(given.url, http, way)
        given.node.mkdir(parents=True, exist_ok=True, mode=0o700)
        session.file = given.node / client.FILE
        session.keep()
    finally:
        http.close()
    show(given, told | {"session": "kept"}, f"{told['name']} is signed in: {', '.join(told['roles'])}")


def _browse(page: str) -> None:
    ERR.print(f"sign in with your browser; if none opens: {page}", markup=False, highlight=False)
    webbrowser.open(page)


def _session(given: Any) -> Any:
    from ihds.people import client
    from ihds.wire.http import Http

    http = Http(timeout_seconds=120, allowed=("0.0.0.0/0", "::/0"))
    if not (given.node / client.FILE).exists():
        raise SetupFailed(f"nobody is signed in at {given.node}", remedy="ihds login URL --node FOLDER")
    return client.SignedIn.read(given.node / client.FILE, http)


def _logout(given: Any) -> None:
    session = _session(given)
    session.leave()
    session.provider.http.close()
    show(given, {"signed_in": False}, "nobody is signed in")


def _whoami(given: Any) -> None:
    session = _session(given)
    told = session.whoami()
    session.provider.http.close()
    show(
        given, told, f"{told['name']} at {told['node']}: {', '.join(told['roles'])}\n{told['issuer']}#{told['subject']}"
    )


def _password(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error}", remedy="--password-file FILE") from error


# -- accounts ------------------------------------------------------------------------------------------


def officer_commands(sub: Any) -> None:
    """Declare ``ihds officer``."""
    add = command(
        sub,
        "add",
        "make an account of the access body; its key is shown once",
        "ihds officer add 'A. Assessor' --role assessor --node hdab",
        _officer_add,
    )
    add.add_argument("name")
    add.add_argument("--role", action="append", required=True, help="a duty; may be repeated")
    add.add_argument("--subject", default="", help="who it is at the provider that signs people in")
    command(sub, "list", "list accounts and their duties", "ihds officer list --node hdab", _officers)
    remove = command(
        sub, "remove", "close an account", "ihds officer remove 'A. Assessor' --node hdab", _officer_remove
    )
    remove.add_argument("name")
    assign = command(
        sub,
        "assign",
        "give somebody a duty in one project; duties that are separate are refused (EHDS Art. 55(3))",
        "ihds officer assign urn:uuid:… 'A. Checker' 'output reviewer' --node hdab",
        _officer_assign,
    )
    assign.add_argument("id", help="application id")
    assign.add_argument("name")
    assign.add_argument("role")
    take = command(
        sub,
        "take",
        "take on a duty in a permit's project, at its environment or one of its holders",
        "ihds officer take urn:uuid:… 'operator of the secure environment' --node environment",
        _officer_take,
    )
    take.add_argument("id", help="permit id")
    take.add_argument("role")
    take.add_argument("--by", default="", help="who, where nobody signs in")
    take.add_argument("--body", default="", help="DID of the access body that granted (default: the configured one)")


def _officer_take(given: Any) -> None:
    answer = open_space(given).call("duty.take", id=given.id, role=given.role, body=given.body, by=given.by)
    show(given, answer, f"{answer['name']} is the {answer['role']} of {answer['permit']}")


def _officer_add(given: Any) -> None:
    answer = open_space(given).call("officer.add", name=given.name, roles=given.role, subject=given.subject)
    says = f"signs in as {answer['subject']}" if answer["subject"] else f"key (shown this once): {answer['key']}"
    show(given, answer, f"{answer['name']}: {', '.join(answer['roles'])}\n{says}")


def _officers(given: Any) -> None:
    show_rows(given, open_space(given).call("officer.list"), ("name", "roles"))


def _officer_remove(given: Any) -> None:
    answer = open_space(given).call("officer.remove", name=given.name)
    show(given, answer, f"{answer['name']} has no account any more")


def _officer_assign(given: Any) -> None:
    answer = open_space(given).call("officer.assign", id=given.id, name=given.name, role=given.role)
    show(given, answer, f"{answer['name']} is the {answer['role']} of {answer['application']}")


# -- the built-in provider -----------------------------------------------------------------------------


def provider_commands(sub: Any) -> None:
    """Declare ``ihds provider``."""

    def declare(name: str, text: str, example: str, run: Any) -> Any:
        made = command(sub, name, text, example, run, node=False)
        made.add_argument("folder", type=Path)
        return made

    init = declare("init", "make a provider", "ihds provider init login --client access-body", _init)
    init.add_argument("--url", default="", help="its address as browsers see it (default: a free loopback port)")
    init.add_argument("--port", type=int, default=0, help="port to listen on (default: that of the address)")
    init.add_argument("--client", action="append", required=True, help="client id of a node; may be repeated")
    declare("run", "run a provider until interrupted", "ihds provider run login", _run)
    text = "make a person's account, or give it another password; its subject is shown"
    add = declare("add", text, "ihds provider add login anna --password-file anna.password", _add)
    add.add_argument("user")
    add.add_argument("--name", default="", help="the person's name")
    add.add_argument("--password-file", type=Path, required=True)
    declare("list", "list the accounts", "ihds provider list login", _list)
    declare("remove", "close an account", "ihds provider remove login anna", _remove).add_argument("user")
    declare("rotate", "sign with a new key; the former one verifies for an hour", "ihds provider rotate login", _rotate)


def _init(given: Any) -> None:
    from urllib.parse import urlsplit

    from ihds.people import provider
    from ihds.roles.config import free_port

    url = (given.url or f"http://127.0.0.1:{given.port or free_port()}").rstrip("/")
    port = given.port or urlsplit(url).port or 443
    provider.create(given.folder, provider.ProviderConfig(url, port, tuple(given.client)))
    show(given, {"issuer": url, "clients": given.client}, f"{url} is ready; run it: ihds provider run {given.folder}")


def _run(given: Any) -> None:
    import uvicorn

    from ihds.people.provider import Provider
    from ihds.wire.serve import Patient

    made = Provider(given.folder)
    ERR.print(f"sign-in provider at {made.config.issuer}")
    where = {"host": made.config.host, "port": made.config.port}
    uvicorn.run(made.app(), **where, log_level="warning", access_log=False, http=Patient)  # type: ignore[arg-type]


def _provider(given: Any) -> Any:
    from ihds.people.provider import Provider

    return Provider(given.folder)


def _add(given: Any) -> None:
    told = _provider(given).accounts.add(given.user, _password(given.password_file), given.name)
    show(given, told, f"{told['user']} is {told['subject']}")


def _list(given: Any) -> None:
    show_rows(given, _provider(given).accounts.list(), ("user", "subject", "name"))


def _remove(given: Any) -> None:
    told = _provider(given).accounts.remove(given.user)
    show(given, told, f"{told['user']} signs in no more; a session that runs ends when it is to be renewed")


def _rotate(given: Any) -> None:
    told = _provider(given).rotate()
    show(given, told, f"{told['key']} signs from now on")
