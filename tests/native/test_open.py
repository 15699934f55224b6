"""What /etc/xsk-engine.toml allows, and that nothing is read out of it that TOML does not say."""

import errno
import os
import re
import string
import sys
from ctypes import POINTER, c_char_p, c_uint32, c_uint64, create_string_buffer

import pytest
from fake import BUILD
from hypothesis import given, settings
from hypothesis import strategies as st

from xsk_engine._ffi.loader import declare, open_library

helper = declare(
    open_library(str(BUILD / "tests/native/libopen_pieces.so"), "make test-native builds it"),
    "libopen_pieces.so",
    {
        "open_judge": (
            [c_char_p, c_char_p, POINTER(c_uint32), c_uint32, c_uint64, c_uint32, c_uint32, c_char_p],
            c_uint32,
            None,
        )
    },
    prefix="open_",
)
UID, GID, MIB = os.getuid(), os.getgid(), 1 << 20
WHOLE = f'[[allow]]\nusers = [{UID}]\ninterface = "eth1"\nqueues = "0-3"\n'


def judge(text, interface="eth1", queues=(0,), size=4 * MIB, ring_size=2048, zerocopy=False):
    """An errno, 0 for yes; and why."""
    why = create_string_buffer(244)
    numbers = (c_uint32 * len(queues))(*queues)
    number = helper.judge(
        text.encode(), interface.encode(), numbers, len(queues), size, ring_size, zerocopy, why
    )
    return number, why.value.decode()


def allows(text, **request):
    return judge(text, **request)[0] == 0


def test_what_a_rule_allows_and_nothing_beside_it():
    assert judge(WHOLE) == (0, "/etc/xsk-engine.toml:1: opened")
    assert allows(WHOLE, queues=(3, 0, 2))
    assert not allows(WHOLE, queues=(0, 4))
    assert not allows(WHOLE, queues=(2**32 - 1,))
    assert not allows(WHOLE, interface="eth10")
    assert not allows(WHOLE, interface="eth")
    assert allows(WHOLE, size=64 * MIB)
    assert not allows(WHOLE, size=64 * MIB + 1)
    assert allows(WHOLE, queues=[3] * 32, ring_size=65536)
    assert not allows(WHOLE, queues=[3] * 33, ring_size=65536)  # 8 + 8 + 16 bytes an entry
    assert judge(WHOLE, zerocopy=True)[0] == errno.EOPNOTSUPP
    assert allows(WHOLE, queues=tuple(i % 4 for i in range(64)))
    assert not allows(WHOLE, queues=(*(i % 4 for i in range(63)), 5))


@pytest.mark.parametrize(
    ("queues", "has"),
    [
        ('"0"', {0}),
        ('"0,2-3"', {0, 2, 3}),
        ('"7-7,0-1"', {7, 0, 1}),
        ("[0, 2]", {0, 2}),
        ("[ 5 ]", {5}),
        ('"3-1"', set()),
        ('"0-3999999999"', set(range(64))),
    ],
)
def test_queues(queues, has):
    text = WHOLE.replace('"0-3"', queues)
    assert {q for q in range(64) if allows(text, queues=(q,))} == has


@pytest.mark.parametrize(
    ("who", "is_me"),
    [
        (f"users = [{UID + 1}, {UID}]", True),
        (f"users = [{UID + 1}]", False),
        (f"groups = [{GID}]", True),
        (f"groups = [{GID + 1}]", False),
        (f"users = [{UID + 1}]\ngroups = [{GID}]", True),
        (f"users = [3999999999, {UID}]", True),
        (f"users = [{1 << 31 | UID}]", False),
        ('users = ["no-such-user"]', False),
        ('groups = ["no-such-group"]', False),
    ],
)
def test_who(who, is_me):
    assert allows(WHOLE.replace(f"users = [{UID}]", who)) == is_me


def test_names_are_looked_up():
    pwd = pytest.importorskip("pwd")
    name = pwd.getpwuid(UID).pw_name
    assert allows(WHOLE.replace(f"[{UID}]", f'["no-such-user", "{name}"]'))


def test_the_rule_that_comes_furthest_says_why():
    text = WHOLE.replace("eth1", "eth0") + "\n" + WHOLE + "max_umem_mb = 1\n\n" + WHOLE.replace("0-3", "9")
    assert judge(text) == (
        errno.ENOBUFS,
        "/etc/xsk-engine.toml:6: its max_umem_mb is less than the umem, or the rings (64, if it names none)",
    )
    assert judge(text + WHOLE)[0] == 0


@pytest.mark.parametrize(
    ("mode", "copy", "zerocopy"), [("copy", True, False), ("zerocopy", False, True), ("any", True, True)]
)
def test_modes(mode, copy, zerocopy):
    text = WHOLE + f'mode = "{mode}"\n'
    assert (allows(text), allows(text, zerocopy=True)) == (copy, zerocopy)


BAD_LINES = [
    "groups = 0",
    "groups = []",
    "groups = [0,]",
    "groups = [-1]",
    "groups = [+1]",
    "groups = [00]",
    "groups = [1_0]",
    "groups = [0x1]",
    "groups = [1.0]",
    "groups = [4000000000]",
    "groups = [10000000000]",
    f"groups = [{(1 << 32) + UID}]",
    'groups = ["0"]',
    'groups = ["4294967296"]',
    "groups = [0",
    "groups = [0] 0",
    "groups = [0]]",
    'groups = ["a\\u0062"]',
    "groups = ['root']",
    'groups = ["root]',
    'groups = [""]',
    "groups == [0]",
    "groups [0]",
    "groups",
    "= 1",
    "max_umem_mb = 4000000000",
    'max_umem_mb = "1"',
    "max_umem_mb = [1]",
    "max_umem_mb = 1 2",
    "max_umem_mb = -1",
    'mode = "both"',
    "mode = copy",
    'mode = ["copy"]',
    'Mode = "copy"',
    "rate = 1",
    "allow = 1",
    "[allow]",
    "[[allow]",
    "[[ allow ]]",
    "[[allow]] [[allow]]",
    "[[deny]]",
    "\r",
    "# \x7f",
    "# \x01",
    "# ü",
    "users = [1]",
    'interface = "eth1"',
    "queues = [0]",
]


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_refuses_everybody_and_has_its_number(line):
    number, why = judge(WHOLE + line + "\n" + WHOLE)
    assert (number, why.split(" ")[0]) == (errno.EACCES, "/etc/xsk-engine.toml:5:"), why


@pytest.mark.parametrize("key", ["users", "interface", "queues"])
def test_what_a_rule_must_have(key):
    lame = re.sub(rf"^{key}.*\n", "", WHOLE, flags=re.M)
    for text, line in ((lame, 1), (WHOLE + lame, 5), (lame + WHOLE, 4)):
        number, why = judge(text)
        assert (number, f":{line}: this rule, or the one before, lacks" in why) == (errno.EACCES, True), why


def test_a_setting_before_the_first_rule():
    assert judge('mode = "any"\n' + WHOLE) == (
        errno.EACCES,
        "/etc/xsk-engine.toml:1: twice, or before [[allow]]",
    )


# ---- against a reader of all of TOML -----------------------------------------------------------------------

VALUES = st.one_of(
    st.sampled_from(
        [
            f"[{UID}]",
            f"[{UID},  7]",
            '"eth1"',
            '"eth2"',
            '"0-3"',
            '"1,0"',
            "[0, 1]",
            "[0]",
            "4",
            "3",
            "64",
            '"any"',
            '"copy"',
            '"zerocopy"',
        ]
    ),
    st.text(st.sampled_from("0123456789\"[], \\-_.xeth#\t'é"), max_size=12),
)
LINES = st.one_of(
    st.just("[[allow]]"),
    st.builds(
        "{}{}{}={}{}{}".format,
        st.sampled_from(["", " ", "\t"]),
        st.sampled_from(["users", "groups", "interface", "queues", "max_umem_mb", "mode", "rate"]),
        st.sampled_from(["", " "]),
        st.sampled_from(["", " "]),
        VALUES,
        st.sampled_from(["", " # why", "#", " "]),
    ),
    st.text(string.printable, max_size=10),
)
RULES = st.builds(
    "[[allow]]\nusers = {}\ninterface = {}\nqueues = {}\n{}\n".format, VALUES, VALUES, VALUES, LINES
)
FILES = st.one_of(
    st.lists(LINES, max_size=8).map("\n".join), st.lists(RULES, max_size=3).map("".join), st.just(WHOLE)
)


def expected(document, request):
    """What the rules say, of a file that Python reads."""

    def numbers(queues):
        for part in queues.split(",") if isinstance(queues, str) else map(str, queues):
            low, _, high = part.partition("-")
            yield range(int(low), int(high or low) + 1)

    for rule in document["allow"]:
        mode = "zerocopy" if request["zerocopy"] else "copy"
        if (
            (UID in rule.get("users", ()) or GID in rule.get("groups", ()))
            and rule["interface"] == "eth1"
            and all(any(q in one for one in numbers(rule["queues"])) for q in request["queues"])
            and request["size"] <= rule.get("max_umem_mb", 64) * MIB
            and rule.get("mode", "copy") in (mode, "any")
        ):
            return True
    return False


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
@settings(max_examples=500, deadline=None)
@given(
    text=FILES,
    request=st.fixed_dictionaries(
        {
            "queues": st.sampled_from([(0,), (0, 1), (3,)]),
            "size": st.sampled_from([3 * MIB, 4 * MIB]),
            "zerocopy": st.booleans(),
        }
    ),
)
def test_what_it_reads_is_what_toml_says(text, request):
    import tomllib

    text = text.replace("\0", "") + "\n"
    number, why = judge(text, **request)
    if number:
        if re.search(r"no rule|its m", why):
            assert not expected({"allow": [], **tomllib.loads(text)}, request), why
        return
    assert expected(tomllib.loads(text), request)
