"""Secure sums over the real wire against a plain sum over the same wire and against Flower's SecAgg+, in one run.

Parties answer over HTTP in processes of their own; every message is signed and checked as in a node, and the keys and
shares of the next round ride along, so that a round is three exchanges. What a node adds to that (gate, sealed state,
audit log with fsync) is timed by ``benchmarks/run.py``. Flower runs in this process's child without any wire.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

for _name in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_name}_NUM_THREADS", "1")

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from ihds.canonical import pack, sha256, unpack
from ihds.privacy.secagg import opening
from ihds.privacy.secagg.messages import BOX_BYTES, Announcement, Bytes, Reveal, Shares, Survivors, words_digest
from ihds.privacy.secagg.opening import Opening
from ihds.privacy.secagg.party import Party
from ihds.privacy.secagg.setting import Setting
from ihds.privacy.secagg.stream import Words
from ihds.roles.config import free_port
from ihds.wire.guard import LOOPBACK, Guard
from ihds.wire.http import Line
from ihds.wire.jose import SigningKey, verify_jwt
from ihds.wire.memory import keep_freed_memory
from ihds.wire.serve import Answer, Call, endpoint

ROOT = Path(__file__).parent.parent
FLOWER = ROOT / ".cache/flower"
FLOWER_VERSION = "1.42.0"
SCALE = 2.0**30


def words_of(name: str, size: int) -> Words:
    """A party's numbers at the fixed-point scale: whole and exact."""
    rng = np.random.default_rng(int(sha256(name.encode())[:8], 16))
    return np.rint(rng.normal(size=size) * SCALE).astype(np.int64).view(np.uint64)


# -- a party ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """A signed message and what is too large to sign in full."""

    token: str
    words: Words
    next_keys: str


@dataclass(frozen=True)
class Confirmed:
    token: str
    shares: Shares
    shares_token: str


@dataclass(frozen=True)
class Ask:
    tokens: tuple[str, ...]
    boxes: Bytes


@dataclass
class Served:
    """One party: this round's state, and the next one's."""

    name: str
    size: int
    key: SigningKey
    peers: dict[str, dict[str, Any]] = field(default_factory=dict)
    setting: Setting | None = None
    now: Party | None = None
    after: Party | None = None
    words: Words | None = None

    def verified(self, tokens: tuple[str, ...]) -> list[dict[str, Any]]:
        return [verify_jwt(t, self.peers[n]) for n, t in zip(self.peers, tokens, strict=True) if t]

    def answer(self, call: Call) -> Answer:
        done = getattr(self, call.path["step"])(call.body)
        return Answer(raw=done, media_type="application/octet-stream")

    def plain(self, _body: bytes) -> bytes:
        return pack(Said("", self.words.copy(), ""))  # a node makes its words anew

    def peak(self, _body: bytes) -> bytes:
        status = Path("/proc/self/status").read_text()
        found = {line.split(":")[0]: int(line.split()[1]) for line in status.splitlines() if "kB" in line}
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        return json.dumps({"peak": found["VmHWM"] * 1024, "now": found["VmRSS"] * 1024}).encode()

    def setup(self, body: bytes) -> bytes:
        asked = json.loads(body)
        self.peers, number = asked["peers"], asked["number"]
        self.setting = Setting.of("5d" * 32, self.peers, asked["colluding"])
        self.words = words_of(self.name, self.size)
        self.after = Party.begin(self.setting, self.name, number)
        return self._keys().encode()

    def join(self, body: bytes) -> bytes:
        self.now, shares = self._share(unpack(Ask, body).tokens)
        return pack(Confirmed("", shares, self.key.sign_jwt(shares.claims())))

    def round(self, body: bytes) -> bytes:
        asked = json.loads(body)
        self.now, _ = self.now.enter(asked["state"], asked["sharers"])
        masked = self.now.mask(self.words.copy())
        self.after = Party.begin(self.setting, self.name, self.now.round + 1)
        return pack(Said(self.key.sign_jwt(self.now.masked(masked).claims()), masked, self._keys()))

    def confirm(self, body: bytes) -> bytes:
        asked = json.loads(body)
        self.now, said = self.now.confirm(asked["survivors"])
        self.after, shares = self._share(tuple(asked["tokens"]))
        return pack(Confirmed(self.key.sign_jwt(said.claims()), shares, self.key.sign_jwt(shares.claims())))

    def reveal(self, body: bytes) -> bytes:
        asked = unpack(Ask, body)
        said = [Survivors.from_claims(c) for c in self.verified(asked.tokens)]
        shown = self.now.reveal({s.party: s for s in said}, asked.boxes)
        self.now = self.after
        return pack(shown)

    def _keys(self) -> str:
        return self.key.sign_jwt(self.after.announcement().claims())

    def _share(self, tokens: tuple[str, ...]) -> tuple[Party, Shares]:
        roster = {c["sub"]: Announcement.from_claims(c) for c in self.verified(tokens)}
        return self.after.share(roster)


def serve(port: int, names: list[str], size: int) -> None:
    """Answer for some parties in this process."""
    keep_freed_memory()
    parties = {n: Served(n, size, SigningKey.new(n)) for n in names}

    def step(call: Call) -> Answer:
        return parties[call.path["party"]].answer(call)

    def keys(_call: Call) -> Answer:
        return Answer({n: p.key.public_jwk() for n, p in parties.items()})

    limit = 1 << 28
    routes = [Route("/keys", endpoint(keys), methods=["POST"])]
    routes.append(Route("/{party}/{step}", endpoint(step, max_body=limit), methods=["POST"]))
    uvicorn.run(Starlette(routes=routes), port=port, log_level="error", http="httptools", access_log=False)


# -- the coordinator -------------------------------------------------------------------------------


class Space:
    """All parties behind HTTP, a few to a process, and the coordinator's lines to them."""

    def __init__(self, parties: int, size: int, processes: int, colluding: int | None = None) -> None:
        self.names, self.size = [f"did:web:p{i:03}" for i in range(parties)], size
        self.children, self.lines, self.peers = [], {}, {}
        for part in (self.names[i::processes] for i in range(processes)):
            port = free_port()
            command = [sys.executable, __file__, "--serve", str(port), str(size), *part]
            self.children.append(subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}))
            for name in part:
                self.lines[name] = Line(f"http://127.0.0.1:{port}", Guard.of(LOOPBACK))
            self.peers |= json.loads(self._until_up(self.lines[part[0]]))
        self.peers = {n: self.peers[n] for n in self.names}
        self.pool = ThreadPoolExecutor(parties)
        self.setting = Setting.of("5d" * 32, self.names, colluding)
        self.number, self.seconds, self.busy = -1, {}, 0.0
        self.truth = {n: words_of(n, size) for n in self.names}
        self.begin()

    def begin(self) -> None:
        """Everybody's keys and shares, as at the beginning of a study or after somebody came back."""
        self.number += 1
        asked = {"peers": self.peers, "number": self.number, "colluding": self.setting.colluding}
        said = self.all("setup", dict.fromkeys(self.names, json.dumps(asked).encode()))
        self.tokens = {n: raw.decode() for n, raw in said.items()}
        self.roster = self._roster()
        body = pack(Ask(self._ordered(self.tokens), np.zeros((0, BOX_BYTES), np.uint8)))
        said = self.all("join", dict.fromkeys(self.names, body))
        self.shares = {n: self._shares(n, unpack(Confirmed, raw)) for n, raw in said.items()}

    def _until_up(self, line: Line) -> bytes:
        for _ in range(600):
            try:
                return line.post("/keys", b"", {})[1]
            except Exception:
                time.sleep(0.1)
        raise RuntimeError("a party does not start")

    def close(self) -> None:
        for child in self.children:
            child.terminate()
            child.wait()

    def cpu(self) -> float:
        """Seconds of processor time so far of the parties and of this process."""
        ticks = 0
        for process in ("self", *(child.pid for child in self.children)):
            fields = Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def post(self, name: str, step: str, body: bytes) -> bytes:
        status, answer = self.lines[name].post(f"/{name}/{step}", body, {"Content-Type": "application/octet-stream"})
        if status != 200:
            raise RuntimeError(f"{name} {step}: {answer[:500]!r}")
        return answer

    def all(self, step: str, bodies: dict[str, bytes], take=lambda _name, raw: raw) -> dict[str, Any]:
        calls = {n: self.pool.submit(lambda n=n, b=b: take(n, self.post(n, step, b))) for n, b in bodies.items()}
        return {n: call.result() for n, call in calls.items()}

    def _roster(self) -> dict[str, Announcement]:
        return {n: Announcement.from_claims(verify_jwt(t, self.peers[n])) for n, t in self.tokens.items()}

    def _ordered(self, tokens: dict[str, str]) -> tuple[str, ...]:
        return tuple(tokens.get(n, "") for n in self.names)

    def _shares(self, name: str, said: Confirmed) -> Shares:
        said.shares.check(verify_jwt(said.shares_token, self.peers[name]))
        return said.shares

    def plain(self) -> float:
        """Everybody's words in the clear, added."""
        busy = self.cpu()
        begin, total, lock = time.perf_counter(), np.zeros(self.size, dtype=np.uint64), threading.Lock()

        def take(_name: str, raw: bytes) -> None:
            with lock:
                np.add(total, unpack(Said, raw).words, out=total)

        self.all("plain", dict.fromkeys(self.names, b"{}"), take)
        seconds, self.busy = time.perf_counter() - begin, self.cpu() - busy
        assert np.array_equal(total, np.sum(list(self.truth.values()), axis=0, dtype=np.uint64))
        return seconds

    def secure(self, gone: int = 0) -> float:
        """One round; the last ``gone`` parties have shared their keys and vanish before they answer."""
        busy = self.cpu()
        begin, state, parties = time.perf_counter(), sha256(str(self.number).encode()), list(self.roster)
        asked = json.dumps({"state": state, "sharers": parties}).encode()
        answering, roster, shares = parties[: len(parties) - gone], self.roster, self.shares
        total, lock, tokens = np.zeros(self.size, dtype=np.uint64), threading.Lock(), {}

        def take(name: str, raw: bytes) -> None:
            said = unpack(Said, raw)
            if verify_jwt(said.token, self.peers[name])["words"] != words_digest(said.words):
                raise RuntimeError(f"{name} signed other words")
            tokens[name] = said.next_keys
            with lock:
                opening.add(total, said.words)

        self.all("round", dict.fromkeys(answering, asked), take)
        at = self._lap("answer", begin)
        opened = Opening.of(self.setting, self.number, roster, state, parties, answering)
        self.tokens = tokens
        self.roster = self._roster()
        body = json.dumps({"survivors": opened.survivors, "tokens": self._ordered(tokens)}).encode()
        said = {n: unpack(Confirmed, raw) for n, raw in self.all("confirm", dict.fromkeys(answering, body)).items()}
        self.shares = {n: self._shares(n, c) for n, c in said.items()}
        enough = answering[: self.setting.threshold(len(parties))]
        confirmed = self._ordered({n: said[n].token for n in enough})
        at = self._lap("confirm", at)
        asks = {n: pack(Ask(confirmed, opening.boxes_for(n, opened, shares))) for n in answering}
        shown = {n: unpack(Reveal, raw) for n, raw in self.all("reveal", asks).items()}
        at = self._lap("reveal", at)
        found = opening.recover(opened, shares, shown)
        opening.unmask(total, opened, found)
        self._lap("open", at)
        seconds, self.busy = time.perf_counter() - begin, self.cpu() - busy
        assert not found.faults
        assert np.array_equal(total, np.sum([self.truth[n] for n in answering], axis=0, dtype=np.uint64))
        self.number += 1
        return seconds

    def _lap(self, what: str, since: float) -> float:
        now = time.perf_counter()
        self.seconds[what] = now - since
        return now


# -- what is measured ------------------------------------------------------------------------------


def report(what: str, seconds: float, against: str = "", ratio: float | None = None, **more: Any) -> None:
    versus = f"  {ratio:6.2f} x {against}" if ratio is not None else ""
    extra = ", ".join(f"{k} {v}" for k, v in more.items())
    print(f"{what:66} {seconds:8.3f} s{versus}  {extra}", flush=True)


def rounds(parties: int, size: int, processes: int, gone: tuple[int, ...], repeats: int) -> dict[str, float]:
    """Plain and secure rounds taken in turn; the best of each, and the mean of all processor time."""
    space = Space(parties, size, processes)
    seen: dict[str, list[float]] = {"plain": [], **{str(g): [] for g in gone}}
    busy = dict.fromkeys(seen, 0.0)
    laps: dict[str, dict[str, float]] = {}

    def timed(name: str, call: Callable[[], float]) -> None:
        seen[name].append(call())
        busy[name] += space.busy / repeats

    try:
        space.plain()
        for _ in range(repeats):
            timed("plain", space.plain)
            for g in gone:
                timed(str(g), lambda g=g: space.secure(g))
                laps[str(g)] = dict(space.seconds)
                if g:
                    space.begin()
    finally:
        space.close()
    found = {name: min(values) for name, values in seen.items()}
    label = f"{parties} parties x {size:.0e}"
    report(f"{label}: plain sum", found["plain"], cpu=f"{busy['plain']:.3f}")
    for g in gone:
        parts = " ".join(f"{k} {v:.3f}" for k, v in laps[str(g)].items())
        ratio = f"{busy[str(g)]:.3f} ({busy[str(g)] / busy['plain']:.2f} x)"
        report(
            f"{label}: secure, {g} drop out",
            found[str(g)],
            "plain",
            found[str(g)] / found["plain"],
            cpu=ratio,
            last=parts,
        )
    if len(gone) > 1:
        last = str(gone[-1])
        cpu = f"{busy[last] / busy['0']:.2f} x"
        report(f"{label}: {last} drop out", found[last], "none", found[last] / found["0"], cpu=cpu)
    return found


def memory(size: int) -> None:
    """Peak memory of one party's process over a round, in vectors of its own."""
    space = Space(3, size, 3)
    name = space.names[0]
    try:
        space.post(name, "peak", b"{}")  # the peak starts anew with one vector held
        space.secure()
        after = json.loads(space.post(name, "peak", b"{}"))
        one = 8 * size
        bare = Space(3, 1, 3)
        try:
            bare.secure()
            base = json.loads(bare.post(name, "peak", b"{}"))["peak"]
        finally:
            bare.close()
        print(f"memory of a party's process, {size:.0e} words: {(after['peak'] - base) / one:.2f} vectors at most")
    finally:
        space.close()


def core(parties: int, size: int, gone: int) -> float:
    """Processor time of one round in this process, all parties and the coordinator: no wire and no signatures."""
    setting = Setting.of("5d" * 32, [f"did:web:p{i:03}" for i in range(parties)])
    words = {n: words_of(n, size) for n in setting.holders}
    truth = np.sum([words[n] for n in setting.holders[: parties - gone]], axis=0, dtype=np.uint64)
    begin = time.process_time()
    held = {n: Party.begin(setting, n, 0) for n in setting.holders}
    roster, shares, said = {n: p.announcement() for n, p in held.items()}, {}, {}
    total = np.zeros(size, dtype=np.uint64)
    for n in held:
        held[n], shares[n] = held[n].share(roster)
    answering = setting.holders[: parties - gone]
    for n in answering:
        held[n], _ = held[n].enter("5e" * 32, roster)
        masked = held[n].mask(words[n])
        assert held[n].masked(masked).words == words_digest(masked)  # the party's digest, and the coordinator's
        opening.add(total, masked)
        held[n], said[n] = held[n].confirm(answering)
    opened = Opening.of(setting, 0, roster, "5e" * 32, list(roster), answering)
    shown = {n: held[n].reveal(said, opening.boxes_for(n, opened, shares)) for n in answering}
    opening.unmask(total, opened, opening.recover(opened, shares, shown))
    seconds = time.process_time() - begin
    assert np.array_equal(total, truth)
    return seconds


def growth() -> None:
    """What a party's masks cost as the vector and the number of parties grow, in processor time, without any wire."""
    for parties, colluding, size in (
        (10, 3, 10**5),
        (10, 3, 10**6),
        (10, 3, 10**7),
        (10, 3, 10**8),
        (100, 33, 10**6),
        (100, 10, 10**6),
        (500, 50, 10**6),
    ):
        setting = Setting.of("5d" * 32, [f"did:web:p{i:03}" for i in range(parties)], colluding)
        held = {n: Party.begin(setting, n, 0) for n in setting.holders}
        roster = {n: p.announcement() for n, p in held.items()}
        begin = time.process_time()
        me, _ = held[setting.holders[0]].share(roster)
        shared = time.process_time() - begin
        me, _ = me.enter("5e" * 32, roster)
        words = np.ones(size, dtype=np.uint64)  # its pages are there
        begin = time.process_time()
        me.mask(words)
        seconds = time.process_time() - begin
        about = {"ns_per_word": round(seconds / size * 1e9, 1), "shares": f"{shared:.3f} s", "chooses": setting.degree}
        report(f"masks of one of {parties} ({colluding} collude) x {size:.0e}", seconds, **about)


def flower(parties: int, size: int, gone: int, value: float) -> dict[str, float] | None:
    """Run Flower's round in its own environment, which is made once."""
    python = FLOWER / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(FLOWER)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", f"flwr=={FLOWER_VERSION}"]
        if subprocess.run(install).returncode:
            print("Flower cannot be installed here: it is not compared")
            return None
    script = [str(python), str(ROOT / "benchmarks/flower_secagg.py"), *map(str, (parties, size, gone, value))]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="a tenth of the size")
    given = parser.parse_args()
    if given.serve:
        port, size, *names = given.serve
        serve(int(port), names, int(size))
        return
    tenth = 10 if given.quick else 1
    ours = rounds(10, 10**6 // tenth, 10, (0, 1), 12)
    for gone in (0, 1):
        found = flower(10, 10**6 // tenth, gone, 1.0)
        alone = min(core(10, 10**6 // tenth, gone) for _ in range(5))
        report(f"our core alone, no wire, {gone} drop out: processor time", alone)
        if found:
            total = found["clients"] + found["server"]
            report(f"Flower SecAgg+, no wire, {gone} drop out", total, "ours over the wire", total / ours[str(gone)])
            report("  its processor time", found["cpu"], "our core alone", found["cpu"] / alone)
    clipped = flower(3, 10, 0, 10.0)
    if clipped:
        print(f"Flower SecAgg+ of 10.0 everywhere: {clipped['first']:.4f}; nobody is told (its clip is 8.0)")
    rounds(100, 10**5 // tenth, 10, (0, 30), 4)
    memory(10**7 // tenth)
    growth()


if __name__ == "__main__":
    main()
