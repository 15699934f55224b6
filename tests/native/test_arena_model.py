"""The allocator against a trivial oracle: random operations on several arenas, as owner and as stranger."""

import ctypes
import errno

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
)

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native
from xsk_engine.umem import Umem

CHUNKS, CHUNK_SIZE = 80, 2048


class ArenaMachine(RuleBasedStateMachine):
    """The oracle: every live reference as (addr, length, fill byte); memory may not change under one."""

    frags = Bundle("frags")

    def __init__(self):
        super().__init__()
        self.metadata_len = 0
        self.umem = Umem(CHUNKS * CHUNK_SIZE, CHUNK_SIZE, tx_metadata_len=self.metadata_len)
        self.arenas = []  # [handle, loop_owned, quota]
        self.live = {}  # token -> (addr, length, fill)
        self.owner = {}  # chunk -> arena handle value, while referenced
        self.next_token = 0

    # -- what the oracle knows --------------------------------------------------------------------------

    def add(self, addr, length, fill):
        self.next_token += 1
        self.live[self.next_token] = (addr, length, fill)
        return self.next_token

    def content_is_untouched(self, token):
        addr, length, fill = self.live[token]
        assert bytes(self.umem.area.view(addr, length)) == bytes([fill]) * length

    def chunks_of(self, handle):
        return {c for c, h in self.owner.items() if h == handle.value}

    def forget(self, token):
        addr = self.live.pop(token)[0]
        chunk = addr // CHUNK_SIZE
        if not any(a // CHUNK_SIZE == chunk for a, *_ in self.live.values()):
            self.owner.pop(chunk)

    # -- operations --------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.arenas) < 4)
    @rule(loop_owned=st.booleans(), quota=st.sampled_from([1, 2, 17, 1000]))
    def open_arena(self, loop_owned, quota):
        config = ffi.ArenaConfig(quota, 0, ffi.ARENA_LOOP_OWNED if loop_owned else 0)
        handle = ffi.create(native.arena_open, self.umem.handle, ctypes.byref(config))
        native.arena_enter(handle)
        self.arenas.append((handle, loop_owned, quota))

    @precondition(lambda self: self.arenas)
    @rule(target=frags, data=st.data(), length=st.integers(1, CHUNK_SIZE), fill=st.integers(1, 255))
    def alloc(self, data, length, fill):
        handle, _, quota = data.draw(st.sampled_from(self.arenas))
        addr = ctypes.c_uint64()
        try:
            native.frag_alloc(handle, length, ctypes.byref(addr))
        except OSError as error:
            assert error.errno == errno.EAGAIN
            stats = ffi.ArenaStats()
            native.arena_read_stats(handle, ctypes.byref(stats))
            audit = self.umem.audit()
            # Only at the quota, or when the pool is empty.
            assert stats.owned_chunks == quota or audit.pooled == 0
            return multiple()
        start, chunk = addr.value, addr.value // CHUNK_SIZE
        assert (start + length - 1) // CHUNK_SIZE == chunk, "a frag crosses its chunk's end"
        assert self.owner.get(chunk, handle.value) == handle.value, "two arenas in one chunk"
        for other, its_length, _ in self.live.values():
            assert start + length <= other or other + its_length <= start, "two frags overlap"
        self.owner[chunk] = handle.value
        assert len(self.chunks_of(handle)) <= quota
        self.umem.area.view(start, length)[:] = bytes([fill]) * length
        return self.add(start, length, fill)

    @rule(target=frags, token=frags)
    def clone(self, token):
        if token not in self.live:
            return multiple()
        addr, length, fill = self.live[token]
        native.frag_ref(self.umem.handle, addr)
        return self.add(addr, length, fill)

    @rule(token=consumes(frags))
    def release_as_owner(self, token):
        if token in self.live:
            self.release(token, by_owner=True)

    @rule(token=consumes(frags))
    def release_as_stranger(self, token):
        """What another thread does: it has entered no arena. From a loop-owned arena it may only hold a
        clone (contract 3), so it takes one first and the owner drops the frag."""
        if token not in self.live:
            return
        handle = self.owner[self.live[token][0] // CHUNK_SIZE]
        loop_owned = any(h.value == handle and owned for h, owned, _ in self.arenas)
        if loop_owned:
            native.frag_ref(self.umem.handle, self.live[token][0])
            native.frag_unref(self.umem.handle, handle, self.live[token][0])
        self.release(token, by_owner=False)

    def release(self, token, *, by_owner):
        self.content_is_untouched(token)
        addr = self.live[token][0]
        handle = self.owner[addr // CHUNK_SIZE]
        still_open = any(h.value == handle for h, *_ in self.arenas)
        self.forget(token)
        native.frag_unref(self.umem.handle, handle if by_owner and still_open else None, addr)

    @precondition(lambda self: self.arenas)
    @rule(data=st.data())
    def park(self, data):
        handle, *_ = data.draw(st.sampled_from(self.arenas))
        native.arena_park(handle)
        stats = ffi.ArenaStats()
        native.arena_read_stats(handle, ctypes.byref(stats))
        assert stats.owned_chunks == len(self.chunks_of(handle)), "an idle arena owns only what is referenced"

    @precondition(lambda self: self.arenas)
    @rule(data=st.data())
    def close_with_frags_out(self, data):
        index = data.draw(st.integers(0, len(self.arenas) - 1))
        handle, *_ = self.arenas.pop(index)
        native.arena_leave(handle)
        native.arena_close(handle)
        # The struct may be reused by the next open: its chunks are nobody's from here on.
        for chunk in self.chunks_of(handle):
            self.owner[chunk] = None

    @rule(length=st.sampled_from([0, CHUNK_SIZE + 1, 2**32 - 1]))
    def refused_lengths(self, length):
        for handle, *_ in self.arenas:
            addr = ctypes.c_uint64()
            try:
                native.frag_alloc(handle, length, ctypes.byref(addr))
            except OSError as error:
                assert error.errno in (errno.EINVAL, errno.EMSGSIZE)
            else:
                raise AssertionError(f"{length} bytes allocated")

    @invariant()
    def conservation(self):
        audit = self.umem.audit()
        held = len(self.owner)
        # Open chunks that nobody references carry their arena's bias.
        assert held <= audit.referenced <= held + len(self.arenas)

    def teardown(self):
        for token in list(self.live):
            self.content_is_untouched(token)
        for token in list(self.live):
            self.release(token, by_owner=token % 2 == 0)
        for handle, *_ in self.arenas:
            native.arena_leave(handle)
            native.arena_close(handle)
        audit = self.umem.audit()
        assert (audit.pooled, audit.arenas) == (CHUNKS, 0)
        self.umem.close()


ArenaMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestArenas = ArenaMachine.TestCase
