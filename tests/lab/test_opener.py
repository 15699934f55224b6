"""xsk-engine-open, and engines whose sockets it opens. This one reads the file where it is started."""

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from wire import cli, exit_code_of, frame, holdings, lacks, wait_until

import xsk_engine
from xsk_engine import binding, netdev, opener
from xsk_engine._ffi import memory
from xsk_engine.errors import QueueTakenError, UnavailableError

ROOT = Path(__file__).parents[2]
HELPER = str(Path(os.environ.get("XSK_NATIVE_BUILD", ROOT / "build/native")) / "tests/native/open_here")
NOBODY = 65534


def has_log():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        return log.connect_ex("/dev/log") == 0


FDS = 6 + has_log()
"""that a helper has while it binds"""
RULE = """# who may send where
[[allow]]
users = ["nobody", 0]
interface = "vtx"
queues = "0-1"
"""


@pytest.fixture
def file(wire, tmp_path, monkeypatch):
    """The helper's file, which allows root and nobody both queues."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "xsk-engine.toml"
    path.write_text(RULE)
    path.chmod(0o644)
    return path


UNASKED = []
"""helpers that wait for a request: (since when, process)"""


def children():
    """Of this process, but for those."""
    known = {process.pid for _, process in UNASKED}
    return [one for one in psutil.Process().children() if one.pid not in known]


def send(frames, **options):
    with xsk_engine.open("vtx", opener=HELPER, **options) as engine:
        for queue in engine.config.queues:
            endpoint = engine.raw(queue=queue)
            endpoint.send_many(frames)
            endpoint.drain()
        return engine.binding.mode, engine.binding.reason


def a_request(version=1, queues=(0,), ring_size=64, name=b"vtx", tail=b""):
    rest = [0] * (64 - len(queues))
    return opener._REQUEST.pack(version, 0, 0, 4096, 0, ring_size, len(queues), *queues, *rest, name) + tail


def ask(fds=None, program=HELPER, **odd):
    """What the helper says to a request of our own making, with the umem or these fds."""
    area = memory.Area(1 << 20, shared=True)
    try:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with its:
                process = subprocess.Popen([program], stdin=its, stdout=subprocess.DEVNULL)
            socket.send_fds(ours, [a_request(**odd)], [area.fd] if fds is None else fds)
            answer, received, _, _ = socket.recv_fds(ours, 512, 64)
        process.wait(10)
    finally:
        area.close()
    for fd in received:
        os.close(fd)
    _, number, _, text = opener._REPLY.unpack(answer)
    return number, text.rstrip(b"\0").decode(), len(received)


# ---- what is opened ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"mode": "copy"}, {"queues": (0, 1)}, {"timestamps": True}])
def test_it_sends_as_an_engine_that_opens_its_sockets_itself(wire, file, options):
    frames = [frame(60 + i, fill=i) for i in range(100)]
    with wire.capture() as arrived:
        assert send(frames, **options)[0] == "copy"
    assert sorted(arrived) == sorted(frames * len(options.get("queues", (0,))))


def test_frames_of_several_descs(wire, file, request):
    wire.ip("link", "set", "vtx", "mtu", "9000")
    request.addfinalizer(lambda: wire.ip("link", "set", "vtx", "mtu", "1500"))
    wire.ip("link", "set", "vrx", "mtu", "9000", rx=True)
    request.addfinalizer(lambda: wire.ip("link", "set", "vrx", "mtu", "1500", rx=True))
    with wire.capture() as arrived:
        send([frame(9014)])
    assert arrived == [frame(9014)]


def test_the_commands_take_it(wire, file, tmp_path):
    sent = str(tmp_path / "sent.pcap")
    common = ("--opener", HELPER, "--rate", "100kpps", "--json")
    with wire.counted() as arrived, wire.listening():
        flow = ("--dst-ip", "10.77.0.2", "--dst-port", "9000", "--count", "1000", "--pcap-out", sent)
        done = cli("send", "vtx", "--queue", "0,1", *flow, *common, cwd=tmp_path)
        assert (done.returncode, json.loads(done.stdout)["completed_packets"]) == (0, 1000), done.stderr
        again = cli("replay", "vtx", sent, *common, cwd=tmp_path)
        assert (again.returncode, json.loads(again.stdout)["completed_packets"]) == (0, 1000), again.stderr
        assert arrived() == 2000
    file.write_text(RULE.replace("vtx", "eth7"))
    refused = cli("send", "vtx", "--dst-ip", "10.77.0.2", "--count", "1", *common, cwd=tmp_path)
    assert refused.returncode == 3
    assert "EACCES: xsk-engine.toml:2: no rule of this user's is for this interface" in refused.stderr


def test_a_queue_is_free_again_and_nothing_is_left(wire, file):
    send([frame()], mode="copy")
    before = holdings()
    for _ in range(30):
        send([frame()], mode="copy")
    assert holdings() == before
    assert not children()


def has_umem():
    open_files = (os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))
    return any("xsk-umem" in path for path in open_files)


def test_a_forked_child_has_nothing_of_it(wire, file):
    with xsk_engine.open("vtx", opener=HELPER, mode="copy"):
        child = os.fork()
        if not child:
            os._exit(has_umem())
        assert has_umem()
        assert exit_code_of(child) == 0


def test_without_the_huge_pages_that_there_seemed_to_be(wire, file, monkeypatch):
    monkeypatch.setattr(memory, "_free_huge_pages", lambda: 1 << 20)
    before = holdings()
    send([frame()], mode="copy")
    assert holdings() == before


def test_a_queue_that_is_taken(wire, file):
    with xsk_engine.open("vtx"), pytest.raises(QueueTakenError, match=r"queue 0.*this process"):
        send([frame()], mode="copy")
    send([frame()], mode="copy")


def test_a_queue_that_is_not_there_names_it(wire, file):
    file.write_text(RULE.replace("0-1", "0-9"))
    with pytest.raises(UnavailableError, match=r"queue 5.*vtx has 2 queue\(s\)") as caught:
        send([frame()], queues=(0, 5))
    assert caught.value.errno == errno.EINVAL


# ---- what is refused ---------------------------------------------------------------------------------------

REFUSED = {
    "another user": (RULE.replace('"nobody", 0', '"nobody"'), {}, ":2: no rule is for this user"),
    "another interface": (RULE.replace("vtx", "vrx"), {}, ":2: no rule of this user's is for this interface"),
    "another queue": (RULE.replace("0-1", "1"), {}, ":2: no rule of this user's has all these queues"),
    "one queue of two": (RULE.replace("0-1", "1"), {"queues": (1, 0)}, "no rule of this user's has all"),
    "a larger umem": (RULE + "max_umem_mb = 3\n", {}, ":2: its max_umem_mb is less"),
    "larger than without a limit": (RULE, {"umem_mb": 65}, ":2: its max_umem_mb is less"),
    "no copy": (RULE + 'mode = "zerocopy"\n', {"mode": "copy"}, ":2: its mode is another"),
    "zero-copy by default": (RULE, {"mode": "zerocopy"}, ":2: its mode is another"),
    "half of two rules": (
        RULE.replace("0-1", "0") + RULE.replace("0-1", "1"),
        {"queues": (0, 1)},
        "no rule of this user's has all these queues",
    ),
    "no rules": ("# nobody\n", {}, ":0: no rule is for this user"),
    "nothing": ("", {}, "is empty"),
    "cut": (RULE + "max_umem_mb = 6", {}, "ends within a line"),
    "a fault after the rule": (RULE + "[[deny]]\n", {}, ":6: not understood"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(wire, file, name):
    text, options, why = REFUSED[name]
    file.write_text(text)
    before = holdings()
    with pytest.raises(UnavailableError, match=re.escape(why)):
        send([frame()], **options)
    assert holdings() == before


def _writable(path):
    path.chmod(0o666)


def _by_group(path):
    path.chmod(0o664)


def _link(path):
    path.rename(path.parent / "elsewhere")
    path.symlink_to("elsewhere")


def _folder(path):
    path.unlink()
    path.mkdir()


def _pipe(path):
    path.unlink()
    os.mkfifo(path, 0o644)


@pytest.mark.parametrize("spoil", [_writable, _by_group, _link, _folder, _pipe, Path.unlink])
def test_a_file_that_somebody_else_may_have_written(wire, file, spoil):
    send([frame()])
    spoil(file)
    with pytest.raises(UnavailableError, match="must be a plain file that is root's"):
        send([frame()])


def test_zero_copy_that_is_not_allowed_is_copy_where_nobody_insists(wire, file):
    mode, reason = send([frame()], mode="auto")
    assert (mode, "its mode is another" in reason) == ("copy", True)
    file.write_text(RULE + 'mode = "any"\n')
    mode, reason = send([frame()], mode="auto")
    assert (mode, reason) == ("copy", "driver veth has no zero-copy (EOPNOTSUPP)")


def test_zero_copy_in_which_the_queue_would_starve_is_copy_where_nobody_insists(wire, file, monkeypatch):
    """The emulated machine has such a driver."""
    file.write_text(RULE + 'mode = "any"\n')
    monkeypatch.setattr(binding, "_STARVES_UNSTOCKED", ("veth",))
    mode, reason = send([frame()])
    assert (mode, "nobody would receive anything on the queue" in reason) == ("copy", True)
    with pytest.raises(UnavailableError, match=r"veth looks for chunks to receive into.*use --mode copy"):
        send([], mode="zerocopy")
    with xsk_engine.open("vtx", mode="copy"):  # and nothing is held
        pass


def test_zero_copy_for_which_a_rule_has_no_room_is_copy_where_nobody_insists(wire, file, monkeypatch):
    """Copy needs no chunks to receive into."""
    monkeypatch.setattr(netdev, "_rx_ring", lambda _: 256)
    file.write_text(RULE + 'mode = "any"\nmax_umem_mb = 4\n')
    mode, reason = send([frame()], umem_mb=4, mode="auto")
    assert (mode, "max_umem_mb, has no room" in reason) == ("copy", True)
    with pytest.raises(UnavailableError, match=r"ENOBUFS.*its max_umem_mb is less"):
        send([frame()], umem_mb=4, mode="zerocopy")
    with pytest.raises(UnavailableError, match="its max_umem_mb is less"):
        send([frame()], umem_mb=5, mode="auto")


def test_what_is_no_request(wire, file):
    assert ask()[::2] == (0, 1)
    assert ask(queues=(1, 0))[::2] == (0, 2)
    with open("/dev/null") as null, tempfile.TemporaryFile() as plain:
        loose = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
        os.ftruncate(loose, 1 << 20)
        try:
            for fds in ([null.fileno()], [plain.fileno()], [loose]):
                number, text, received = ask(fds)
                assert (number, text, received) == (
                    errno.EINVAL,
                    "the umem is no memfd that is sealed against growing and shrinking",
                    0,
                )
            for odd in ({"fds": []}, {"fds": [loose, loose]}, {"version": 2}, {"tail": b"x"}):
                number, text, received = ask(**odd)
                assert (number, "another version" in text, received) == (errno.EPROTO, True, 0), odd
        finally:
            os.close(loose)
    for odd in ({"queues": ()}, {"ring_size": 1 << 17}):
        assert ask(**odd)[0] == errno.EINVAL, odd
    assert ask(ring_size=65)[::2] == (errno.EINVAL, 0)  # the kernel's word
    file.write_text(RULE + "max_umem_mb = 1\n")
    assert ask(ring_size=65536)[::2] == (errno.ENOBUFS, 0)  # 2 MiB of rings
    for name in (b"vtx\nuid 0", b"vtx" + b"x" * 13, b""):
        assert ask(name=name)[::2] == (errno.EACCES, 0), name


def test_another_name_of_the_interface_is_not_its_own(wire, file, real_root, request):
    wire.ip("link", "property", "add", "dev", "vtx", "altname", "vtx-too")
    request.addfinalizer(lambda: wire.ip("link", "property", "del", "dev", "vtx", "altname", "vtx-too"))
    file.write_text(RULE.replace("vtx", "vtx-too"))
    number, text, received = ask(name=b"vtx-too")
    assert (number, received) == (errno.ENODEV, 0)
    assert "not its own name" in text


@pytest.fixture
def wait(wire, file, mortal):
    """Starts a helper, by this command, which waits for a queue that is taken."""
    area = memory.Area(1 << 20, shared=True)
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def start(command, **options):
        process = mortal(subprocess.Popen(command, stdin=its, **options))
        socket.send_fds(ours, [a_request()], [area.fd])
        return process, ours

    with xsk_engine.open("vtx", mode="copy"), ours, its:
        yield start
    area.close()


def test_what_it_still_has_while_it_binds(wait):
    """Of the capabilities CAP_IPC_LOCK at most; of fds stdin, stdout, stderr, the umem, its socket, the file
    and the log, if there is one. Of what its caller leaves to it nothing."""
    with open("/dev/null") as inherited:
        command = ["sh", "-c", f"trap '' ALRM; exec {HELPER}"]
        process, ours = wait(command, pass_fds=(inherited.fileno(),))

    def status():
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}

    wait_until(lambda: len(os.listdir(f"/proc/{process.pid}/fd")) == FDS, 2)
    found = status()
    for name in ("CapPrm", "CapEff"):
        assert int(found[name], 16) & ~(1 << 14) == 0, name
    assert found["NoNewPrivs"] == "1"
    assert int(found["SigIgn"], 16) & 1 << 13 == 0  # SIGALRM
    number = opener._REPLY.unpack(ours.recv(512))[1]
    assert number == errno.EBUSY


def test_the_log_has_every_answer(wire, file, tmp_path, real_root):
    """In a mount namespace of its own, whose /dev/log is ours."""
    program = tmp_path / "logged"
    program.write_text(
        "#!/bin/sh\nPATH=/bin:/usr/bin:/sbin\n"
        "exec unshare -m sh -c 'mount -t tmpfs none /dev && touch /dev/log && mount --bind log /dev/log"
        f" && exec {HELPER}'\n"
    )
    program.chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind("log")
        log.settimeout(5)
        assert ask(program=str(program), queues=(1, 0))[0] == 0
        said = log.recv(1024).decode()
        assert "xsk-engine-open: uid 0, vtx, queue 1,0, copy, 1048576 bytes: xsk" in said
        assert "xsk-engine.toml:2: opened" in said
        assert ask(program=str(program), name=b"vtx\nuid 0")[0] == errno.EACCES
        said = log.recv(1024).decode()
        assert "uid 0, vtx?uid?0, queue 0, copy" in said
        assert "no rule of this user's is for this interface" in said
        worst = tuple(range(2**32 - 64, 2**32))
        assert ask(program=str(program), queues=worst)[0] == errno.EACCES
        assert f"vtx, queue {','.join(map(str, worst))}, copy" in log.recv(2048).decode()


def test_a_variable_reaches_nothing(wire, file, tmp_path, monkeypatch):
    """syslog would open the time zone's file, and wait for this one for ever."""
    os.mkfifo(tmp_path / "zone")
    monkeypatch.setenv("TZ", f":{tmp_path / 'zone'}")
    assert ask()[::2] == (0, 1)


def test_a_file_of_somebody_elses(wire, file, real_root):
    os.chown(file, NOBODY, 0)
    with pytest.raises(UnavailableError, match="must be a plain file that is root's"):
        send([frame()])


def test_started_by_hand(file):
    with open("/dev/null") as null:
        done = subprocess.run([HELPER], stdin=null, capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, "started by hand" in done.stderr) == (1, True)
    closed = subprocess.run(["sh", "-c", f"exec {HELPER} <&-"], timeout=10, check=False)
    assert closed.returncode == 2


# ---- helpers that fail -------------------------------------------------------------------------------------

# In one message, whose first word is the version and all others 0.
ANSWER = (
    "exec 3>&0; dd bs=512 count=1 of=/dev/null <&3 2>&1\n"
    "(printf '\\00{version}'; head -c 255 /dev/zero) | dd bs=256 count=1 iflag=fullblock >&3 2>/dev/null"
)
BAD = {
    "hangs": ("exec sleep 60", "ETIMEDOUT: no answer within 0.5 s"),
    "is killed": ("kill -9 $$", "exit status -9, and no answer"),
    "ends": ("exit 7", "exit status 7, and no answer"),
    "babbles": (
        "dd bs=512 count=1 of=/dev/null 2>&1; printf x >&0",
        "a message of 1 bytes; is it an xsk-engine-open",
    ),
    "says yes": (ANSWER.format(version=1), "0 of 1 sockets have arrived"),
    "is another version": (ANSWER.format(version=2), "it is an xsk-engine-open of another version"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_helper_that_fails(wire, tmp_path, monkeypatch, name):
    code, why = BAD[name]
    program = tmp_path / "helper"
    program.write_text(f"#!/bin/sh\nPATH=/bin:/usr/bin\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setattr(opener, "_ANSWER_S", 0.5)
    before, began = holdings(), time.monotonic()
    with pytest.raises(UnavailableError, match=re.escape(why)):
        xsk_engine.open("vtx", opener=str(program))
    assert time.monotonic() - began < 0.5 + 2 + 1, "its answer, its end, and being ended"
    assert holdings() == before
    assert not children()


def test_a_helper_that_cannot_be_run(wire, tmp_path):
    with pytest.raises(UnavailableError, match=r"opener\(nowhere\): ENOENT.*docs/opener.md"):
        xsk_engine.open("vtx", opener="nowhere")
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    with pytest.raises(UnavailableError, match=r"ENOEXEC: it cannot be run"):
        xsk_engine.open("vtx", opener=str(broken))
    for other in ({"tcp": True}, {"fd": 3}, {"queues": range(65)}):
        with pytest.raises(ValueError, match="opener:"):
            xsk_engine.open("vtx", opener=HELPER, **other)


# ---- an ordinary user --------------------------------------------------------------------------------------


@pytest.fixture
def public(file):
    """A folder that everybody may enter, with the file and the helper."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        os.chmod(name, 0o755)
        shutil.copy(file, name)
        shutil.copy(HELPER, f"{name}/helper")
        yield Path(name)


@pytest.fixture
def capable(public, real_root):
    done = subprocess.run(
        ["setcap", "cap_net_raw+ep", "helper"], cwd=public, capture_output=True, text=True, check=False
    )
    if done.returncode or os.statvfs(public).f_flag & os.ST_NOSUID:
        lacks(f"{public} takes no file capabilities: {done.stderr}")
    return public


# All that an engine imports is there before the user changes: he may not be able to read it.
BECOME = f"""
import json, os, resource, socket, sys
import xsk_engine
from xsk_engine import binding, netdev, opener
from xsk_engine._ffi import sockopt, uapi
from xsk_engine._ffi.libc import set_option

with xsk_engine.open("vtx", queues=(0, 1)) as engine:
    engine.raw().send(bytes(60))
opener.find("sh")
import subprocess
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
"""


def as_nobody(folder, code, *arguments):
    """Python code there, without any capability; what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BECOME + code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


HOLDER = """
said = {"capabilities": open("/proc/self/status").read().split("CapEff:")[1].split()[0]}
with xsk_engine.open("vtx", queues=(0, 1), opener="./helper") as engine:
    for queue in (0, 1):
        endpoint = engine.raw(queue=queue)
        endpoint.send_many([bytes.fromhex(one) for one in json.loads(sys.argv[1])])
        endpoint.drain()

    def answer(name, act):
        try:
            act()
            said[name] = "done"
        except OSError as error:
            said[name] = xsk_engine.errors.errno_name(error.errno)

    xsk = engine.binding.xsks[0]
    ifindex = engine.netdev.ifindex
    again = sockopt.BoundSocket(xsk.fd)
    again._given = False  # no patience
    for queue, name in ((0, "bind again"), (1, "bind to another queue")):
        answer(name, lambda: again.bind(ifindex, queue, uapi.XDP_COPY))
    answer("bind to another interface", lambda: again.bind(1, 0, uapi.XDP_COPY))
    answer("share the umem", lambda: again.bind(ifindex, 1, uapi.XDP_SHARED_UMEM, xsk.fd))
    area = engine.umem.area
    other = uapi.XdpUmemReg(area.address, area.length, 4096, 0, 0, 0)
    answer("register another umem", lambda: set_option(xsk.fd, uapi.XDP_UMEM_REG, other))
    for ring in ("XDP_RX_RING", "XDP_TX_RING", "XDP_UMEM_FILL_RING"):
        answer(ring, lambda: set_option(xsk.fd, getattr(uapi, ring), 4096))
    answer("open one of its own", lambda: socket.socket(44, socket.SOCK_RAW))
    answer("shrink", lambda: os.ftruncate(area.fd, 4096))
    answer("grow", lambda: os.ftruncate(area.fd, area.length + 4096))
    answer("force its send buffer", lambda: set_option(xsk.fd, uapi.SO_SNDBUFFORCE, 1 << 24, 1))
    answer("mark", lambda: set_option(xsk.fd, 36, 1, 1))
    again.close()
print(json.dumps(said))
"""


def test_an_ordinary_user_sends_and_can_do_nothing_else(wire, capable):
    frames = [frame(60 + i, fill=i) for i in range(60)]
    with wire.capture() as arrived:
        said = as_nobody(capable, HOLDER, json.dumps([one.hex() for one in frames]))
    assert sorted(arrived) == sorted(frames * 2)
    assert said == {
        "capabilities": "0000000000000000",
        "bind again": "EBUSY",
        "bind to another queue": "EBUSY",
        "bind to another interface": "EBUSY",
        "share the umem": "EBUSY",
        "register another umem": "EBUSY",
        "XDP_RX_RING": "EBUSY",
        "XDP_TX_RING": "EBUSY",
        "XDP_UMEM_FILL_RING": "EBUSY",
        "open one of its own": "EPERM",
        "shrink": "EPERM",
        "grow": "EPERM",
        "force its send buffer": "EPERM",
        "mark": "EPERM",
    }
    with xsk_engine.open("vtx", queues=(0, 1)):
        pass


TRY = """
program, umem_mb, memlock = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_MEMLOCK, (memlock, memlock))
try:
    with xsk_engine.open("vtx", opener=program, mode="copy", umem_mb=umem_mb) as engine:
        print(json.dumps([engine.binding.mode, ""]))
except xsk_engine.UnavailableError as error:
    print(json.dumps([xsk_engine.errors.errno_name(error.errno), error.message]))
"""


def try_as_nobody(folder, program="./helper", umem_mb=4):
    return as_nobody(folder, TRY, program, str(umem_mb), str(8 << 20))


def through(folder, command):
    """A program that runs the helper so."""
    wrapper = folder / "wrapper"
    wrapper.write_text(f"#!/bin/sh\nexec {command} ./helper\n")
    wrapper.chmod(0o755)
    return "./wrapper"


@pytest.mark.parametrize(
    ("groups", "says"),
    [(f"[{NOBODY}]", "copy"), ('["nogroup"]', "copy"), ("[0]", "EACCES"), ('["root"]', "EACCES")],
)
def test_groups_are_those_of_the_caller(wire, capable, groups, says):
    (capable / "xsk-engine.toml").write_text(RULE.replace('users = ["nobody", 0]', f"groups = {groups}"))
    assert try_as_nobody(capable)[0] == says


def test_its_caller_does_not_trace_it(wait, public, real_root):
    """Also where the capability was the caller's own, and the kernel would allow it."""
    own = ("--inh-caps=+net_raw", "--ambient-caps=+net_raw")
    become = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *own)
    process, ours = wait([*become, str(public / "helper")], cwd=public)
    about = Path(f"/proc/{process.pid}")
    wait_until(lambda: (about / "comm").read_text() == "helper\n" and len(os.listdir(about / "fd")) == FDS, 5)
    # proc(5): what a process has there is root's when it is not dumpable
    assert (about / "environ").stat().st_uid == 0
    seize = (
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True); "
        f"print(libc.ptrace(0x4206, {process.pid}, 0, 0), ctypes.get_errno())"  # PTRACE_SEIZE
    )
    done = subprocess.run(
        [*become, "/usr/bin/python3", "-c", seize], capture_output=True, text=True, check=False
    )
    assert done.stdout == f"-1 {errno.EPERM}\n", done.stderr
    assert opener._REPLY.unpack(ours.recv(512))[1] == errno.EBUSY


def test_locked_memory_is_charged_to_the_user(wire, capable):
    """Without CAP_IPC_LOCK; with it max_umem_mb is the only limit."""
    assert try_as_nobody(capable)[0] == "copy"
    number, why = try_as_nobody(capable, umem_mb=16)
    assert (number, "exceeds the locked-memory limit" in why) == ("ENOBUFS", True)
    subprocess.run(["setcap", "cap_net_raw,cap_ipc_lock+ep", "helper"], cwd=capable, check=True)
    assert try_as_nobody(capable, umem_mb=16)[0] == "copy"


def test_without_capabilities_it_says_what_it_lacks(wire, public, real_root):
    number, why = try_as_nobody(public)
    assert (number, "xsk-engine-open has no CAP_NET_RAW" in why) == ("EPERM", True)


def test_setuid_is_refused(wire, public, real_root):
    (public / "helper").chmod(0o4755)
    number, why = try_as_nobody(public)
    assert (number, "must not be setuid" in why) == ("EPERM", True)


def test_no_new_privs_gives_nothing(wire, capable):
    number, why = try_as_nobody(capable, through(capable, "setpriv --no-new-privs"))
    assert (number, "no CAP_NET_RAW" in why) == ("EPERM", True)


def test_a_user_namespace_gives_nothing(wire, capable):
    """In it the file may be the caller's own; the capability is of no use outside."""
    probe = subprocess.run(["unshare", "-Ur", "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        lacks(f"no user namespaces here: {probe.stderr}")
    os.chown(capable / "xsk-engine.toml", NOBODY, NOBODY)
    number, why = try_as_nobody(capable, through(capable, "unshare -Ur"))
    assert (number, "no CAP_NET_RAW" in why) == ("EPERM", True)


# ---- deadlines ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def unasked():
    """They wait from the beginning on: one as it is, and one whose caller ignores SIGALRM."""
    with contextlib.ExitStack() as stack:
        for prefix in ([], ["sh", "-c", "trap '' ALRM; exec \"$@\"", "sh"]):
            ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(ours)
            with its:
                process = subprocess.Popen([*prefix, HELPER], stdin=its, stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            UNASKED.append((time.monotonic(), process))
        yield
    UNASKED.clear()


def test_a_helper_that_nobody_asks_ends_after_10_s():
    for since, process in UNASKED:
        assert process.wait(max(since + 12 - time.monotonic(), 1)) == -signal.SIGALRM
