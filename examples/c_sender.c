/* SPDX-License-Identifier: MIT */
/*
 * UDP datagrams from C, with the engine's arena and loop: libxdp opens the socket, one thread runs the loop, the other
 * sends. A payload is a big-endian sequence number of 64 bits and a pattern that follows from it.
 * Build: cc -pthread c_sender.c $(pkg-config --cflags --libs xske libxdp) -o c_sender
 * Usage: c_sender INTERFACE SRC_MAC DST_MAC SRC_IP DST_IP PORT COUNT; exit code 0: all have completed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <error.h>
#include <inttypes.h>
#include <netinet/ether.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <xdp/xsk.h>
#include <xske.h>

#define RING XSK_RING_PROD__DEFAULT_NUM_DESCS
#define CHUNK XSK_UMEM__DEFAULT_FRAME_SIZE
#define CHUNKS 128u
#define PAYLOAD_BYTES 200u
#define SECOND_NS 1000000000ull
#define MOST_PAUSES 50000u /* of 100 us: 5 s, and what the timer adds */

/* Of what returns a negative errno. errno holds it, so that it is evaluated once. */
#define FAILED(result, ...) ((errno = -(int)(result)) > 0 && (error(0, errno, __VA_ARGS__), 1))
/* While nothing is sent there is nothing to settle: the kernel takes everything back. */
#define NEED(result, ...) (FAILED(result, __VA_ARGS__) ? exit(1) : (void)0)

static _Alignas(CHUNK) uint8_t area[CHUNKS * CHUNK];
static struct xsk_umem *pages;
static struct xsk_socket *xsk;
static struct xske_umem *umem;
static struct xske_endpoint *endpoint;
static struct xske_header header; /* lengths and checksums are written for every packet */

/* It would block: waits a little. An event loop watches the event_fd instead, see xske_arena_await. */
static int again(int64_t result, uint32_t *pauses)
{
	if (result != -EAGAIN || ++*pauses > MOST_PAUSES)
		return 0;
	nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	return 1;
}

static void parse(char **argv)
{
	unsigned long port = strtoul(argv[6], NULL, 10);
	uint16_t ports[2] = {htons((uint16_t)port), htons((uint16_t)port)};
	uint8_t h[42] = {[12] = 0x08, [14] = 0x45, [22] = 64, [23] = IPPROTO_UDP};

	NEED(ether_aton_r(argv[3], (struct ether_addr *)h) ? 0 : -EINVAL, "DST_MAC %s", argv[3]);
	NEED(ether_aton_r(argv[2], (struct ether_addr *)(h + 6)) ? 0 : -EINVAL, "SRC_MAC %s", argv[2]);
	NEED(inet_pton(AF_INET, argv[4], h + 26) == 1 ? 0 : -EINVAL, "SRC_IP %s", argv[4]);
	NEED(inet_pton(AF_INET, argv[5], h + 30) == 1 ? 0 : -EINVAL, "DST_IP %s", argv[5]);
	NEED(port && port <= UINT16_MAX ? 0 : -EINVAL, "PORT %s", argv[6]);
	NEED(strtoull(argv[7], NULL, 10) ? 0 : -EINVAL, "COUNT %s", argv[7]);
	memcpy(h + 34, ports, sizeof(ports));
	header = (struct xske_header){.len = sizeof(h), .ip_offset = 14};
	memcpy(header.words, h, sizeof(h));
}

static struct xske_txq_config open_socket(const char *interface)
{
	const struct xsk_socket_config config = {.tx_size = RING,
	                                         .libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
	                                         .bind_flags = XDP_COPY | XDP_USE_NEED_WAKEUP};
	static struct xsk_ring_prod fill, tx; /* libxdp keeps their addresses */
	static struct xsk_ring_cons cq;
	struct xske_txq_config txq = {.need_wakeup = 1};
	uint32_t pauses = 0;
	int err;

	do { /* the queue of a process that has just ended stays taken for a moment */
		err = xsk_umem__create(&pages, area, sizeof(area), &fill, &cq, NULL);
		NEED(err, "xsk_umem__create %zu bytes", sizeof(area));
		err = xsk_socket__create(&xsk, interface, 0, pages, NULL, &tx, &config);
		if (err)
			xsk_umem__delete(pages);
	} while (again(err == -EBUSY ? -EAGAIN : err, &pauses));
	NEED(err, "xsk_socket__create %s queue 0", interface);
	txq.fd = xsk_socket__fd(xsk);
	memcpy(&txq.tx, &tx, sizeof(txq.tx)); /* the same layout */
	memcpy(&txq.cq, &cq, sizeof(txq.cq));
	return txq;
}

static void *run_loop(void *loop)
{
	int state = xske_loop_run(loop);

	(void)FAILED(state, "xske_loop_run");
	if (state == XSKE_LOOP_STALLED)
		xske_loop_give_up(loop, XSKE_ERROR_NO_PROGRESS);
	return NULL;
}

/* Every other one is written where the kernel reads it; the others the endpoint copies into the umem. */
static int64_t send_one(uint64_t sequence)
{
	uint8_t own[PAYLOAD_BYTES], *payload;
	uint32_t pauses = 0;
	struct xske_desc desc = {.len = header.len + PAYLOAD_BYTES};
	struct xske_span span = {0};
	int64_t in_place = sequence % 2, result = 0;

	while (in_place &&
	       again(result = xske_endpoint_alloc(endpoint, &header, 1, PAYLOAD_BYTES, &span), &pauses))
		;
	if (result < 0)
		return result;
	desc.addr = span.addr;
	payload = in_place ? area + desc.addr + header.len : own;
	for (uint32_t i = 0; i < PAYLOAD_BYTES; i++)
		payload[i] = (uint8_t)(i < 8 ? sequence >> (56 - 8 * i) : sequence + i);
	do
		result = in_place ? xske_endpoint_post(endpoint, &header, &desc, 1, NULL)
		                  : xske_endpoint_send(endpoint, &header, own, PAYLOAD_BYTES);
	while (again(result, &pauses));
	if (in_place && result < 0) /* it is still ours */
		xske_frag_unref(umem, NULL, desc.addr);
	return result;
}

/* And waits until they have completed; 0, or 1 when something failed. */
static int send_all(struct xske_loop *loop, uint64_t count)
{
	int err, bad = FAILED(xske_loop_command(loop, XSKE_COMMAND_ADD_ENDPOINT, endpoint), "add endpoint");
	struct xske_endpoint_counters c;
	uint32_t pauses = 0;

	for (uint64_t i = 0; i < count && !bad; i++)
		bad = FAILED(send_one(i), "send sequence %" PRIu64, i);
	do {
		xske_endpoint_read(endpoint, &c);
		err = c.completed_descs < c.submitted_descs ? -EAGAIN : 0;
	} while (again(err, &pauses));
	printf("%" PRIu64 " submitted, %" PRIu64 " completed\n", c.submitted_packets, c.completed_descs);
	bad |= FAILED(err ? -ETIMEDOUT : 0, "complete %" PRIu64 " descs", c.submitted_descs);
	/* What still waited to be posted is dropped. */
	bad |= FAILED(xske_loop_command(loop, XSKE_COMMAND_REMOVE_ENDPOINT, endpoint), "remove endpoint");
	if (FAILED(xske_loop_command(loop, XSKE_COMMAND_DRAIN, NULL), "drain"))
		xske_loop_abort(loop);
	return bad;
}

int main(int argc, char **argv)
{
	static struct xske_counters counters; /* outlives the loop */
	struct xske_umem_config chunks = {area, sizeof(area), CHUNK, 0};
	struct xske_arena_config loops = {CHUNKS, 0, XSKE_ARENA_LOOP_OWNED, 0}, ours = {CHUNKS, 0, 0, 0};
	struct xske_loop_config config = {.counters = &counters, .event_fd = -1};
	struct xske_endpoint_config sender = {.entries = RING, .batch = 64};
	struct xske_txq_config txq;
	struct xske_loop *loop;
	struct xske_audit audit;
	pthread_t thread;
	int bad, err;

	if (argc != 8)
		error(2, 0, "usage: c_sender INTERFACE SRC_MAC DST_MAC SRC_IP DST_IP PORT COUNT");
	parse(argv);
	txq = open_socket(argv[1]);
	NEED(xske_umem_create(&chunks, &umem), "xske_umem_create %u chunks", CHUNKS);
	NEED(xske_txq_create(umem, &txq, &config.txq), "xske_txq_create %u entries", RING);
	NEED(xske_arena_open(umem, &loops, &config.arena), "xske_arena_open of the loop");
	config.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	NEED(config.wake_fd < 0 ? -errno : 0, "eventfd");
	config.link_timeout_ns = config.progress_timeout_ns = config.drain_timeout_ns = SECOND_NS;
	NEED(xske_loop_create(&config, &loop), "xske_loop_create");
	NEED(xske_arena_open(umem, &ours, &sender.arena), "xske_arena_open %u chunks", CHUNKS);
	sender.max_frame_bytes = header.len + PAYLOAD_BYTES;
	NEED(xske_endpoint_create(loop, &sender, &endpoint), "xske_endpoint_create %u entries", RING);
	NEED(-pthread_create(&thread, NULL, run_loop, loop), "pthread_create");

	bad = send_all(loop, strtoull(argv[7], NULL, 10));
	pthread_join(thread, NULL); /* within the drain timeout; the endpoint is removed by now */
	err = counters.error_errno ? (int)counters.error_errno : ETIMEDOUT;
	bad |= FAILED(counters.error ? -err : 0, "xske_loop_run: error %" PRIu64, counters.error);

	xske_endpoint_destroy(endpoint);
	bad |= FAILED(xske_arena_close(sender.arena), "xske_arena_close");
	xske_loop_destroy(loop);
	close(config.wake_fd);
	bad |= FAILED(xske_arena_close(config.arena), "xske_arena_close of the loop");
	xske_txq_destroy(config.txq);
	bad |= FAILED(xske_umem_audit(umem, 1, &audit), "xske_umem_audit: %u lost", audit.lost);
	xske_umem_destroy(umem);
	xsk_socket__delete(xsk);
	bad |= FAILED(xsk_umem__delete(pages), "xsk_umem__delete");
	return bad;
}
