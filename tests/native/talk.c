/* SPDX-License-Identifier: MIT */
/*
 * Pairs of TCP connections over a wire in memory: one thread runs the loop, each connection has a thread of its own, and one
 * more asks about all of them and aborts some, also those that are just being destroyed. Every byte is compared, nobody may
 * wait for what has happened already, and in the end all memory is back. Usage: talk LIVES (default 200, of each pair).
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "tcp/tcp.h"

#define PAIRS 2u
#define ENDS (2 * PAIRS)
#define CHUNKS 2048u
#define CHUNK_SIZE 2048u
#define RING 256u
#define LONGEST 300000u
/* One frame in so many is lost, so that some are sent again while others are inflight. */
#define LOSS 997u
/* Nothing here takes so long: a wait that does is for something that was not told. */
#define PATIENCE_S 10

#define CHECK(condition)                                                                                     \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "talk.c:%d: %s\n", __LINE__, #condition);                            \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

static struct xske_umem *umem;
static struct xske_txq *txq;
static struct xske_loop *loop;
static struct xske_tcp *tcp;
static struct xske_counters counters;
static struct xske_tcp_counters tcp_counters;
static _Atomic(struct xske_tcp_conn *) ends[ENDS];
static _Atomic uint32_t over;
static uint32_t lives;
static int event_fd;

/* ---- the wire: what is posted comes ---------------------------------------------------------------- */

static uint32_t tx_producer, tx_consumer, tx_flags = XDP_RING_NEED_WAKEUP, cq_producer, cq_consumer, cq_flags;
static uint32_t rx_producer, rx_consumer, rx_flags, fill_producer, fill_consumer, fill_flags, frames;
static struct xske_desc tx[RING], rx[RING];
static uint64_t cq[RING], fill[RING];

static void arrive(const uint8_t *frame, uint32_t len)
{
	uint64_t addr;

	if (fill_consumer == fill_producer || rx_producer - rx_consumer == RING || ++frames % LOSS == 0)
		return;
	addr = fill[fill_consumer++ % RING] + 256;
	memcpy(umem->area + addr, frame, len);
	rx[rx_producer++ % RING] = (struct xske_desc){addr, len, 0};
}

static int kick_wire(void *ctx)
{
	static uint8_t frame[CHUNK_SIZE];
	static uint32_t len;

	(void)ctx;
	for (; tx_consumer != tx_producer; tx_consumer++) {
		const struct xske_desc *d = &tx[tx_consumer % RING];

		CHECK(chunk_holds_desc(umem, d->addr, d->len) && len + d->len <= CHUNK_SIZE - 256);
		memcpy(frame + len, umem->area + d->addr, d->len);
		len += d->len;
		cq[cq_producer++ % RING] = d->addr;
		if (d->options & XSKE_DESC_CONTD)
			continue;
		arrive(frame, len);
		len = 0;
	}
	return 0;
}

static struct xske_ring ring(uint32_t *producer, uint32_t *consumer, uint32_t *flags, void *slots)
{
	return (struct xske_ring){.mask = RING - 1,
	                          .size = RING,
	                          .producer = producer,
	                          .consumer = consumer,
	                          .flags = flags,
	                          .ring = slots};
}

/* ---- who waits -------------------------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t told = PTHREAD_COND_INITIALIZER;
static uint64_t events;

static uint64_t events_now(void)
{
	uint64_t n;

	pthread_mutex_lock(&lock);
	n = events;
	pthread_mutex_unlock(&lock);
	return n;
}

/* False: nothing was told since then, for too long. */
static bool wait_for_event(uint64_t since)
{
	struct timespec end;
	int err = 0;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += PATIENCE_S;
	pthread_mutex_lock(&lock);
	while (events == since && !err)
		err = pthread_cond_timedwait(&told, &lock, &end);
	pthread_mutex_unlock(&lock);
	return !err;
}

static void *tell(void *arg)
{
	uint64_t n;

	(void)arg;
	while (!atomic_load(&over) && read(event_fd, &n, sizeof(n)) == sizeof(n)) {
		pthread_mutex_lock(&lock);
		events++;
		pthread_cond_broadcast(&told);
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

/* ---- an application --------------------------------------------------------------------------------- */

enum ending { IN_ORDER, ABORTED, UNREAD, AT_ONCE, ENDINGS };

struct end {
	uint32_t index;
	pthread_barrier_t *both;
	uint64_t random;
	struct xske_arena *arena;
	struct xske_tcp_conn *conn;
	uint32_t written, length, got;
	uint32_t said; /* all bytes, when their end was said */
	const struct end *peer;
	bool may_write, may_read;
};

static uint32_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*state >> 33);
}

static uint8_t byte_at(uint32_t i)
{
	return (uint8_t)(i * 2654435761u >> 24);
}

/* Each the other's mirror: they open at the same time. */
static struct xske_header header_of(uint32_t index)
{
	uint8_t bytes[XSKE_HEADER_BYTES] = {[12] = 8,  [14] = 0x45, [22] = 64, [23] = 6,
	                                    [26] = 10, [29] = 1,    [30] = 10, [33] = 2};
	struct xske_header h = {.len = 34, .ip_offset = 14};

	if (index % 2) {
		bytes[29] = 2;
		bytes[33] = 1;
	}
	memcpy(h.words, bytes, sizeof(bytes));
	return h;
}

static void open_end(struct end *e)
{
	const struct xske_arena_config quota = {.quota_chunks = 128};
	struct xske_tcp_conn_config config = {
	        .header = header_of(e->index),
	        .local_port = (uint16_t)(1000 + e->index),
	        .remote_port = (uint16_t)(1000 + (e->index ^ 1)),
	        .mtu = 1500,
	        .congestion = XSKE_TCP_CUBIC,
	        .entries = 16,
	        .receive_buffer_bytes = 16384,
	        .send_buffer_bytes = 1 << 18,
	        .connect_timeout_ns = 5 * NSEC_PER_SEC,
	        .user_timeout_ns = 5 * NSEC_PER_SEC,
	        .time_wait_ns = NSEC_PER_MSEC,
	};

	CHECK(!xske_arena_open(umem, &quota, &e->arena));
	config.arena = e->arena;
	CHECK(!xske_tcp_open(tcp, &config, &e->conn));
	CHECK(!xske_tcp_connect(e->conn));
	atomic_store(&ends[e->index], e->conn);
	e->length = next_random(&e->random) % LONGEST;
	e->written = e->got = 0;
	e->may_write = e->may_read = true;
}

/* Copied, or in place. */
static int64_t write_some(struct end *e, uint32_t n)
{
	uint8_t bytes[4096], *to = bytes;
	uint32_t room = sizeof(bytes);
	uint64_t addr = 0;
	bool in_place = next_random(&e->random) % 4 == 0;
	int64_t taken;

	if (in_place) {
		taken = xske_tcp_alloc(e->conn, &addr, &room);
		if (taken)
			return taken;
		to = umem->area + addr;
	}
	n = min_u32(n, room);
	for (uint32_t i = 0; i < n; i++)
		to[i] = byte_at(e->written + i);
	if (!in_place)
		return xske_tcp_write(e->conn, bytes, n);
	taken = xske_tcp_submit(e->conn, addr, n);
	if (taken)
		CHECK(xske_frag_unref(umem, NULL, addr) >= 0);
	return taken ? taken : n;
}

/* True: something was done. */
static bool write_on(struct end *e)
{
	int64_t n;

	if (!e->may_write)
		return false;
	if (e->written == e->length) {
		e->may_write = false;
		e->said = e->written;
		xske_tcp_shutdown(e->conn);
		return true;
	}
	n = write_some(e, min_u32(1 + next_random(&e->random) % 4096, e->length - e->written));
	if (n == -EAGAIN || n == -ENOTCONN)
		return false;
	e->may_write = n > 0;
	e->written += n > 0 ? (uint32_t)n : 0;
	return true;
}

static bool read_on(struct end *e)
{
	uint8_t bytes[8192];
	int64_t n = e->may_read ? xske_tcp_read(e->conn, bytes, 1 + next_random(&e->random) % sizeof(bytes))
	                        : -EAGAIN;

	if (n == -EAGAIN || n == -ENOTCONN)
		return false;
	for (int64_t i = 0; i < n; i++)
		CHECK(bytes[i] == byte_at(e->got + (uint32_t)i));
	e->got += n > 0 ? (uint32_t)n : 0;
	e->may_read = n > 0;
	CHECK(n || e->got == e->peer->said);
	return true;
}

static bool is_closed(const struct end *e)
{
	return xske_tcp_state(e->conn) == XSKE_TCP_CLOSED;
}

/* One more thing, or it is waited for. */
static void go_on(struct end *e, bool reading)
{
	uint64_t since = events_now();

	if (write_on(e) || (reading && read_on(e)) || is_closed(e))
		return;
	xske_tcp_await(e->conn, XSKE_TCP_CHANGED | (e->may_write ? XSKE_TCP_WRITABLE : 0) |
	                                (reading && e->may_read ? XSKE_TCP_READABLE : 0));
	if (write_on(e) || (reading && read_on(e)) || is_closed(e))
		return;
	CHECK(wait_for_event(since));
}

static void live(struct end *e, enum ending ending)
{
	uint32_t stop = next_random(&e->random) % LONGEST;

	open_end(e);
	if (ending == AT_ONCE)
		xske_tcp_abort(e->conn);
	while ((e->may_write || e->may_read) && !is_closed(e)) {
		if (ending == ABORTED && e->written + e->got > stop)
			xske_tcp_abort(e->conn);
		if (ending == UNREAD && e->got > stop)
			break;
		go_on(e, true);
	}
	if (e->may_write) /* else it was said, and the other end may be reading it */
		e->said = e->written;
	xske_tcp_close(e->conn);
	e->may_write = false;
	while (!is_closed(e))
		go_on(e, false);
	/* Who has it from there already may still ask. */
	atomic_store(&ends[e->index], NULL);
	xske_tcp_conn_destroy(e->conn);
	CHECK(!xske_arena_close(e->arena));
}

static void *run_end(void *arg)
{
	struct end *e = arg;

	for (uint32_t i = 0; i < lives; i++) {
		/* Both draw the same for both. */
		uint64_t pair = (e->index / 2) * 1000003u + i, draw = pair * 2654435761u + 12345;
		uint32_t ending = next_random(&draw) % (2 * ENDINGS), who = next_random(&draw) % 2;

		pthread_barrier_wait(e->both);
		live(e, ending < ENDINGS && who == e->index % 2 ? (enum ending)ending : IN_ORDER);
		pthread_barrier_wait(e->both);
	}
	return NULL;
}

/* Asks about whoever there is, and about who was. */
static void *be_curious(void *arg)
{
	uint64_t random = 5;

	(void)arg;
	while (!atomic_load(&over)) {
		uint32_t r = next_random(&random);
		struct xske_tcp_conn *c = atomic_load(&ends[r % ENDS]);
		struct xske_tcp_info info;

		if (!c)
			continue;
		xske_tcp_info(c, &info);
		CHECK(xske_tcp_state(c) <= XSKE_TCP_CLOSED && info.acked_bytes <= info.sent_bytes + LONGEST);
		if (r >> 8 & 1 && (r >> 9) % 512 == 0)
			xske_tcp_abort(c);
		usleep(20);
	}
	return NULL;
}

/* ---- all together ----------------------------------------------------------------------------------- */

static struct xske_arena *open_arena(uint32_t quota, uint32_t flags)
{
	const struct xske_arena_config config = {.quota_chunks = quota, .flags = flags};
	struct xske_arena *a;

	CHECK(!xske_arena_open(umem, &config, &a));
	return a;
}

static void set_up(struct xske_arena *own, struct xske_arena *receive, uint32_t flags)
{
	struct xske_txq_config txq_config = {.tx = ring(&tx_producer, &tx_consumer, &tx_flags, tx),
	                                     .cq = ring(&cq_producer, &cq_consumer, &cq_flags, cq),
	                                     .kick = kick_wire,
	                                     .fd = -1,
	                                     .need_wakeup = 1};
	struct xske_rxq_config queue = {.rx = ring(&rx_producer, &rx_consumer, &rx_flags, rx),
	                                .fill = ring(&fill_producer, &fill_consumer, &fill_flags, fill),
	                                .fd = -1};
	struct xske_loop_config loop_config = {.arena = own,
	                                       .counters = &counters,
	                                       .link_timeout_ns = 5 * NSEC_PER_SEC,
	                                       .progress_timeout_ns = 5 * NSEC_PER_SEC,
	                                       .drain_timeout_ns = NSEC_PER_SEC,
	                                       .wake_fd = eventfd(0, EFD_NONBLOCK),
	                                       .event_fd = event_fd};
	struct xske_tcp_config config = {.receive_arena = receive,
	                                 .queues = &queue,
	                                 .queue_count = 1,
	                                 .max_connections = ENDS,
	                                 .flags = flags,
	                                 .counters = &tcp_counters};

	CHECK(!xske_txq_create(umem, &txq_config, &txq));
	loop_config.txq = txq;
	CHECK(!xske_loop_create(&loop_config, &loop));
	config.loop = loop;
	CHECK(!xske_arena_enter(receive));
	CHECK(!xske_tcp_create(&config, &tcp));
}

static void *run_loop(void *arg)
{
	(void)arg;
	CHECK(xske_loop_run(loop) == XSKE_LOOP_STOPPED);
	return NULL;
}

static void talk(uint32_t flags)
{
	struct xske_arena *own = open_arena(CHUNKS, XSKE_ARENA_LOOP_OWNED), *receive = open_arena(RING, 0);
	pthread_t threads[ENDS], runner, teller, curious;
	struct end all[ENDS] = {0};
	pthread_barrier_t both[PAIRS];
	const uint64_t one = 1;

	atomic_store(&over, 0);
	event_fd = eventfd(0, 0);
	set_up(own, receive, flags);
	CHECK(!pthread_create(&runner, NULL, run_loop, NULL));
	CHECK(!pthread_create(&teller, NULL, tell, NULL));
	CHECK(!pthread_create(&curious, NULL, be_curious, NULL));
	for (uint32_t i = 0; i < ENDS; i++) {
		if (i % 2 == 0)
			CHECK(!pthread_barrier_init(&both[i / 2], NULL, 2));
		all[i] = (struct end){.index = i, .both = &both[i / 2], .random = i + 1, .peer = &all[i ^ 1]};
		CHECK(!pthread_create(&threads[i], NULL, run_end, &all[i]));
	}
	for (uint32_t i = 0; i < ENDS; i++)
		pthread_join(threads[i], NULL);
	atomic_store(&over, 1);
	CHECK(write(event_fd, &one, sizeof(one)) == sizeof(one));
	pthread_join(curious, NULL);
	pthread_join(teller, NULL);
	CHECK(!xske_loop_command(loop, XSKE_COMMAND_DRAIN, NULL));
	pthread_join(runner, NULL);
	CHECK(tcp_counters.closed_connections == tcp_counters.opened_connections &&
	      !tcp_counters.connections);
	CHECK(!tcp_counters.bad_csum_packets && !tcp_counters.malformed_packets && !tcp_counters.bad_descs);
	xske_tcp_destroy(tcp);
	xske_arena_leave(receive);
	close(loop->config.wake_fd);
	xske_loop_destroy(loop);
	CHECK(!xske_arena_close(own) && !xske_arena_close(receive));
	xske_txq_destroy(txq);
	close(event_fd);
	rx_producer = rx_consumer = fill_producer = fill_consumer = 0;
	printf("%llu connections, %llu frames came, %llu payloads copied\n",
	       (unsigned long long)tcp_counters.established_connections,
	       (unsigned long long)tcp_counters.received_packets,
	       (unsigned long long)tcp_counters.copied_segments);
	memset(&tcp_counters, 0, sizeof(tcp_counters));
}

int main(int argc, char **argv)
{
	struct xske_umem_config config = {.len = CHUNKS * CHUNK_SIZE, .chunk_size = CHUNK_SIZE};
	struct xske_audit audit;

	lives = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 200;
	config.area = aligned_alloc(4096, config.len);
	CHECK(config.area && !xske_umem_create(&config, &umem));
	talk(0);
	talk(XSKE_TCP_MULTI_BUFFER);
	CHECK(!xske_umem_audit(umem, 1, &audit));
	CHECK(audit.pooled == CHUNKS && audit.arenas == 0);
	xske_umem_destroy(umem);
	free(config.area);
	return 0;
}
