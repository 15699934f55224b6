"""From starting a program to its first packet at the peer, for every sender that there is."""

from __future__ import annotations

from collections.abc import Sequence

from bench import peers
from bench.arm import AbsentError, Arm
from bench.arms.first import FirstPacketArm
from bench.experiment import Experiment, Outcome, Plan
from bench.figures import value
from bench.ours import application, fixed, send
from bench.peers import PEERS, Stream
from bench.ratios import Target
from bench.result import Case
from bench.rounds import interleave
from bench.scene import PORT, SENDER_CPU, Scene

ENGINE, LIBRARY = "engine", "engine, library"
FIRST = value("first_packet_s", "s", "less")
SIZE = 60
TARGET = Target(0.5, False)
CASE = "first packet"


class _RivalArm(FirstPacketArm):
    """Absent with a remedy, where it is not installed."""

    def __init__(self, name: str, scene: Scene, stream: Stream) -> None:
        self._stream = stream
        peer, port = PEERS[name], peers.iperf3_port(stream)
        super().__init__(
            name,
            scene,
            lambda: peer.command(stream),
            (PORT, port),
            server=(peer.server(stream), port) if peer.server else None,
            undo=peer.undo(stream),
        )

    def setup(self) -> None:
        if why := peers.missing(self.name) or PEERS[self.name].cannot(self._stream):
            raise AbsentError(why)
        super().setup()


def arms(scene: Scene) -> Sequence[Arm]:
    stream = Stream.of(SIZE, scene.folder, cpu=SENDER_CPU, dst_port=PORT)
    return [
        FirstPacketArm(ENGINE, scene, lambda: send("--packet", fixed(SIZE)), (PORT,), ours=True),
        FirstPacketArm(LIBRARY, scene, lambda: application("send"), (PORT,), ours=True),
        *(_RivalArm(arm, scene, stream) for arm in PEERS),
    ]


def measure(scene: Scene, plan: Plan, _laboratory: str) -> Outcome:
    rounds = plan.choose(21, 2)
    chosen = [arm for arm in arms(scene) if plan.wants(arm.name)]
    with scene.bound_port():
        measured = interleave(chosen, rounds, scene.watch.look, CASE)
    case = Case.of(CASE, measured.samples, (FIRST,), absent=measured.absent)
    for arm in measured.samples:
        if arm != ENGINE:
            case.compare(ENGINE, arm, FIRST)
    if ENGINE in case.arms:
        case.aim(f"first packet of {ENGINE}, s", case.arms[ENGINE][FIRST.name]["median"], TARGET)
    versions = {arm: peers.version(arm) for arm in measured.samples if arm in PEERS}
    return Outcome([case], rounds, versions)


EXPERIMENT = Experiment(
    name="start",
    title="From starting a program to its first packet",
    question="How long does it take from starting a sender to its first packet at the peer?",
    held_equal="one veth pair, a stream of 60-byte frames, both CPUs for the start and one for the sender, "
    "files in the page cache; every program's files are written before its clock starts",
    not_claimed="that they do the same meanwhile: the engine parses flows and asks for the peer's MAC, the C "
    "programs are told everything; iperf3's first packet is its greeting, after a TCP handshake",
    counted_by="a packet socket at the peer's interface; the first UDP packet to the stream's port",
    figures=(FIRST,),
    measure=measure,
    minutes=3,
)
