/* SPDX-License-Identifier: MIT */
/*
 * sink.c - the demo's receiver: kernel UDP sockets read with recvmmsg, every payload compared byte by byte.
 * Several sockets (SO_REUSEPORT) only because one socket's buffer holds 2 ms of 100 kpps.
 */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "util.h"
#include "xske.h"

#define MESSAGES 64u
#define MAX_FDS 256u
#define SEQUENCE_BYTES 8u
#define POLL_MS 50

struct xske_sink {
	struct pollfd fds[MAX_FDS];
	uint32_t fd_count;
	uint32_t payload_len;
	uint8_t *payload;
	uint64_t max_sequences;
	uint64_t *seen; /* a bit per sequence */
	_Atomic uint32_t stop;
	struct xske_sink_counters counters;
	struct mmsghdr messages[MESSAGES];
	struct iovec iov[MESSAGES];
	uint8_t *buffers;
};

int xske_sink_create(const struct xske_sink_config *config, struct xske_sink **out)
{
	size_t stride = (size_t)config->payload_len + 1; /* one more shows a payload that is too long */
	struct xske_sink *s;

	if (!config->fd_count || config->fd_count > MAX_FDS || config->payload_len < SEQUENCE_BYTES)
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->fd_count = config->fd_count;
	for (uint32_t i = 0; i < s->fd_count; i++)
		s->fds[i] = (struct pollfd){.fd = config->fds[i], .events = POLLIN};
	s->payload_len = config->payload_len;
	s->max_sequences = config->max_sequences;
	s->payload = malloc(config->payload_len);
	s->seen = calloc(config->max_sequences / 64 + 1, sizeof(*s->seen));
	s->buffers = malloc(MESSAGES * stride);
	if (!s->payload || !s->seen || !s->buffers) {
		xske_sink_destroy(s);
		return -ENOMEM;
	}
	memcpy(s->payload, config->payload, config->payload_len);
	for (uint32_t i = 0; i < MESSAGES; i++) {
		s->iov[i] = (struct iovec){s->buffers + i * stride, stride};
		s->messages[i].msg_hdr = (struct msghdr){.msg_iov = &s->iov[i], .msg_iovlen = 1};
	}
	*out = s;
	return 0;
}

void xske_sink_destroy(struct xske_sink *s)
{
	if (!s)
		return;
	free(s->buffers);
	free(s->seen);
	free(s->payload);
	free(s);
}

static inline void count(uint64_t *counter, uint64_t by)
{
	__atomic_store_n(counter, *counter + by, __ATOMIC_RELAXED);
}

static void check(struct xske_sink *s, const uint8_t *payload, uint32_t len)
{
	uint64_t sequence, bit;

	if (len != s->payload_len ||
	    memcmp(payload + SEQUENCE_BYTES, s->payload + SEQUENCE_BYTES, len - SEQUENCE_BYTES)) {
		count(&s->counters.corrupt_packets, 1);
		return;
	}
	memcpy(&sequence, payload, sizeof(sequence));
	sequence = __builtin_bswap64(sequence);
	if (sequence >= s->max_sequences) {
		count(&s->counters.corrupt_packets, 1);
		return;
	}
	bit = 1ull << (sequence % 64);
	if (s->seen[sequence / 64] & bit) {
		count(&s->counters.duplicate_packets, 1);
		return;
	}
	s->seen[sequence / 64] |= bit;
	count(&s->counters.delivered_packets, 1);
	count(&s->counters.delivered_bytes, len);
}

static int receive(struct xske_sink *s, int fd)
{
	struct timespec t;
	int n;

	do {
		n = recvmmsg(fd, s->messages, MESSAGES, MSG_DONTWAIT, NULL);
		for (int i = 0; i < n; i++)
			check(s, s->iov[i].iov_base, s->messages[i].msg_len);
	} while (n == (int)MESSAGES && !atomic_load_explicit(&s->stop, memory_order_relaxed));
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		return -errno;
	clock_gettime(CLOCK_MONOTONIC, &t);
	__atomic_store_n(&s->counters.last_ns, (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec,
	                 __ATOMIC_RELAXED);
	return 0;
}

int xske_sink_run(struct xske_sink *s)
{
	while (!atomic_load_explicit(&s->stop, memory_order_acquire)) {
		int n = poll(s->fds, s->fd_count, POLL_MS);

		if (n < 0 && errno != EINTR)
			return -errno;
		for (uint32_t i = 0; n > 0 && i < s->fd_count; i++) {
			int err = s->fds[i].revents ? receive(s, s->fds[i].fd) : 0;

			if (err)
				return err;
		}
	}
	return 0;
}

void xske_sink_stop(struct xske_sink *s)
{
	atomic_store_explicit(&s->stop, 1, memory_order_release);
}

void xske_sink_read(const struct xske_sink *s, struct xske_sink_counters *out)
{
	const uint64_t *from = (const uint64_t *)&s->counters;
	uint64_t *to = (uint64_t *)out;

	for (size_t i = 0; i < sizeof(*out) / sizeof(*to); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}
