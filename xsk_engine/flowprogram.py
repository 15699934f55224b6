"""A flow as the table that native/ runs: template, patches, checksums, lengths. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from xsk_engine import sizes as sizes_of
from xsk_engine.dissect import dissect
from xsk_engine.fieldprogram import (
    LENGTH,
    RANGE,
    TIME,
    Change,
    container,
    generator,
    halves,
    locate,
    nest,
    write,
)
from xsk_engine.flow import ADVANCES, CHECKSUMS, Flow, headers_of, in_headers
from xsk_engine.headers import Check, build, check_fits, checks, lengths
from xsk_engine.packet import MIN_FRAME_BYTES
from xsk_engine.payload import MAGIC, SIGNATURE_BYTES
from xsk_engine.sizes import Sizes
from xsk_engine.values import FlowId, as_values

MAX_PATCHES, MAX_CSUMS = 48, 8
_U64 = (1 << 64) - 1
_ALIGN = 64
_LONGEST = {"ipv4": 65535, "ipv6": 65535 + 40, "udp": 65535}
"""bytes from the header's start on that its length field can say"""


@dataclass(frozen=True)
class Patch:
    """native struct xske_patch."""

    offset: int
    width: int
    kind: int
    csums: int = 0
    shift: int = 0
    mask: int = 0
    base: int = 0
    step: int = 0
    modulo: int = 0
    hold: int = 1
    key: int = 0
    values: tuple[int, ...] = ()


@dataclass(frozen=True)
class Csum:
    """native struct xske_csum."""

    offset: int
    start: int
    end: int = 0
    pseudo_offset: int = 0
    pseudo_len: int = 0
    constant: int = 0
    csums: int = 0
    udp: bool = False
    partial: bool = False


@dataclass(frozen=True)
class FlowProgram:
    """A flow as a txq runs it; native struct xske_flow_config, but for the queue."""

    frame: bytes
    sizes: Sizes
    patches: tuple[Patch, ...] = ()
    csums: tuple[Csum, ...] = ()
    size_key: int = 0
    weight: int = 1
    still: bool = False
    """nothing but lengths changes"""
    timestamp: bool = False
    offload: tuple[int, int] = (0, 0)

    def umem_bytes(self, chunk_size: int, metadata_len: int) -> int:
        """What stays in the umem while it runs: its templates, and what lies behind a head."""
        usable = chunk_size - metadata_len
        behind = (
            max(-(-(len(self.frame) - min(usable, _ALIGN)) // usable), 0) if len(self.frame) > usable else 0
        )
        sizes = self.sizes.distinct if self.still else ()
        heads = sum(-(-(min(size, usable) + metadata_len) // _ALIGN) * _ALIGN for size in sizes)
        # a template that does not fit into the rest of a chunk leaves it
        wasted = heads if any(size * 2 > usable for size in sizes) else heads // 8
        return behind * chunk_size + heads + wasted


def key(*parts: object) -> int:
    """64 bits that differ for each field of each flow of each seed."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big")


def _as_frame(template: Any) -> bytes:
    if isinstance(template, str):
        raise ValueError("template: a str; bytes, Headers or a scapy packet are needed")
    if getattr(template, "itemsize", 1) != 1:
        raise ValueError(f"template: its elements have {template.itemsize} bytes; use dtype uint8")
    frame = bytes(template)
    if not frame:
        raise ValueError("template: it is empty")
    return frame


def _covering(found: Sequence[Check], first: int, last: int, name: str) -> int:
    mask = 0
    for i, check in enumerate(found):
        inside = check.covers(first, last)
        if inside is None:
            raise ValueError(
                f"{name}: only a part of it lies under the checksum of {check.layer}; split it in two"
            )
        mask |= inside << i
    return mask


def _choose_offload(found: list[Check]) -> Check:
    """The one that the device computes: the outermost above IP, which may cover the others."""
    upper = [check for check in found if check.layer in ("udp", "tcp")]
    if not upper:
        raise ValueError("checksum offload: there is no UDP or TCP checksum in this packet")
    chosen = upper[-1]
    if any(check.layer == "gre" and check.covers(chosen.offset, chosen.offset + 1) for check in found):
        raise ValueError("checksum offload: the checksum of gre covers it and would have to be known first")
    return chosen


class _Compiler:
    """Compiles one flow."""

    def __init__(self, flow: Flow, flow_id: int, seed: int, timestamps: bool) -> None:
        if flow.checksum not in CHECKSUMS:
            raise ValueError(f"checksum: {flow.checksum!r} is none of {', '.join(CHECKSUMS)}")
        if flow.advance not in ADVANCES:
            raise ValueError(f"advance: {flow.advance!r} is neither together nor nest")
        if not 1 <= flow.weight <= 1 << 20:
            raise ValueError(f"weight: {flow.weight} is not in 1 to {1 << 20}")
        flow = in_headers(flow)
        self.flow, self.flow_id, self.seed, self.timestamps = flow, flow_id, seed, timestamps
        headers = headers_of(flow)
        self.whole = headers is None
        self.packet = dissect(_as_frame(flow.template)) if headers is None else build(headers)
        self.changes = self._find_changes()
        self.sizes = self._choose_sizes()
        self.frame = self._make_frame()
        self.offload: Check | None = None
        self.checks = self._find_checks()

    def _find_changes(self) -> list[Change]:
        changes = [Change(*one) for one in self.packet.dynamic]
        for path, values in self.flow.fields.items():
            bit, bits, parse = locate(self.packet, path)
            values = as_values(values, parse, path)
            check_fits(values, bits, path)
            changes.append(Change(bit, bits, values, path))
        _refuse_overlaps(changes)
        if self.flow.advance == "nest":
            nest(changes)
        return changes

    def _choose_sizes(self) -> Sizes:
        headers, flow = self.packet.headers_end, self.flow
        tail = SIGNATURE_BYTES if flow.signature else 0
        if self.whole and flow.sizes is None:
            if tail and any(place.end for place in self.packet.headers):
                raise ValueError("signature: the template has padding behind its packet")
            wanted = sizes_of.of([len(self.packet.data)])
        else:
            wanted = self._wanted_sizes(headers + tail)
        least = headers + tail
        if tail and self.whole and flow.sizes is None and wanted.shortest < least:
            raise ValueError(f"signature: behind the headers are no {tail} bytes for it")
        return wanted

    def _wanted_sizes(self, least: int) -> Sizes:
        flow, headers = self.flow, self.packet.headers_end
        tail = SIGNATURE_BYTES if flow.signature else 0
        wanted = flow.sizes or sizes_of.of([max(MIN_FRAME_BYTES, headers + flow.payload.own_bytes + tail)])
        if wanted.shortest < least:
            what = f"the headers have {headers} bytes" + (f" and the signature {tail}" if tail else "")
            raise ValueError(f"size: {wanted.shortest} bytes are too short: {what}")
        if not self.whole and wanted.longest < headers + flow.payload.own_bytes + tail:
            room = wanted.longest - headers - tail
            raise ValueError(
                f"payload: {flow.payload.own_bytes} bytes, of which {room} fit into the longest packet"
            )
        for place in self.packet.headers:
            if place.layer.name in _LONGEST and wanted.longest - place.start > _LONGEST[place.layer.name]:
                raise ValueError(
                    f"size: {wanted.longest} bytes are more than the length of {place.layer.name} can say"
                )
        if self.whole and any(place.end for place in self.packet.headers):
            raise ValueError("size: a template with padding behind its packet cannot change its length")
        return wanted

    def _make_frame(self) -> bytes:
        length, headers = self.sizes.longest, self.packet.data
        seed = key(self.seed, self.flow_id, "payload")
        data = bytearray(headers + self.flow.payload.fill(max(length - len(headers), 0), seed))[:length]
        for change in self.changes:
            if isinstance(change.values, (int, FlowId)):
                constant = (
                    change.values if isinstance(change.values, int) else change.values.base + self.flow_id
                )
                write(data, change, constant)
        return bytes(data)

    def _find_checks(self) -> list[Check]:
        same = self.whole and len(self.sizes.distinct) == 1 and not self.flow.signature
        if same and (not self.changes or self.flow.checksum == "none"):
            return []  # as it is
        found = checks(self.packet.headers, upper=self.flow.checksum != "none")
        found = [
            check for check in found if not self._is_given(check.offset * 8, 16, f"checksum of {check.layer}")
        ]
        if self.flow.checksum == "offload":
            self.offload = _choose_offload(found)
        if len(found) > MAX_CSUMS:
            raise ValueError(f"checksums: {len(found)} in one packet; at most {MAX_CSUMS} are possible")
        return found

    def _csums(self) -> tuple[Csum, ...]:
        made = []
        for i, check in enumerate(self.checks):
            later = _covering(self.checks, check.offset, check.offset + 1, check.layer) & -1 << i + 1
            if self.offload is not None:  # the device sums what the packet holds
                later &= ~(1 << self.checks.index(self.offload))
            if any(at % 2 for at in (check.offset, check.start, check.pseudo_offset)):
                raise ValueError(f"checksum of {check.layer}: it would begin at an odd byte")
            made.append(
                Csum(
                    check.offset,
                    check.start,
                    check.end,
                    check.pseudo_offset,
                    check.pseudo_len,
                    check.constant,
                    later,
                    udp=check.layer == "udp",
                    partial=check is self.offload,
                )
            )
        return tuple(made)

    def _under(self, first: int, last: int, name: str) -> int:
        """Mask of the checksums that the bytes first..last change."""
        mask = _covering(self.checks, first, last, name)
        if self.offload is not None and mask:
            at, offload = self.checks.index(self.offload), self.offload
            if not offload.pseudo_offset <= first < offload.pseudo_offset + offload.pseudo_len:
                mask &= ~(1 << at)
        return mask

    def _field_patches(self) -> list[Patch]:
        patches = []
        limit = self.sizes.shortest - (SIGNATURE_BYTES if self.flow.signature else 0)
        whole = [one for one in self.changes if not isinstance(one.values, (int, FlowId))]
        for ordinal, change in enumerate(half for one in whole for half in halves(one)):
            offset, width, shift, mask = container(change, limit)
            first, last = change.bit // 8, (change.bit + change.bits - 1) // 8
            patches.append(
                Patch(
                    offset,
                    width,
                    shift=shift,
                    mask=mask,
                    csums=self._under(first, last, change.name),
                    **generator(change, key(self.seed, self.flow_id, ordinal)),
                )
            )
        return patches

    def _length_patches(self) -> list[Patch]:
        """Length fields, and the length that is in a pseudo header."""
        if self.whole and len(self.sizes.distinct) == 1:
            padded = len(self.frame)
            return [
                Patch(0, 0, LENGTH, 1 << i, base=check.start + (padded - check.end if check.end else 0))
                for i, check in enumerate(self.checks)
                if check.pseudo_len
            ]
        patches = []
        for one in lengths(self.packet.headers, len(self.frame)):
            if self._is_given(one.bit, one.bits, "length"):
                continue
            first, last = one.bit // 8, (one.bit + one.bits) // 8 - 1
            csums = self._under(first, last, "length")
            patches.append(Patch(first, one.bits // 8, LENGTH, csums, 0, (1 << one.bits) - 1, one.base))
        patches += [
            Patch(0, 0, LENGTH, 1 << i, base=check.start)
            for i, check in enumerate(self.checks)
            if check.pseudo_len
        ]
        return patches

    def _is_given(self, bit: int, bits: int, name: str) -> bool:
        """Has the user taken this automatic field for himself? ValueError when only a part of it."""
        for change in self.changes:
            if (change.bit, change.bits) == (bit, bits):
                return True
            if change.bit < bit + bits and bit < change.bit + change.bits:
                raise ValueError(
                    f"{change.name}: it covers a part of the {name}, or more than it; split it there"
                )
        return False

    def _signature_patches(self) -> list[Patch]:
        if not self.flow.signature:
            return []
        csums = sum(
            1 << i for i, check in enumerate(self.checks) if not check.end and check is not self.offload
        )
        full = _U64
        named = self.flow_id if self.flow.signature_id is None else self.flow.signature_id
        if not 0 <= named < 1 << 32:
            raise ValueError(f"signature: flow id {named} is not in 0 to {(1 << 32) - 1}")
        head = MAGIC << 32 | named
        return [
            Patch(-24, 8, RANGE, csums, mask=full, base=head, modulo=1),
            Patch(-16, 8, RANGE, csums, mask=full, step=1),
            Patch(-8, 8, TIME, csums, mask=full),
        ]

    def compile(self) -> FlowProgram:
        changing = self._field_patches() + self._signature_patches()
        patches = changing + self._length_patches()
        if len(patches) > MAX_PATCHES:
            raise ValueError(f"fields: {len(patches)} with the lengths; at most {MAX_PATCHES} are possible")
        offload = self.offload
        return FlowProgram(
            self.frame,
            self.sizes,
            tuple(patches),
            self._csums(),
            key(self.seed, self.flow_id, "size"),
            self.flow.weight,
            still=not changing and not self.timestamps,
            timestamp=self.timestamps,
            offload=(offload.start, offload.offset - offload.start) if offload else (0, 0),
        )


def _refuse_overlaps(changes: Sequence[Change]) -> None:
    ordered = sorted(changes, key=lambda change: change.bit)
    for one, other in pairwise(ordered):
        if other.bit < one.bit + one.bits:
            raise ValueError(f"{one.name} and {other.name}: they overlap")


def compile_flow(flow: Flow, *, flow_id: int = 0, seed: int = 1, timestamps: bool = False) -> FlowProgram:
    """ValueError says what cannot be, and names the field."""
    return _Compiler(flow, flow_id, seed, timestamps).compile()
