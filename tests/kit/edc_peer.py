"""Eclipse EDC as a process and through its management API, for the interoperability run and the benchmark."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ihds.roles.config import free_port

HERE = Path(__file__).parent / "edc"
CACHE = Path(__file__).parent.parent.parent / ".cache/edc"
VERSION = (HERE / "pom.xml").read_text().split("<edc>")[1].split("</edc>")[0]
_VOCAB = {"@vocab": "https://w3id.org/edc/v0.0.1/ns/"}
_ODRL = "http://www.w3.org/ns/odrl.jsonld"
_PROTOCOL = "dataspace-protocol-http:2025-1"
_LOOPS = ("negotiation.consumer", "negotiation.provider", "transfer", "dataplane", "data.plane.selector")


def fetch() -> Path:
    """Fetch EDC's jars and compile the two extensions, unless they are here; return the class path's folder."""
    for tool in ("java", "javac", "mvn"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing: EDC needs a Java 17 JDK and Maven (apt-get install openjdk-17-jdk maven)")
    folder = CACHE / VERSION
    if not (folder / "complete").exists():
        print(f"fetching Eclipse EDC {VERSION} ...", flush=True)
        command = ["mvn", "-q", "-B", "-ntp", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies"]
        subprocess.run([*command, f"-DoutputDirectory={folder / 'lib'}", "-DincludeScope=runtime"], check=True)
    classes = folder / "classes"
    services = classes / "META-INF/services"
    services.mkdir(parents=True, exist_ok=True)
    sources = sorted((HERE / "peer").glob("*.java"))
    (services / "org.eclipse.edc.spi.system.ServiceExtension").write_text(
        "".join(f"peer.{source.stem}\n" for source in sources)
    )
    subprocess.run(
        ["javac", "-proc:none", "-cp", f"{folder}/lib/*", "-d", str(classes), *map(str, sources)], check=True
    )
    (folder / "complete").touch()
    return folder


def call(method: str, url: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Send JSON; return status and answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            status, raw = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, raw = error.code, error.read()
    try:
        return status, json.loads(raw) if raw else None
    except ValueError:
        return status, raw


@dataclass
class Edc:
    """One EDC runtime: provider and consumer."""

    folder: Path
    participant: str
    loop_millis: int | None = 50
    ports: list[int] = field(default_factory=lambda: [free_port() for _ in range(5)])
    process: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        """Its DSP base."""
        return f"http://127.0.0.1:{self.ports[2]}/api/dsp/2025-1"

    @property
    def management(self) -> str:
        """Its management API."""
        return f"http://127.0.0.1:{self.ports[1]}/api/management/v3"

    def start(self, jars: Path) -> None:
        """Start it and wait until its data plane is there."""
        self.folder.mkdir(parents=True)
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        public = self.folder / "public.pem"
        public.write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        plain, management, protocol, control, data = self.ports
        settings = {
            "edc.participant.id": self.participant,
            "edc.component.id": self.participant,
            "edc.hostname": "127.0.0.1",
            "web.http.port": plain,
            "web.http.path": "/api",
            "web.http.management.port": management,
            "web.http.management.path": "/api/management",
            "web.http.management.auth.type": "tokenbased",
            "web.http.management.auth.key": "password",
            "web.http.protocol.port": protocol,
            "web.http.protocol.path": "/api/dsp",
            "web.http.control.port": control,
            "web.http.control.path": "/api/control",
            "peer.public.port": data,
            "edc.dsp.callback.address": f"http://127.0.0.1:{protocol}/api/dsp",
            "edc.transfer.proxy.token.signer.privatekey.alias": "peer-private",
            "edc.transfer.proxy.token.verifier.publickey.alias": "peer-public",
            "peer-private": pem.replace("\n", "\\n"),
            "edc.iam.publickeys.peer.id": "peer-public",
            "edc.iam.publickeys.peer.path": public,
        }
        if self.loop_millis is not None:
            settings |= {f"edc.{loop}.state-machine.iteration-wait-millis": self.loop_millis for loop in _LOOPS}
        (self.folder / "edc.properties").write_text("".join(f"{k}={v}\n" for k, v in settings.items()))
        command = ["java", "-Xmx256m", "-Dedc.fs.config=edc.properties", "-cp", f"{jars}/classes:{jars}/lib/*"]
        with (self.folder / "edc.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "org.eclipse.edc.boot.system.runtime.BaseRuntime"], cwd=self.folder, stdout=log, stderr=log
            )
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                status, planes = call("GET", f"{self.management}/dataplanes", headers={"x-api-key": "password"})
            except OSError:
                status, planes = 0, None
            if status == 200 and "AVAILABLE" in json.dumps(planes):
                return
            time.sleep(0.1)
        sys.exit("EDC did not start:\n" + (self.folder / "edc.log").read_text()[-3000:])

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call the management API."""
        status, answer = call(method, self.management + path, body, {"x-api-key": "password"})
        if status not in (200, 204):
            raise RuntimeError(f"EDC: {method} {path} was answered {status} {answer!r}")
        return answer

    def offer(self, asset: str, url: str, constraint: dict[str, str] | None = None) -> None:
        """Offer an upstream URL; with a constraint, only to whom it fits."""
        source = {"@type": "DataAddress", "type": "HttpData", "baseUrl": url}
        self.api(
            "POST", "/assets", {"@context": _VOCAB, "@id": asset, "properties": {"name": asset}, "dataAddress": source}
        )
        rules = {"access": [{"action": "use"}], "contract": [{"action": "use", **_constrained(constraint)}]}
        for kind, rule in rules.items():
            policy = {"@context": _ODRL, "@type": "Set", "permission": rule}
            self.api("POST", "/policydefinitions", {"@context": _VOCAB, "@id": f"{asset}-{kind}", "policy": policy})
        chosen = {"operandLeft": "https://w3id.org/edc/v0.0.1/ns/id", "operator": "=", "operandRight": asset}
        body = {"@id": f"{asset}-def", "accessPolicyId": f"{asset}-access", "contractPolicyId": f"{asset}-contract"}
        self.api("POST", "/contractdefinitions", {"@context": _VOCAB, **body, "assetsSelector": [chosen]})

    def negotiate(self, address: str, provider: str, dataset: str) -> dict[str, Any]:
        """Negotiate for a dataset of a catalog; return the ended negotiation."""
        asked = {"@context": _VOCAB, "counterPartyAddress": address, "counterPartyId": provider, "protocol": _PROTOCOL}
        found = self.api("POST", "/catalog/request", asked)
        entries = [d for d in _list(_of(found, "dataset")) if d["@id"] == dataset]
        offer = _list(_of(entries[0], "hasPolicy"))[0]
        policy = {
            **offer,
            "@context": _ODRL,
            "@type": "Offer",
            "assigner": {"@id": provider},
            "target": {"@id": dataset},
        }
        body = {"@context": _VOCAB, "counterPartyAddress": address, "protocol": _PROTOCOL, "policy": policy}
        identifier = self.api("POST", "/contractnegotiations", body)["@id"]
        return self.wait("contractnegotiations", identifier, "FINALIZED", "TERMINATED")

    def transfer(self, address: str, agreement: str, format_: str = "HttpData-PULL") -> str:
        """Request a transfer and wait until it has started; return its id here."""
        body = {"@context": _VOCAB, "counterPartyAddress": address, "protocol": _PROTOCOL, "contractId": agreement}
        identifier = str(self.api("POST", "/transferprocesses", {**body, "transferType": format_})["@id"])
        self.wait("transferprocesses", identifier, "STARTED")
        return identifier

    def move(self, transfer: str, word: str) -> None:
        """Suspend, resume or terminate a transfer."""
        kind = {"suspend": "SuspendTransfer", "terminate": "TerminateTransfer"}.get(word)
        body = {"@context": _VOCAB, "@type": kind, "reason": "interoperability run"} if kind else None
        self.api("POST", f"/transferprocesses/{transfer}/{word}", body)

    def wait(self, kind: str, identifier: str, *states: str) -> dict[str, Any]:
        """Wait until a process is in one of the states."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            shown = self.api("GET", f"/{kind}/{identifier}")
            if shown["state"] in states:
                return shown
            time.sleep(0.02)
        raise RuntimeError(
            f"EDC: {kind} {identifier} stays {shown['state']}, wanted {states}: {shown.get('errorDetail')}"
        )

    def address_of(self, transfer: str) -> tuple[str, str]:
        """Return endpoint and token of a transfer this EDC consumes."""
        deadline = time.monotonic() + 20
        while True:
            try:
                found = self.api("GET", f"/edrs/{transfer}/dataaddress")
                pairs = {key.rsplit("/", 1)[-1]: value for key, value in found.items()}
                return pairs["endpoint"], pairs["authorization"]
            except (RuntimeError, KeyError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def provided(self, consumer_pid: str) -> str:
        """Return the id of a transfer this EDC provides."""
        expression = {"operandLeft": "correlationId", "operator": "=", "operandRight": consumer_pid}
        body = {"@context": _VOCAB, "@type": "QuerySpec", "filterExpression": [expression]}
        return str(self.api("POST", "/transferprocesses/request", body)[0]["@id"])


def _constrained(constraint: dict[str, str] | None) -> dict[str, Any]:
    return {"constraint": constraint} if constraint else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _of(body: dict[str, Any], name: str) -> Any:
    return next((v for k, v in body.items() if k.rsplit(":", 1)[-1] == name), None)
