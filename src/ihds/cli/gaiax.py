"""Commands for Gaia-X: certificate, registration number, presentation, check, clearing house."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ihds.cli.words import OUT, command, open_space, show, show_json
from ihds.connector.gaiax import chains
from ihds.connector.gaiax.statements import REGISTRATIONS
from ihds.errors import BadInput, Refused, SetupFailed
from ihds.wire.keys import write_secret


def gaiax_commands(sub: Any) -> None:
    """Declare ``ihds gaiax``."""
    anchor = command(sub, "anchor", "make a trust anchor for trials", "ihds gaiax anchor anchor", _anchor, node=False)
    anchor.add_argument("folder", type=Path)
    anchor.add_argument("--name", default="IHDS trial anchor")
    certify = command(
        sub,
        "certify",
        "give a node a certificate chain: by a trial anchor, or from a provider's file",
        "ihds gaiax certify --anchor anchor --node lih",
        _certify,
    )
    source = certify.add_mutually_exclusive_group(required=True)
    source.add_argument("--anchor", type=Path, help="folder of a trial anchor")
    source.add_argument("--chain", type=Path, help="PEM file of a trust service provider, for the node's key")
    register = command(
        sub,
        "register",
        "let a notary vouch for a node's registration number",
        "ihds gaiax register --notary authority --node lih",
        _register,
    )
    register.add_argument("--notary", type=Path, help="folder of a notary's node (for trials: the authority's)")
    register.add_argument("--credential", type=Path, help="a notary's credential (JWT), instead")
    present = command(sub, "present", "print the node's presentation (JWT)", "ihds gaiax present --node lih", _present)
    present.add_argument("--file", type=Path, help="write it to a file")
    verify = command(
        sub,
        "verify",
        "check a participant's presentation and label it as a self-assessment",
        "ihds gaiax verify https://lih.example/gaiax/participant.vp.jwt --anchors anchors.pem --node ncck",
        _verify,
    )
    verify.add_argument("presentation", help="address or file of a presentation")
    verify.add_argument("--anchors", type=Path, required=True, help="PEM file with the trust anchors you accept")
    verify.add_argument("--shapes", type=Path, help="folder with SHACL shapes (*.ttl)")
    verify.add_argument("--notary", action="append", default=[], help="DID of a notary you trust; may be repeated")
    submit = command(
        sub,
        "submit",
        "send the presentation to an accredited clearing house",
        "ihds gaiax submit https://compliance.example/v2 --node lih",
        _submit,
    )
    submit.add_argument("clearing_house", help="its address")


def _anchor(given: Any) -> None:
    from cryptography.hazmat.primitives import serialization

    if (given.folder / "anchor.pem").exists():
        raise SetupFailed(f"{given.folder} holds an anchor already", remedy="choose another folder")
    certificate, key = chains.make_anchor(given.name)
    given.folder.mkdir(parents=True, exist_ok=True)
    (given.folder / "anchor.pem").write_bytes(chains.pem([certificate]))
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    write_secret(given.folder / "anchor.key", pem)
    file = given.folder / "anchor.pem"
    show(given, {"anchor": str(file)}, f"{file}: for trials; in production an anchor is a qualified trust service")


def _certify(given: Any) -> None:
    space = open_space(given)
    if given.chain:
        pem = _text(given.chain)
    else:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        anchor = chains.read(_text(given.anchor / "anchor.pem").encode())[0]
        key = serialization.load_pem_private_key(_text(given.anchor / "anchor.key").encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        told = space.call("gaiax.key")
        pem = chains.pem([chains.certify(told["did"], told["jwk"], anchor, key), anchor]).decode()
    answer = space.call("gaiax.certify", chain=pem)
    show(given, answer, f"{answer['certificates']} certificates, anchored in {answer['anchor']}")


def _register(given: Any) -> None:
    import ihds

    space = open_space(given)
    if given.credential:
        token = _text(given.credential).strip()
    elif given.notary:
        settings = space.config.gaiax
        kind, number = settings.get("registration_type", ""), settings.get("registration_number", "")
        if not kind:
            raise SetupFailed(
                "node.toml has no [gaiax] table", remedy=f"set registration_type: {', '.join(REGISTRATIONS)}"
            )
        notary = ihds.connect(given.notary)
        try:
            token = notary.call("gaiax.notarise", did=space.config.did, type=kind, number=number)["credential"]
        finally:
            notary.close()
    else:
        raise BadInput("who vouches for the number?", remedy="give --notary or --credential")
    answer = space.call("gaiax.keep", credential=token)
    show(given, answer, f"{answer['type']} vouched for by {answer['issuer']}")


def _present(given: Any) -> None:
    token = open_space(given).call("gaiax.present")["presentation"]
    if given.file:
        given.file.write_text(token, encoding="utf-8")
    show(given, {"presentation": token}, str(given.file) if given.file else token)


def _verify(given: Any) -> int:
    named = {"url": given.presentation}
    if not given.presentation.startswith(("http://", "https://")):
        named = {"presentation": _text(Path(given.presentation)).strip()}
    shapes = str(given.shapes.resolve()) if given.shapes else ""
    answer = open_space(given).call(
        "gaiax.verify", **named, anchors=_text(given.anchors), shapes=shapes, notaries=given.notary
    )
    if given.json:
        show_json(answer)
    else:
        for check in answer["checks"]:
            OUT.print(
                f"{'+' if check['holds'] else '-'} {check['rule']}: {check['found']}", markup=False, highlight=False
            )
        OUT.print("PASSED" if answer["passed"] else "NOT PASSED", style="bold")
        OUT.print(answer["notice"], markup=False, highlight=False)
    return 0 if answer["passed"] else Refused.exit_status


def _submit(given: Any) -> None:
    answer = open_space(given).call("gaiax.submit", clearing_house=given.clearing_house)
    show(given, answer, f"{answer['type']} {answer['credential']}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error}", remedy="check the path") from error
