"""Memory per packet that is queued or not acknowledged, and of a sender that is idle."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial

from bench.arm import AbsentError, Arm, FunctionArm, Sample
from bench.arms.holding import EngineTcpArm, FragsArm, af_packet, kernel_tcp, kernel_udp
from bench.experiment import Experiment, Laboratory, Outcome, Plan
from bench.figures import Figure, value
from bench.result import Case
from bench.rounds import interleave
from bench.scene import PORT, ROOT, TX, Scene, engine_mode
from xsk_engine.lab import topology

SIZES = {"MTU 1500": (64, 512, 1500), "MTU 9000": (9000,)}
"""bytes of the frame, or of a TCP write, by laboratory"""
QUICK_SIZES = (64, 1500)
ENGINE, TCP = "engine, library", "engine TCP"
UDP, PACKET, KERNEL_TCP = "kernel UDP sendto", "AF_PACKET sendmmsg", "kernel TCP"

_OPENED = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import json, socket
from pathlib import Path
%s
lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
kilobytes = {{text.split(":")[0]: int(text.split()[1]) for text in lines}}
private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
print(json.dumps({{"private": private << 10, "umem": umem}}))
"""
_ENGINE = """from xsk_engine import Engine, EngineConfig
engine = Engine(EngineConfig({tx!r}, tcp={tcp}, mode={mode!r})).open()
umem = engine.umem.area.length"""
_SOCKET = "sock = socket.socket({kind}); umem = 0"
_CONNECTED = f"{_SOCKET}; sock.connect(({topology.RX_IPV4!r}, {PORT}))"
IDLE = {
    ENGINE: partial(_ENGINE.format, tx=TX, tcp=False),
    TCP: partial(_ENGINE.format, tx=TX, tcp=True),
    UDP: partial(_CONNECTED.format, kind="socket.AF_INET, socket.SOCK_DGRAM"),
    PACKET: partial(_SOCKET.format, kind="socket.AF_PACKET, socket.SOCK_RAW"),
}
"""Python that opens a sender; it knows its umem's bytes"""


def idle(opens: Callable[..., str]) -> Sample:
    """What a process of its own, which has opened a sender and sent nothing, has for itself."""
    done = subprocess.run(
        [sys.executable, "-c", _OPENED % opens(mode=engine_mode())],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1]
        raise (AbsentError if "UnavailableError" in said else RuntimeError)(said)
    said = json.loads(done.stdout)
    return {"process_bytes": said["private"], "umem_bytes": said["umem"]}


def arms(scene: Scene, size: int) -> list[Arm]:
    return [
        FragsArm(ENGINE, size),
        EngineTcpArm(TCP, size, scene),
        FunctionArm(UDP, partial(kernel_udp, size)),
        FunctionArm(PACKET, partial(af_packet, size)),
        FunctionArm(KERNEL_TCP, partial(kernel_tcp, scene, size)),
    ]


def idle_case(scene: Scene, plan: Plan, rounds: int) -> Case:
    """Processes that have a sender and send nothing."""
    arms = [
        FunctionArm(name, partial(idle, opens), ours=name in (ENGINE, TCP))
        for name, opens in IDLE.items()
        if plan.wants(name)
    ]
    measured = interleave(arms, rounds, scene.watch.look, "idle")
    return Case.of("an idle sender", measured.samples, EXPERIMENT.figures, absent=measured.absent)


def measure(scene: Scene, plan: Plan, laboratory: str) -> Outcome:
    rounds = plan.choose(5, 2)
    cases = []
    with scene.bound_port():
        for size in QUICK_SIZES if plan.quick else SIZES[laboratory]:
            chosen = [arm for arm in arms(scene, size) if plan.wants(arm.name)]
            # One after the other: none is to see another's packets, or its qdisc.
            samples: dict[str, list[Sample]] = {}
            absent: dict[str, str] = {}
            for arm in chosen:
                measured = interleave([arm], rounds, scene.watch.look, f"{size} bytes, {arm.name}")
                samples |= measured.samples
                absent |= measured.absent
            case = Case.of(f"{size} bytes", samples, EXPERIMENT.figures, x=size, absent=absent)
            for ours, theirs in ((ENGINE, UDP), (ENGINE, PACKET), (TCP, KERNEL_TCP)):
                case.compare(ours, theirs, HELD)
            cases.append(case)
    if laboratory == "MTU 1500":
        cases.append(idle_case(scene, plan, rounds))
    return Outcome(cases, rounds)


HELD = Figure("held_bytes_per_packet", "bytes/packet", lambda one: one["held_bytes"] / one["packets"], "less")
PER_BYTE = Figure("held_per_byte", "bytes/byte", lambda one: one["held_bytes"] / one["payload_bytes"], "less")
EXPERIMENT = Experiment(
    name="memory",
    title="Memory per packet that is held",
    question="What does each sender take for a packet that is queued or not acknowledged yet?",
    held_equal="packets of the same length, 1,000 at once; TCP: writes of that length, 56,000 bytes in"
    " all, to a peer that reads nothing; kernel UDP and AF_PACKET: in a qdisc (tbf) that lets next to "
    "nothing through; idle: a Python process that has opened a sender and sent nothing",
    not_claimed="that these are the same accounts: the engine's are chunks of its umem, which is "
    "pinned as a whole from the start (umem_bytes), and the kernel's are skb->truesize, which it takes "
    "and gives back; the engine's frags are held and not inflight, and in copy mode the kernel makes an"
    " skb of each for as long as it is; TCP's chunks are taken 16 at a time, which weighs with 56,000 "
    "bytes; nothing counts what tables and page tables take",
    counted_by="the engine's audit of its chunks (chunks not in the chunk pool), SO_MEMINFO of the "
    "kernel's sockets (wmem_alloc, TCP: wmem_queued), and /proc/self/smaps_rollup (private memory)",
    figures=(
        HELD,
        PER_BYTE,
        value("process_bytes", "bytes", "less"),
        value("umem_bytes", "bytes", None),
    ),
    measure=measure,
    laboratories={"MTU 1500": Laboratory(), "MTU 9000": Laboratory(mtu=9000)},
    quick_laboratories=("MTU 1500",),
    minutes=2,
)
