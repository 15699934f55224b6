"""SipHash against the published vectors; RFC 6528."""

import pytest
from ccpieces import Piece, pieces
from hypothesis import given
from hypothesis import strategies as st

# Of the reference implementation (Aumasson and Bernstein): key 00..0f, data 00.. of 0 to 63 bytes.
VECTORS = bytes.fromhex(
    """
    310e0edd47db6f72 fd67dc93c539f874 5a4fa9d909806c0d 2d7efbd796666785
    b7877127e09427cf 8da699cd64557618 cee3fe586e46c9cb 37d1018bf50002ab
    6224939a79f5f593 b0e4a90bdf82009e f3b9dd94c5bb5d7a a7ad6b22462fb3f4
    fbe50e86bc8f1e75 903d84c02756ea14 eef27a8e90ca23f7 e545be4961ca29a1
    db9bc2577fcc2a3f 9447be2cf5e99a69 9cd38d96f0b3c14b bd6179a71dc96dbb
    98eea21af25cd6be c7673b2eb0cbf2d0 883ea3e395675393 c8ce5ccd8c030ca8
    94af49f6c650adb8 eab8858ade92e1bc f315bb5bb835d817 adcf6b0763612e2f
    a5c91da7acaa4dde 716595876650a2a6 28ef495c53a387ad 42c341d8fa92d832
    ce7cf2722f512771 e37859f94623f3a7 381205bb1ab0e012 ae97a10fd434e015
    b4a31508beff4d31 81396229f0907902 4d0cf49ee5d4dcca 5c73336a76d8bf9a
    d0a704536ba93e0e 925958fcd6420cad a915c29bc8067318 952b79f3bc0aa6d4
    f21df2e41d4535f9 87577519048f53a9 10a56cf5dfcd9adb eb75095ccd986cd0
    51a9cb9ecba312e6 96afadfc2ce666c7 72fe52975a4364ee 5a1645b276d592a1
    b274cb8ebf87870a 6f9bb4203de7b381 eaecb2a30b22a87f 9924a43cc1315724
    bd838d3aafbf8db7 0b1a2a3265d51aea 135079a3231ce660 932b2846e4d70666
    e1915f5cb1eca46c f325965ca16d629f 575ff28e60381be5 724506eb4c328a95
    """
)
TICK_NS = 4000
HERE = bytes([10, 0, 0, 1, 10, 0, 0, 2, 0x80, 0, 0, 80])


@pytest.fixture(scope="module")
def secret():
    with Piece(pieces.secret()) as one:
        yield one.handle


@pytest.mark.parametrize("length", range(64))
def test_vectors(length):
    found = pieces.siphash(bytes(range(16)), bytes(range(length)), length)
    assert found.to_bytes(8, "little") == VECTORS[8 * length :][:8]


@given(start_ns=st.integers(0, 2**62), later_ns=st.integers(0, 2**45))
def test_grows_with_time(secret, start_ns, later_ns):
    """By one every 4 us, modulo 2^32."""
    first = pieces.isn(secret, HERE, len(HERE), start_ns)
    second = pieces.isn(secret, HERE, len(HERE), start_ns + later_ns)
    ticks = (start_ns + later_ns) // TICK_NS - start_ns // TICK_NS
    assert (second - first) % 2**32 == ticks % 2**32


@pytest.mark.parametrize("number", [pieces.timestamp_offset, lambda s, t, n: pieces.isn(s, t, n, 0)])
def test_of_other_tuples_is_other(secret, number):
    """4096 of them: fewer than 16 by chance equal; each byte counts."""
    tuples = [HERE[:8] + port.to_bytes(2, "big") + HERE[10:] for port in range(4096)]
    numbers = [number(secret, one, len(one)) for one in tuples]
    assert numbers == [number(secret, one, len(one)) for one in tuples]
    assert len(set(numbers)) > 4080
    assert max(numbers) - min(numbers) > 2**31
    for i in range(len(HERE)):
        other = HERE[:i] + bytes([HERE[i] ^ 1]) + HERE[i + 1 :]
        assert number(secret, other, len(other)) != number(secret, HERE, len(HERE))


def test_secrets():
    """Each process has its own, and neither number tells the other."""
    with Piece(pieces.secret()) as one, Piece(pieces.secret()) as other:
        numbers = {
            number
            for s in (one.handle, other.handle)
            for number in (pieces.isn(s, HERE, len(HERE), 0), pieces.timestamp_offset(s, HERE, len(HERE)))
        }
    assert len(numbers) == 4
