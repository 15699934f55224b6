/* SPDX-License-Identifier: MIT */
/* wire.c - the loop of one direction: what a frame goes through, and when to rest. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "field.h"
#include "wire.h"
#include "wire_fate.h"

/* A packet is held back for so long when not enough others come. */
#define HOLD_NS (10 * NSEC_PER_MSEC)
#define HELD_BYTES (8u << 20)
#define DELAYED_BYTES (64u << 20)

/* While frames come, between two looks. Lower: more looks for the same frames; higher: they come later. */
#define NAP_NS (30 * NSEC_PER_USEC)
/* Nothing for so long: asleep until the kernel wakes us, which costs the sender what it costs to wake somebody. */
#define BUSY_NS (1 * NSEC_PER_MSEC)
#define POLL_NS (50 * NSEC_PER_MSEC)
#define MISSED_NS (10 * NSEC_PER_MSEC)

int xske_wire_create(const struct xske_wire_config *config, struct xske_wire **out)
{
	uint64_t shares = config->drop + config->duplicate + config->reorder + config->corrupt;
	struct xske_wire *w;
	int err;

	if (!config->counters || shares > 1ull << 32 || config->max_frame_bytes > 1u << 17)
		return -EINVAL;
	w = aligned_alloc(XSKE_CACHE_LINE, align_up(sizeof(*w), XSKE_CACHE_LINE));
	if (!w)
		return -ENOMEM;
	memset(w, 0, sizeof(*w));
	w->config = *config;
	w->counters = config->counters;
	w->key = field_scramble(config->seed + (config->direction + 1) * FIELD_WEYL);
	for (uint32_t i = 0; i < WIRE_BATCH; i++)
		w->messages[i].msg_hdr = (struct msghdr){.msg_iov = &w->iov[i], .msg_iovlen = 1};
	err = port_open(&w->port, config);
	if (!err && config->reorder)
		err = store_create(&w->held, HELD_BYTES);
	if (!err && config->delay_ns)
		err = store_create(&w->delayed, DELAYED_BYTES);
	if (err) {
		xske_wire_destroy(w);
		return err;
	}
	*out = w;
	return 0;
}

void xske_wire_destroy(struct xske_wire *w)
{
	if (!w)
		return;
	port_close(&w->port);
	store_destroy(&w->held);
	store_destroy(&w->delayed);
	free(w);
}

static inline void count(uint64_t *counter, uint64_t by)
{
	__atomic_store_n(counter, *counter + by, __ATOMIC_RELAXED);
}

static void flush(struct xske_wire *w)
{
	uint32_t n = w->batch_len;

	if (n) {
		uint32_t sent = port_send(&w->port, w->messages, n);

		count(&w->counters->forwarded_packets, sent);
		count(&w->counters->send_error_packets, n - sent);
		w->batch_len = 0;
	}
	store_settle(&w->held);
	store_settle(&w->delayed);
}

static void send_out(struct xske_wire *w, const uint8_t *frame, uint32_t len)
{
	if (w->batch_len == WIRE_BATCH)
		flush(w);
	w->iov[w->batch_len++] = (struct iovec){(void *)frame, len};
}

static void forward(struct xske_wire *w, const uint8_t *frame, uint32_t len)
{
	if (!w->config.delay_ns)
		send_out(w, frame, len);
	else if (!store_put(&w->delayed, frame, len, wire_now() + w->config.delay_ns, 0))
		count(&w->counters->overrun_packets, 1);
}

/* Those that enough others have passed, or whose time is over. */
static bool release_held(struct xske_wire *w, uint64_t now)
{
	struct wire_frame *f;
	bool any = false;

	while ((f = store_first(&w->held)) &&
	       (w->passed - f->number >= w->config.reorder_by || now >= f->due_ns)) {
		count(&w->counters->reordered_packets, w->passed != f->number);
		forward(w, f->bytes, f->len); /* may settle the store: it is taken out afterwards */
		store_take(&w->held);
		any = true;
	}
	return any;
}

static bool release_delayed(struct xske_wire *w, uint64_t now)
{
	struct wire_frame *f;
	bool any = false;

	while ((f = store_first(&w->delayed)) && now >= f->due_ns) {
		send_out(w, f->bytes, f->len); /* likewise */
		store_take(&w->delayed);
		any = true;
	}
	return any;
}

static void meet(struct xske_wire *w, uint8_t *frame, uint32_t len, uint64_t now)
{
	uint64_t number;
	uint32_t ip;

	count(&w->counters->taken_packets, 1);
	if (!wire_find_ip(frame, len, &ip)) {
		forward(w, frame, len);
		return;
	}
	number = w->numbered++;
	switch (wire_fate(&w->config, w->key, number)) {
	case WIRE_DROP:
		count(&w->counters->dropped_packets, 1);
		return;
	case WIRE_DUPLICATE:
		count(&w->counters->duplicated_packets, 1);
		forward(w, frame, len);
		break;
	case WIRE_REORDER:
		if (store_put(&w->held, frame, len, now + HOLD_NS, w->passed))
			return;
		break; /* no room: it stays in order */
	case WIRE_CORRUPT:
		count(&w->counters->corrupted_packets, wire_corrupt(frame, len, ip, w->key, number));
		break;
	case WIRE_PASS:
		break;
	}
	forward(w, frame, len);
	w->passed++;
	if (w->held.count)
		release_held(w, now);
}

/* The frames that are there, a batch at most. */
static bool take(struct xske_wire *w, uint64_t now)
{
	struct packet_frame frame;
	uint32_t n = 0;

	for (; n < WIRE_BATCH && packet_ring_frame(&w->port.in, n, &frame); n++)
		meet(w, frame.bytes, frame.len, now);
	if (!n)
		return false;
	flush(w);
	packet_ring_give_back(&w->port.in, n);
	return true;
}

static void ask_missed(struct xske_wire *w, uint64_t now)
{
	if (now - w->asked_ns < MISSED_NS)
		return;
	w->asked_ns = now;
	count(&w->counters->missed_packets, packet_ring_missed(&w->port.in));
}

static uint64_t next_due(struct xske_wire *w)
{
	struct wire_frame *held = store_first(&w->held), *delayed = store_first(&w->delayed);

	return min_u64(held ? held->due_ns : UINT64_MAX, delayed ? delayed->due_ns : UINT64_MAX);
}

static void rest(struct xske_wire *w)
{
	uint64_t now = wire_now(), due = next_due(w), ns = due > now ? due - now : 0;

	if (!ns)
		return;
	if (now - w->moved_ns < BUSY_NS)
		wire_nap(min_u64(ns, NAP_NS));
	else
		port_wait(&w->port, min_u64(ns, POLL_NS));
}

int xske_wire_run(struct xske_wire *w)
{
	prctl(PR_SET_TIMERSLACK, 1ul, 0, 0, 0);
	while (!atomic_load_explicit(&w->stop, memory_order_acquire)) {
		uint64_t now = wire_now();
		bool moved = take(w, now);

		moved |= release_held(w, now);
		moved |= release_delayed(w, now);
		flush(w);
		__atomic_store_n(&w->counters->held_packets, w->held.count + w->delayed.count,
		                 __ATOMIC_RELAXED);
		ask_missed(w, now);
		if (moved)
			w->moved_ns = now;
		else
			rest(w);
	}
	count(&w->counters->missed_packets, packet_ring_missed(&w->port.in));
	return 0;
}

void xske_wire_stop(struct xske_wire *w)
{
	atomic_store_explicit(&w->stop, 1, memory_order_release);
}

void xske_wire_read(const struct xske_wire_counters *counters, struct xske_wire_counters *out)
{
	const uint64_t *from = (const uint64_t *)counters;
	uint64_t *to = (uint64_t *)out;

	for (size_t i = 0; i < sizeof(*out) / sizeof(*to); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}
