/* SPDX-License-Identifier: MIT */
/*
 * Two threads: one takes packets for a stream, the other runs the loop that posts them on the null device, with a umem
 * that holds few of them. What went out is read back and compared byte for byte, so that a sanitizer sees a chunk that
 * is written before it is free. Usage: stream PACKETS (default 10^6). Exit code 0 = all came, in order.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <unistd.h>

#include "capture.h"
#include "loop.h"
#include "trace.h"

#define CHUNKS 64u
#define CHUNK_SIZE 2048u
#define RING 64u
#define LONGEST 5000u
#define CAPTURE_BYTES (1u << 16)

static struct xske_trace *trace;
static struct xske_arena *arena;
static uint64_t packets;

#define CHECK(condition)                                                                                     \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "stream.c:%d: %s\n", __LINE__, #condition);                          \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

/* Packet i: its length and its bytes. */
static uint32_t make(uint64_t i, uint8_t *to)
{
	uint32_t len = i % 7 ? 60 + (uint32_t)(i * 37 % 400) : 60 + (uint32_t)(i * 113 % (LONGEST - 60));

	for (uint32_t at = 0; at < len; at++)
		to[at] = (uint8_t)(at < 14 ? 2 : i + at * 3);
	return len;
}

static void *feed(void *arg)
{
	uint8_t packet[LONGEST];

	(void)arg;
	CHECK(!xske_arena_enter(arena));
	for (uint64_t i = 0; i < packets; i++) {
		struct {
			struct timeval at;
			uint32_t captured, len;
		} header = {.at = {.tv_usec = (long)i % 1000000000}};

		header.captured = header.len = make(i, packet);
		xske_trace_take((uint8_t *)trace, &header, packet);
	}
	CHECK(!xske_trace_finish(trace, 0));
	xske_arena_leave(arena);
	return NULL;
}

/* Compares the records that are there; how many. */
static uint64_t look(struct xske_capture *capture, uint64_t next)
{
	static uint8_t bytes[CAPTURE_BYTES], wanted[LONGEST];
	uint64_t at = 0, n = 0, length = xske_capture_read(capture, bytes, sizeof(bytes));

	while (at < length) {
		uint32_t record[4], len = make(next + n, wanted);

		memcpy(record, bytes + at, sizeof(record));
		CHECK(record[2] == len);
		CHECK(!memcmp(bytes + at + sizeof(record), wanted, len));
		at += sizeof(record) + len;
		n++;
	}
	CHECK(at == length);
	return n;
}

int main(int argc, char **argv)
{
	struct xske_umem_config umem_config = {.len = CHUNKS * CHUNK_SIZE, .chunk_size = CHUNK_SIZE};
	struct xske_arena_config of_loop = {CHUNKS, 0, XSKE_ARENA_LOOP_OWNED, 0},
	                         of_trace = {CHUNKS, 0, 0, 0};
	struct xske_trace_config trace_config = {
	        .max_bytes = LONGEST, .chunk_size = CHUNK_SIZE, .ring = RING};
	struct xske_txq_config txq_config = {0};
	struct xske_counters counters = {0};
	struct xske_loop_config config = {
	        .counters = &counters, .progress_timeout_ns = NSEC_PER_SEC, .event_fd = -1};
	struct xske_mix_config mix_config = {.batch = 16};
	struct xske_umem *umem;
	struct xske_null *null;
	struct xske_loop *loop;
	struct xske_mix *mix;
	struct xske_audit audit;
	pthread_t feeder;
	uint64_t seen = 0;

	packets = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
	umem_config.area = aligned_alloc(4096, umem_config.len);
	CHECK(umem_config.area && !xske_umem_create(&umem_config, &umem));
	CHECK(!xske_null_create(RING, &null));
	xske_null_attach(null, &txq_config, &config.clock);
	CHECK(!xske_txq_create(umem, &txq_config, &config.txq));
	CHECK(!xske_arena_open(umem, &of_loop, &config.arena) && !xske_arena_open(umem, &of_trace, &arena));
	CHECK(!xske_capture_create(CAPTURE_BYTES, 0, 0, &config.capture));
	config.wake_fd = eventfd(0, EFD_NONBLOCK);
	CHECK(config.wake_fd >= 0 && !xske_loop_create(&config, &loop));
	trace_config.arena = arena;
	CHECK(!xske_trace_create(&trace_config, &trace));
	mix_config.trace = trace;
	CHECK(!xske_mix_create(&mix_config, &mix));
	CHECK(!xske_loop_command(loop, XSKE_COMMAND_START_MIX, mix));
	CHECK(!pthread_create(&feeder, NULL, feed, NULL));
	while (!counters.finished_flows) {
		CHECK(xske_loop_step(loop) == XSKE_LOOP_RUNNING);
		seen += look(config.capture, seen);
	}
	pthread_join(feeder, NULL);
	CHECK(seen == packets);
	CHECK(!xske_loop_command(loop, XSKE_COMMAND_DRAIN, NULL));
	while (xske_loop_step(loop) < XSKE_LOOP_STOPPED)
		;
	xske_mix_destroy(mix);
	CHECK(!xske_arena_close(arena) && !xske_arena_close(config.arena));
	CHECK(!xske_umem_audit(umem, 1, &audit) && audit.pooled == CHUNKS && !audit.arenas);
	printf("%llu packets, in order, audit clean\n", (unsigned long long)seen);
	xske_loop_destroy(loop);
	xske_capture_destroy(config.capture);
	xske_txq_destroy(config.txq);
	xske_null_destroy(null);
	xske_umem_destroy(umem);
	free(umem_config.area);
	close(config.wake_fd);
	return 0;
}
