/* SPDX-License-Identifier: MIT */
/*
 * receive.c - the sink's loop: takes what has arrived off the receive rings, has it checked and, if wanted, captured,
 * and gives the memory back. One thread, for all queues of an interface: a flow whose packets come over several of them
 * is one flow. A packet socket's ring is a queue, too.
 */
#include <errno.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "capture.h"
#include "packet_ring.h"
#include "rxq.h"

/* Packets between two looks at the clock and at the other queues. Lower: a look at the clock costs as much as a check;
 * higher: the last of them is said to have come so much earlier than it was looked at. */
#define BATCH 64u

/* Awake for so long after the last packet. Lower: asleep between the packets of a fast stream, and each of them pays for
 * waking us; higher: takes time from who sends where they share a core. */
#define SPIN_NS (20 * NSEC_PER_USEC)

/* Nobody needs it; a bound on every wait all the same. */
#define SLEEP_MS 100

struct xske_receiver {
	struct xske_receiver_config config;
	struct xske_receive_counters now; /* what goes to config.counters */
	struct rxq *queues;
	struct packet_ring ring; /* instead of queues */
	uint32_t fd_count;
	struct pollfd *fds;    /* of the queues or the ring, and stop_fd last */
	struct chunk **chunks; /* all that are ours */
	uint32_t chunk_count;
	uint64_t arrived_ns;      /* CLOCK_TAI of this batch */
	_Atomic uint32_t stopped; /* release, acquire: what was done before is seen; stop_fd wakes it */
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static void look_at(struct xske_receiver *r, const struct piece *pieces, uint32_t n, uint32_t flags)
{
	if (r->config.check)
		check_frame(r->config.check, pieces, n, r->arrived_ns, flags);
	if (unlikely(r->config.capture != NULL) && !capture_put(r->config.capture, pieces, n, r->arrived_ns))
		r->now.uncaptured_packets++;
}

static void packet(void *ctx, const struct piece *pieces, uint32_t n)
{
	look_at(ctx, pieces, n, 0);
}

static void publish(struct xske_receiver *r)
{
	const uint64_t *from = (const uint64_t *)&r->now;
	uint64_t *to = (uint64_t *)r->config.counters;

	for (size_t i = 0; i < sizeof(r->now) / sizeof(*to); i++)
		__atomic_store_n(&to[i], from[i], __ATOMIC_RELAXED);
}

/* The kernel's time, not ours: it was there when the kernel had it. */
static uint32_t drain_ring(struct xske_receiver *r)
{
	uint64_t to_tai = clock_ns(CLOCK_TAI) - clock_ns(CLOCK_REALTIME);
	struct packet_frame frame;
	uint32_t n = 0;

	/* They are whole seconds apart (clock_gettime(2)). */
	to_tai = (to_tai + NSEC_PER_SEC / 2) / NSEC_PER_SEC * NSEC_PER_SEC;
	for (; n < BATCH && packet_ring_frame(&r->ring, n, &frame); n++) {
		const struct piece piece = {frame.bytes, frame.len};

		r->arrived_ns = frame.wall_ns + to_tai;
		r->now.packets++;
		r->now.bytes += frame.len;
		look_at(r, &piece, 1, frame.csum_partial ? CHECK_CSUM_PARTIAL : 0);
	}
	packet_ring_give_back(&r->ring, n);
	r->now.descs += n;
	return n;
}

static uint32_t drain(struct xske_receiver *r)
{
	uint32_t n = r->config.queue_count ? 0 : drain_ring(r);

	for (uint32_t i = 0; i < r->config.queue_count; i++) {
		struct rxq *q = &r->queues[i];
		uint32_t ready = min_u32(xsk_cons_nb_avail(&q->rx, BATCH), BATCH);

		if (!ready)
			continue;
		r->arrived_ns = clock_ns(CLOCK_TAI); /* of those that were there before it was read */
		n += rxq_take(q, ready, packet, r, &r->now);
	}
	if (n) {
		r->now.last_ns = clock_ns(CLOCK_MONOTONIC);
		if (!r->now.first_ns)
			r->now.first_ns = r->now.last_ns;
	}
	return n;
}

/* A driver that has stopped for want of chunks is told that there are some. `all`: the others too, to hear whether they
 * are still bound: -ENXIO when the device is gone (net/xdp/xsk.c, xsk_recvmsg). A link that is down comes back. */
static int wake_kernel(struct xske_receiver *r, bool all)
{
	for (uint32_t i = 0; i < r->config.queue_count; i++) {
		if (!all && !rxq_wants_wakeup(&r->queues[i]))
			continue;
		r->now.wakeup_calls++;
		if (recvfrom(r->queues[i].fd, NULL, 0, MSG_DONTWAIT, NULL, NULL) < 0 && errno == ENXIO)
			return -ENXIO;
	}
	return 0;
}

/* A packet socket's: a link that goes down says so and comes back; a device that goes takes its number with it
 * (net/packet/af_packet.c, packet_notifier). */
static int look_after_ring(const struct xske_receiver *r, bool error)
{
	const struct timespec pause = {.tv_nsec = 10 * NSEC_PER_MSEC};
	struct sockaddr_ll at = {0};
	socklen_t len = sizeof(int);
	int taken;

	if (error) {
		getsockopt(r->ring.fd, SOL_SOCKET, SO_ERROR, &taken, &len);
		nanosleep(&pause, NULL);
	}
	len = sizeof(at);
	return getsockname(r->ring.fd, (struct sockaddr *)&at, &len) || at.sll_ifindex <= 0 ? -ENXIO : 0;
}

static void count_overrun(struct xske_receiver *r)
{
	if (!r->config.queue_count)
		r->now.overrun_packets += packet_ring_missed(&r->ring);
}

static int rest(struct xske_receiver *r)
{
	int ready, error = 0, err = wake_kernel(r, false);

	count_overrun(r);
	publish(r);
	r->now.sleeps++;
	ready = err ? 0 : poll(r->fds, r->fd_count, SLEEP_MS);
	if (ready < 0)
		return errno == EINTR ? 0 : -errno;
	for (uint32_t i = 0; ready && i < r->fd_count - 1; i++)
		error |= r->fds[i].revents & (POLLERR | POLLHUP | POLLNVAL);
	if (err || (ready && !error))
		return err;
	if (!r->config.queue_count)
		return look_after_ring(r, error);
	return error ? -ENXIO : wake_kernel(r, true);
}

/* All that is ours goes back: the kernel is only a moment behind. */
static void settle(struct xske_receiver *r)
{
	const struct timespec pause = {.tv_nsec = 10000};

	for (uint32_t i = 0; i < r->config.queue_count; i++) {
		for (int tries = 0; r->queues[i].back_count && tries < 1000; tries++) {
			rxq_refill(&r->queues[i]);
			nanosleep(&pause, NULL);
		}
	}
}

int xske_receiver_run(struct xske_receiver *r)
{
	uint64_t since = clock_ns(CLOCK_MONOTONIC);
	bool busy = r->config.flags & XSKE_RECEIVER_BUSY_POLL;
	uint32_t turns = 0;
	int err = 0;

	while (!err && !atomic_load_explicit(&r->stopped, memory_order_acquire)) {
		bool moved = drain(r);

		if ((moved || busy) && ++turns % BATCH == 0)
			publish(r);
		if (moved) {
			since = r->now.last_ns;
		} else if (busy) {
			/* The kernel polls the driver in this call (net/xdp/xsk.c, __xsk_recvmsg), whatever the
			 * rings say of wake-ups. */
			err = wake_kernel(r, true);
		} else if (clock_ns(CLOCK_MONOTONIC) - since > SPIN_NS) {
			err = rest(r);
			since = clock_ns(CLOCK_MONOTONIC);
		}
	}
	while (drain(r)) /* what had arrived when it was stopped */
		;
	settle(r);
	count_overrun(r);
	publish(r);
	return err;
}

void xske_receiver_stop(struct xske_receiver *r)
{
	const uint64_t one = 1;

	atomic_store_explicit(&r->stopped, 1, memory_order_release);
	if (write(r->config.stop_fd, &one, sizeof(one)) < 0)
		return; /* the counter is full: it is awake already */
}

/* ---- life ---------------------------------------------------------------------------------------- */

static int fill_queue(struct xske_receiver *r, struct rxq *q)
{
	for (uint32_t n = 0; n < q->fill.size; n++) {
		uint64_t addr;
		int err = xske_frag_alloc(r->config.arena, q->umem->chunk_size, &addr);

		if (err)
			return err;
		r->chunks[r->chunk_count] = chunk_of(q->umem, addr);
		rxq_add(q, r->chunks[r->chunk_count++]);
	}
	rxq_refill(q);
	return 0;
}

static int open_ring(struct xske_receiver *r)
{
	const struct xske_receiver_config *config = &r->config;
	const struct sock_fprog filter = {(unsigned short)config->filter_count,
	                                  (struct sock_filter *)(uintptr_t)config->filter};
	int err = packet_ring_open(&r->ring, config->ifindex, config->max_frame_bytes,
	                           config->filter_count ? &filter : NULL, false);

	r->config.filter = NULL;
	r->fds[0] = (struct pollfd){.fd = r->ring.fd, .events = POLLIN};
	return err;
}

int xske_receiver_create(const struct xske_receiver_config *config, struct xske_receiver **out)
{
	struct xske_receiver *r;
	uint32_t chunks = 0;
	int err = 0;

	if (!config->counters || (config->flags & XSKE_RECEIVER_BUSY_POLL && !config->queue_count) ||
	    (config->queue_count ? !config->arena || config->arena->umem->metadata_len : !config->ifindex))
		return -EINVAL;
	for (uint32_t i = 0; i < config->queue_count; i++)
		chunks += config->queues[i].fill.size;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->config = *config;
	r->config.queues = NULL;
	r->ring.fd = -1;
	r->fd_count = max_u32(config->queue_count, 1) + 1;
	r->queues = calloc(r->fd_count, sizeof(*r->queues));
	r->fds = calloc(r->fd_count, sizeof(*r->fds));
	r->chunks = calloc(chunks + 1, sizeof(*r->chunks));
	if (!r->queues || !r->fds || !r->chunks)
		err = -ENOMEM;
	if (!err && !config->queue_count)
		err = open_ring(r);
	for (uint32_t i = 0; !err && i < config->queue_count; i++) {
		r->fds[i] = (struct pollfd){.fd = config->queues[i].fd, .events = POLLIN};
		err = rxq_init(&r->queues[i], config->arena->umem, &config->queues[i], i);
		if (!err)
			err = fill_queue(r, &r->queues[i]);
	}
	if (err) {
		xske_receiver_destroy(r);
		return err;
	}
	r->fds[r->fd_count - 1] = (struct pollfd){.fd = config->stop_fd, .events = POLLIN};
	*out = r;
	return 0;
}

void xske_receiver_destroy(struct xske_receiver *r)
{
	if (!r)
		return;
	for (uint32_t i = 0; i < r->chunk_count; i++) {
		r->chunks[i]->inflight = 0;
		frag_unref(r->config.arena, r->chunks[i]);
	}
	for (uint32_t i = 0; r->queues && i < r->config.queue_count; i++)
		rxq_free(&r->queues[i]);
	packet_ring_close(&r->ring);
	free(r->chunks);
	free(r->fds);
	free(r->queues);
	free(r);
}
