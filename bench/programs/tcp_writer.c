/* SPDX-License-Identifier: MIT */
/*
 * An application that sends much by TCP connections of the engine, and does nothing else: what kernel_sender.c is
 * for the kernel's. One thread serves all connections, as nothing in the engine waits for one of them. It copies its bytes in (write), or takes memory of the connection and gives it back without writing into
 * it (in place), as MSG_ZEROCOPY's sender has nothing to write either. It sleeps when there is no room, as spinning would
 * be counted.
 */
#include <errno.h>
#include <stdbool.h>
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

/* `megabytes` on each of n connections, between marks, until everything is acknowledged. 0, or what ended it: -errno,
 * -ETIMEDOUT after `limit_s`. */
#define MOST_CONNECTIONS 256u
API int send_all(const struct application *a, struct xske_tcp_conn *const *conns, uint32_t n);

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

static uint64_t acked_bytes(const struct application *a, struct xske_tcp_conn *conn)
{
	struct xske_tcp_info info;

	a->tcp.info(conn, &info);
	return info.acked_bytes;
}

/* A turn each; 0: all is written, or -EAGAIN: nobody has room, or the first error, or how much was taken. */
static int64_t write_round(const struct application *a, struct xske_tcp_conn *const *conns, uint64_t *left,
                           uint32_t n)
{
	int64_t taken = 0, some;
	bool blocked = false;

	for (uint32_t i = 0; i < n; i++) {
		some = left[i] ? send_some(a, conns[i], left[i]) : 0;
		if (some > 0) {
			left[i] -= (uint64_t)some;
			taken += some;
		} else if (some == -EAGAIN) {
			blocked = true;
		} else if (some < 0) {
			return some;
		}
	}
	return taken || !blocked ? taken : -EAGAIN;
}

int send_all(const struct application *a, struct xske_tcp_conn *const *conns, uint32_t n)
{
	uint64_t bytes = (uint64_t)a->megabytes * MEGABYTE, left[MOST_CONNECTIONS], ends[MOST_CONNECTIONS];
	struct timespec start;
	time_t deadline_s;
	int64_t result;

	if (n > MOST_CONNECTIONS)
		return -E2BIG;
	prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul);
	clock_gettime(CLOCK_MONOTONIC, &start);
	deadline_s = start.tv_sec + (time_t)a->limit_s;
	for (uint32_t i = 0; i < n; i++) {
		left[i] = bytes;
		ends[i] = acked_bytes(a, conns[i]) + bytes;
	}
	MARK(MARK_BEGIN);
	while ((result = write_round(a, conns, left, n)) != 0) {
		if (result == -EAGAIN)
			result = nap(a, deadline_s);
		if (result < 0)
			break;
	}
	for (uint32_t i = 0; i < n && result >= 0; i++)
		while (result >= 0 && acked_bytes(a, conns[i]) < ends[i])
			result = nap(a, deadline_s);
	MARK(MARK_END);
	return result < 0 ? (int)result : 0;
}
