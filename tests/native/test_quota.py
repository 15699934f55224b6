"""Waiting at the quota: the owner announces it, whoever returns a chunk is told to wake it."""

import ctypes
import errno
import os

import pytest

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native
from xsk_engine.arena import Arena
from xsk_engine.errors import BusyError, ClosedError, WouldBlockError
from xsk_engine.frag import Frags, Hold
from xsk_engine.umem import Umem


@pytest.fixture
def umem():
    one = Umem(64 * 2048, 2048)
    yield one
    assert one.audit().pooled == 64
    one.close()


@pytest.fixture
def arena(umem):
    handle = ffi.create(native.arena_open, umem.handle, ctypes.byref(ffi.ArenaConfig(2, 0, 0)))
    native.arena_enter(handle)
    yield handle
    native.arena_leave(handle)
    native.arena_close(handle)


def alloc(arena):
    addr = ctypes.c_uint64()
    native.frag_alloc(arena, 2048, ctypes.byref(addr))
    return addr.value


def test_the_waiter_is_named_once(umem, arena):
    first, second = alloc(arena), alloc(arena)
    with pytest.raises(OSError, match="frag_alloc") as refused:
        alloc(arena)
    assert refused.value.errno == errno.EAGAIN
    native.arena_await(arena)
    assert native.frag_unref(umem.handle, None, first) == 1, "wake the owner"
    third = alloc(arena)
    assert native.frag_unref(umem.handle, None, second) == 0, "nobody waits any more"
    native.frag_unref(umem.handle, None, third)


def test_who_looks_again_before_waiting_misses_nothing(umem, arena):
    first, second = alloc(arena), alloc(arena)
    # Its chunk is exhausted, so that the release is seen; then it stands on the return list.
    native.frag_unref(umem.handle, None, first)
    native.arena_await(arena)
    third = alloc(arena)
    assert native.frag_unref(umem.handle, None, second) == 1, "announced before, so told"
    native.frag_unref(umem.handle, None, third)


def test_a_second_user_is_refused(arena):
    with pytest.raises(OSError, match="arena_enter") as refused:
        native.arena_enter(arena)
    assert refused.value.errno == errno.EBUSY


def test_frags_as_python_holds_them(umem):
    arena = Arena(umem, quota_chunks=1, txq_id=0)
    with arena:
        frag = Frags(Hold(umem, [arena.alloc(2000)], 0, 2000, "a test"), 2048)[0]
        view = frag.payload
        view[:] = b"x" * 2000
        clone = frag.clone()
        frag.release()
        with pytest.raises(ClosedError, match="posted or released"):
            frag.clone()
        with pytest.raises(ValueError, match="released memoryview"):
            view[0]
        assert bytes(clone.payload[:3]) == b"xxx", "a clone has its own reference"
        with pytest.raises(WouldBlockError):
            arena.alloc(2000)
        with pytest.raises(BusyError), arena:
            pass
        clone.release()
        arena.park()
    assert arena.stats().owned_chunks == 0


def test_frags_that_python_drops_wake_who_waits_for_them(umem):
    arena = Arena(umem, quota_chunks=2, txq_id=0)
    umem.event_fd = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        with arena:
            frags = Frags(Hold(umem, [arena.alloc(2000), arena.alloc(2000)], 0, 2000, "a test"), 2048)
            with pytest.raises(WouldBlockError):
                arena.alloc(2000)
            frags[0].release()
            with pytest.raises(BlockingIOError):
                os.read(umem.event_fd, 8)
            last = arena.alloc(2000)
            native.arena_await(arena.handle)
            frags[1].release()
            assert os.read(umem.event_fd, 8), "the mark is gone, so nobody else will tell"
            native.frag_unref(umem.handle, None, last)
            arena.park()
    finally:
        os.close(umem.event_fd)
        umem.event_fd = -1


def test_a_dropped_frag_goes_back_and_says_so(umem):
    arena = Arena(umem, quota_chunks=2, txq_id=0)
    with arena:
        frags = Frags(Hold(umem, [arena.alloc(1000), arena.alloc(1000)], 0, 1000, "a test"), 1024)
        frags[0].release()
        with pytest.warns(ResourceWarning, match="1 frags of a test were never posted"):
            del frags
        arena.park()
    assert arena.stats().owned_chunks == 0
