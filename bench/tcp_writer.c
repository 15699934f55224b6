/* SPDX-License-Identifier: MIT */
/*
 * An application that sends much by one TCP connection of the engine, and does nothing else: what kernel_sender.c is
 * for the kernel's. It sleeps when there is no room, as spinning would be counted.
 */
#include <errno.h>
#include <time.h>

#include "mark.h"
#include "xske.h"

#define API __attribute__((visibility("default")))
#define MEGABYTE (1u << 20)
#define WRITE_BYTES (128u << 10) /* as kernel_sender.c */
#define NAP_NS 1000000

/* The library's own, which this one does not link. */
struct tcp_functions {
	int64_t (*write)(struct xske_tcp_conn *conn, const uint8_t *bytes, uint64_t len);
	void (*info)(const struct xske_tcp_conn *conn, struct xske_tcp_info *out);
};

/* Between marks, until everything is acknowledged. 0, or what ended it: -errno, -ETIMEDOUT after `limit_s`. */
API int write_all(const struct tcp_functions *tcp, struct xske_tcp_conn *conn, uint32_t megabytes,
                  uint32_t limit_s);

static uint8_t data[MEGABYTE];

static int nap(time_t deadline_s)
{
	const struct timespec pause = {.tv_nsec = NAP_NS};
	struct timespec now;

	nanosleep(&pause, NULL);
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > deadline_s ? -ETIMEDOUT : 0;
}

static int write_megabyte(const struct tcp_functions *tcp, struct xske_tcp_conn *conn, time_t deadline_s)
{
	for (uint64_t at = 0; at < MEGABYTE;) {
		uint64_t left = MEGABYTE - at;
		int64_t n = tcp->write(conn, data + at, left < WRITE_BYTES ? left : WRITE_BYTES);

		if (n == -EAGAIN)
			n = nap(deadline_s);
		if (n < 0)
			return (int)n;
		at += (uint64_t)n;
	}
	return 0;
}

int write_all(const struct tcp_functions *tcp, struct xske_tcp_conn *conn, uint32_t megabytes,
              uint32_t limit_s)
{
	uint64_t end = (uint64_t)megabytes * MEGABYTE;
	struct xske_tcp_info info;
	struct timespec start;
	time_t deadline_s;
	int err = 0;

	clock_gettime(CLOCK_MONOTONIC, &start);
	deadline_s = start.tv_sec + (time_t)limit_s;
	tcp->info(conn, &info);
	end += info.acked_bytes;
	MARK(MARK_BEGIN);
	for (uint32_t i = 0; !err && i < megabytes; i++)
		err = write_megabyte(tcp, conn, deadline_s);
	for (tcp->info(conn, &info); !err && info.acked_bytes < end; tcp->info(conn, &info))
		err = nap(deadline_s);
	MARK(MARK_END);
	return err;
}
