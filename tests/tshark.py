"""Wireshark's opinion of frames: checksums verified, nothing guessed from port numbers."""

from __future__ import annotations

import functools
import os
import struct
import subprocess

from xsk_engine.capture import HEADER

KEPT = {
    "frame", "data", "eth", "ethertype", "llc", "vlan", "ieee8021ad", "mpls", "arp", "ip", "ipv6",
    "udp", "tcp",
    "icmp", "icmpv6", "gre", "vxlan", "ipv6.hopopts", "ipv6.dstopts", "ipv6.routing", "ipv6.fraghdr",
    "_ws.malformed",
    "_ws.expert", "_ws.short", "_ws.unreassembled", "ip.options", "ip.proto", "ipv6.opt",
}  # fmt: skip
VERIFY = ["ip.check_checksum", "udp.check_checksum", "tcp.check_checksum"]
BAD = [
    *(f"{kind}.checksum.status == 0" for kind in ("ip", "udp", "tcp", "icmp", "icmpv6", "gre")),
    "_ws.malformed",
    "_ws.short",
]


@functools.cache
def _settings(folder):
    """A profile in which only KEPT is dissected; made once."""
    listed = subprocess.run(
        ["tshark", "-G", "protocols"], capture_output=True, text=True, check=True, timeout=60
    )
    names = {line.split("\t")[2] for line in listed.stdout.splitlines()}
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "disabled_protos"), "w") as file:
        file.write(
            "\n".join(
                sorted(n for n in names if n not in KEPT and not n.startswith(("ipv6.", "ip.", "tcp.")))
            )
        )
    return {**os.environ, "WIRESHARK_CONFIG_DIR": str(folder)}


def write_pcap(path, frames):
    with open(path, "wb") as file:
        file.write(HEADER)
        for i, frame in enumerate(frames):
            file.write(struct.pack("=IIII", i // 10**9, i % 10**9, len(frame), len(frame)) + frame)


def _fields(path, folder, display_filter, *fields):
    """A line for each frame of a pcap file that the filter takes."""
    verify = [word for name in VERIFY for word in ("-o", f"{name}:TRUE")]
    shown = [word for field in fields for word in ("-e", field)]
    command = ["tshark", "-n", "-r", str(path), *verify, "-Y", display_filter, "-T", "fields", *shown]
    settings = _settings(str(folder))
    found = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=settings)
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


def complaints(path, folder):
    """A line for each frame that is malformed or has a bad checksum."""
    return _fields(path, folder, " || ".join(BAD), "frame.number", "frame.protocols", "_ws.expert")


def count(path, folder):
    """How many frames it reads."""
    return len(_fields(path, folder, "frame", "frame.number"))


def remarks(path, folder, *fields):
    """A line for each frame about whose TCP sequence there is something to say. Checksums are not looked at,
    so frames may be cut off."""
    shown = [word for field in fields for word in ("-e", field)]
    command = ["tshark", "-n", "-r", str(path), "-Y", "tcp.analysis.flags", "-T", "fields", *shown]
    settings = _settings(str(folder))
    found = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=settings)
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()
