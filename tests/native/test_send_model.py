"""Everything an application can do with an endpoint, in any order, against an oracle: what must have been
posted, in order and with which bytes, and that nobody writes into what another one holds."""

from collections import deque

from fake import Bench, fake
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sender import Sender, datagram, finish, native_header, scapy_frame

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native

WAY = datagram()
HEADER = native_header(WAY)
FRONT = HEADER.len
LENGTHS = st.sampled_from([0, 1, 17, 18, 19, 100, 700, 1472, 2006, 2007, 5000])
ENTRIES = 32


class SendMachine(RuleBasedStateMachine):
    """The oracle: frames to be posted, what the kernel holds, and the payloads of frags held here."""

    @initialize(quota=st.sampled_from([3, 8, 1000]), metadata_len=st.sampled_from([0, 24]))
    def begin(self, quota, metadata_len):
        self.one = Bench(ring=16, chunks=48, metadata_len=metadata_len)
        self.app = Sender(self.one, quota=quota, entries=ENTRIES, max_frame_bytes=9014, batch=8)
        self.usable = 2048 - metadata_len
        self.expected = deque()
        self.posted = 0
        self.kernels = []  # [addr, bytes] as they were when the kernel got them
        self.mine = []  # (addr, payload)
        self.fill = 0

    def payload(self, length):
        self.fill += 1
        return bytes((self.fill * 37 + i) & 0xFF for i in range(length))

    def descs(self, payload):
        return -(-(FRONT + len(payload)) // self.usable)

    def sent(self, payloads):
        for payload in payloads:
            self.expected.append(scapy_frame(WAY, payload))
            self.posted += 1

    # -- operations ----------------------------------------------------------------------------------------

    @rule(length=LENGTHS)
    def send(self, length):
        payload = self.payload(length)
        result = self.app.send(payload, HEADER)
        assert result in (0, "EAGAIN")
        if result == 0:
            self.sent([payload])

    @rule(lengths=st.lists(LENGTHS, min_size=1, max_size=12))
    def send_many(self, lengths):
        payloads = [self.payload(length) for length in lengths]
        result = self.app.send_many(payloads, HEADER)
        assert result == "EAGAIN" or 1 <= result <= len(payloads)
        self.sent(payloads[: 0 if result == "EAGAIN" else result])

    @rule(n=st.integers(1, 20), length=st.sampled_from([1, 20, 300, 1500]))
    def alloc(self, n, length):
        found = self.app.alloc(n, length, HEADER)
        if isinstance(found, str):
            assert found in ("EAGAIN", "E2BIG")
            return
        for addr in range(found[0], found[0] + n * found[1], found[1]):
            payload = self.payload(length)
            self.app.write(addr + FRONT, payload)
            self.mine.append((addr, payload))

    @precondition(lambda self: self.mine)
    @rule(data=st.data())
    def post(self, data):
        count = data.draw(st.integers(1, len(self.mine)))
        chosen = data.draw(st.permutations(self.mine))[:count]
        result = self.app.post([(addr, FRONT + len(payload)) for addr, payload in chosen], HEADER)
        taken = chosen[: 0 if result == "EAGAIN" else result]
        for frag in taken:
            self.mine.remove(frag)
        self.sent(payload for _, payload in taken)

    @precondition(lambda self: self.mine)
    @rule(data=st.data())
    def release(self, data):
        addr, payload = data.draw(st.sampled_from(self.mine))
        assert bytes(self.one.umem.area.view(addr + FRONT, len(payload))) == payload
        self.mine.remove((addr, payload))
        self.app.release(addr)

    @precondition(lambda self: self.mine)
    @rule(data=st.data())
    def clone(self, data):
        """It may be posted, and so may the first one: the same bytes twice."""
        frag = data.draw(st.sampled_from(self.mine))
        native.frag_ref(self.one.umem.handle, frag[0])
        self.mine.append(frag)

    @rule(turns=st.integers(1, 3))
    def step(self, turns):
        taken = fake.taken(self.one.kernel)
        self.one.step(turns)
        held = fake.held(self.one.kernel)
        frame = b""
        for i in range(held - (fake.taken(self.one.kernel) - taken), held):
            desc = fake.held_desc(self.one.kernel, i)
            piece = self.one.packet(i)
            self.kernels.append((desc.addr, piece))
            frame += piece
            if not desc.options & ffi.DESC_CONTD:
                assert frame == self.expected.popleft()
                frame = b""
        assert not frame

    @rule(data=st.data())
    def kernel_completes(self, data):
        for _ in range(data.draw(st.integers(0, len(self.kernels)))):
            at = data.draw(st.integers(0, len(self.kernels) - 1))
            self.complete(at)

    def complete(self, at):
        addr, piece = self.kernels.pop(at)
        assert fake.held_desc(self.one.kernel, at).addr == addr
        assert self.one.packet(at) == piece, "somebody wrote into what the kernel holds"
        assert fake.complete(self.one.kernel, at) == 0

    @invariant()
    def counted(self):
        if not hasattr(self, "one"):
            return
        counters = self.app.counters()
        assert counters.submitted_packets == self.posted
        assert counters.submitted_descs >= counters.posted_descs >= counters.completed_descs
        self.one.umem.audit()
        for addr, payload in self.mine:
            assert bytes(self.one.umem.area.view(addr + FRONT, len(payload))) == payload

    def teardown(self):
        if not hasattr(self, "one"):
            return
        while self.mine:
            self.app.release(self.mine.pop()[0])
        for _ in range(1000):
            while self.kernels:
                self.complete(0)
            self.step(1)
            if not self.expected and not self.kernels:
                break
        assert not self.expected, "posted, in order, and nothing else"
        counters = self.app.counters()
        assert counters.submitted_descs == counters.posted_descs
        finish(self.one, self.app)


SendMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestSending = SendMachine.TestCase
