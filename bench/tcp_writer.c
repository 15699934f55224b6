/* SPDX-License-Identifier: MIT */
/*
 * An application that sends much by one TCP connection of the engine, and does nothing else: what kernel_sender.c is
 * for the kernel's. It copies its bytes in (write), or takes memory of the connection and gives it back without writing into
 * it (in place), as MSG_ZEROCOPY's sender has nothing to write either. It sleeps when there is no room, as spinning would
 * be counted.
 */
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "mark.h"
#include "xske.h"

#define API __attribute__((visibility("default")))
#define MEGABYTE (1u << 20)
#define WRITE_BYTES (128u << 10) /* as kernel_sender.c */

/* The library's own, which this one does not link. */
struct tcp_functions {
	int64_t (*write)(struct xske_tcp_conn *conn, const uint8_t *bytes, uint64_t len);
	int (*alloc)(struct xske_tcp_conn *conn, uint64_t *addr, uint32_t *bytes);
	int (*submit)(struct xske_tcp_conn *conn, uint64_t addr, uint32_t len);
	void (*info)(const struct xske_tcp_conn *conn, struct xske_tcp_info *out);
};

struct application {
	struct tcp_functions tcp;
	uint32_t megabytes;
	uint32_t in_place;
	/* Without room. Lower: it wakes to find little room, where the kernel wakes its writer for a third of the buffer
	 * (sk_stream_write_space()); higher: the buffer runs dry. */
	uint32_t nap_us;
	uint32_t limit_s;
};

/* Between marks, until everything is acknowledged. 0, or what ended it: -errno, -ETIMEDOUT after `limit_s`. */
API int send_all(const struct application *a, struct xske_tcp_conn *conn);

static uint8_t data[WRITE_BYTES];

/* Never written, it would be the kernel's one page of zeros. */
__attribute__((constructor)) static void fill(void)
{
	memset(data, 0x5a, sizeof(data));
}

static int nap(const struct application *a, time_t deadline_s)
{
	const struct timespec pause = {.tv_nsec = (long)a->nap_us * 1000};
	struct timespec now;

	nanosleep(&pause, NULL);
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > deadline_s ? -ETIMEDOUT : 0;
}

/* How many bytes were taken, or -errno. */
static int64_t send_some(const struct application *a, struct xske_tcp_conn *conn, uint64_t left)
{
	uint64_t addr;
	uint32_t room;
	int err;

	if (left > WRITE_BYTES)
		left = WRITE_BYTES;
	if (!a->in_place)
		return a->tcp.write(conn, data, left);
	err = a->tcp.alloc(conn, &addr, &room);
	if (err)
		return err;
	if (left > room)
		left = room;
	err = a->tcp.submit(conn, addr, (uint32_t)left);
	return err ? err : (int64_t)left;
}

int send_all(const struct application *a, struct xske_tcp_conn *conn)
{
	uint64_t end = (uint64_t)a->megabytes * MEGABYTE, at = 0, before;
	struct xske_tcp_info info;
	struct timespec start;
	time_t deadline_s;
	int64_t n = 0;

	prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul);
	clock_gettime(CLOCK_MONOTONIC, &start);
	deadline_s = start.tv_sec + (time_t)a->limit_s;
	a->tcp.info(conn, &info);
	before = info.acked_bytes;
	MARK(MARK_BEGIN);
	while (n >= 0 && at < end) {
		n = send_some(a, conn, end - at);
		if (n > 0)
			at += (uint64_t)n;
		else if (n == -EAGAIN)
			n = nap(a, deadline_s);
	}
	for (a->tcp.info(conn, &info); n >= 0 && info.acked_bytes - before < end; a->tcp.info(conn, &info))
		n = nap(a, deadline_s);
	MARK(MARK_END);
	return n < 0 ? (int)n : 0;
}
