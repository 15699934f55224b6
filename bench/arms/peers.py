"""The senders of bench/peers.py as arms."""

from __future__ import annotations

import subprocess
import time

from bench.arm import AbsentError
from bench.arms.stream import StreamArm
from bench.peers import PEERS, Stream, missing
from bench.scene import Scene

_SERVER_S = 0.3
_UNDO_S = 10


class PeerArm(StreamArm):
    """Others' senders: they pin themselves, by the stream's ``cpu``."""

    def __init__(self, name: str, scene: Scene, stream: Stream) -> None:
        super().__init__(name, scene, lambda: PEERS[name].command(stream), own_cpus=True)
        self._peer, self._stream = PEERS[name], stream
        self._server: subprocess.Popen[bytes] | None = None

    def setup(self) -> None:
        if why := missing(self.name) or self._peer.cannot(self._stream):
            raise AbsentError(why)
        if self._peer.server is not None:
            with self._scene.at_peer():
                self._server = subprocess.Popen(
                    self._peer.server(self._stream), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            time.sleep(_SERVER_S)
        super().setup()

    def teardown(self) -> None:
        super().teardown()
        if self._server is not None:
            self._server.kill()
            self._server.wait(10)
        for command in self._peer.undo(self._stream) if self._process is not None else ():
            # Where it failed before it had changed anything, there is nothing to undo.
            subprocess.run(command, check=False, capture_output=True, timeout=_UNDO_S)
