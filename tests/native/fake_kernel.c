/* SPDX-License-Identifier: MIT */
#include "fake_kernel.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <linux/if_xdp.h>

/* What a turn of the loop takes: without it a loop that spins until a packet is due would spin for ever. */
#define TURN_NS 200u

struct side {
	uint32_t producer, consumer, flags, mask;
	void *slots;
};

struct fake_kernel {
	struct side tx, cq;
	struct xske_desc *held;
	uint32_t held_first, held_count, held_max; /* held[held_first] is the oldest */
	uint32_t budget;
	int auto_complete;
	int script_errno;
	uint32_t script_times;
	uint32_t pass_before_drop;
	bool silent;
	uint32_t tx_taken;
	uint64_t now_ns, slept_ns, taken, kicks;
	uint64_t turn_ns, until_ns, wake_ns;
	uint32_t sleeps;
	fake_desc_fn posted, completed;
	void *watcher;
};

struct fake_kernel *fake_create(uint32_t tx_size, uint32_t cq_size, uint32_t first_cursor)
{
	struct fake_kernel *k = calloc(1, sizeof(*k));

	k->tx = (struct side){first_cursor, first_cursor, XDP_RING_NEED_WAKEUP, tx_size - 1,
	                      calloc(tx_size, sizeof(struct xske_desc))};
	k->cq = (struct side){first_cursor, first_cursor, 0, cq_size - 1, calloc(cq_size, sizeof(uint64_t))};
	k->tx_taken = first_cursor;
	k->held_max = 8 * (tx_size + cq_size);
	k->held = calloc(k->held_max, sizeof(*k->held));
	k->budget = tx_size;
	k->now_ns = 1000000000;
	k->turn_ns = TURN_NS;
	k->until_ns = UINT64_MAX;
	return k;
}

void fake_destroy(struct fake_kernel *k)
{
	free(k->tx.slots);
	free(k->cq.slots);
	free(k->held);
	free(k);
}

static struct xske_ring ring_of(struct side *s)
{
	return (struct xske_ring){.mask = s->mask,
	                          .size = s->mask + 1,
	                          .producer = &s->producer,
	                          .consumer = &s->consumer,
	                          .ring = s->slots,
	                          .flags = &s->flags};
}

void fake_rings(struct fake_kernel *k, struct xske_ring *tx, struct xske_ring *cq)
{
	*tx = ring_of(&k->tx);
	*cq = ring_of(&k->cq);
}

int fake_complete_addr(struct fake_kernel *k, uint64_t addr)
{
	uint32_t head = k->cq.producer;

	if (head - __atomic_load_n(&k->cq.consumer, __ATOMIC_ACQUIRE) > k->cq.mask)
		return -1;
	((uint64_t *)k->cq.slots)[head & k->cq.mask] = addr;
	__atomic_store_n(&k->cq.producer, head + 1, __ATOMIC_RELEASE);
	return 0;
}

int fake_complete(struct fake_kernel *k, uint32_t i)
{
	struct xske_desc *held = k->held + k->held_first;

	if (i >= k->held_count || fake_complete_addr(k, held[i].addr))
		return -1;
	if (k->completed)
		k->completed(k->watcher, &held[i], k->now_ns);
	k->held_count--;
	memmove(&held[i], &held[i + 1], (k->held_count - i) * sizeof(*held));
	return 0;
}

uint32_t fake_complete_oldest(struct fake_kernel *k, uint32_t n)
{
	uint32_t done = 0;

	n = n < k->held_count ? n : k->held_count;
	for (; done < n; done++) {
		const struct xske_desc *desc = &k->held[k->held_first + done];

		if (fake_complete_addr(k, desc->addr))
			break;
		if (k->completed)
			k->completed(k->watcher, desc, k->now_ns);
	}
	k->held_first += done;
	k->held_count -= done;
	return done;
}

void fake_shuffle(struct fake_kernel *k, uint32_t n, uint64_t seed)
{
	struct xske_desc *held = k->held + k->held_first, desc;

	for (uint32_t i = n < k->held_count ? n : k->held_count; i > 1; i--) {
		uint32_t other;

		seed = seed * 6364136223846793005u + 1442695040888963407u;
		other = (uint32_t)((seed >> 32) % i);
		desc = held[i - 1];
		held[i - 1] = held[other];
		held[other] = desc;
	}
}

static int hold(struct fake_kernel *k, struct xske_desc desc)
{
	if (k->held_first + k->held_count == k->held_max) {
		memmove(k->held, k->held + k->held_first, k->held_count * sizeof(*k->held));
		k->held_first = 0;
	}
	if (k->held_count == k->held_max)
		return -1;
	k->held[k->held_first + k->held_count++] = desc;
	return 0;
}

/* What was taken is published with the next look, as in the kernel after an EBUSY. */
static void publish(struct fake_kernel *k)
{
	if (!k->silent)
		__atomic_store_n(&k->tx.consumer, k->tx_taken, __ATOMIC_RELEASE);
}

static uint32_t take(struct fake_kernel *k, uint32_t most)
{
	uint32_t tail = k->tx_taken, n = __atomic_load_n(&k->tx.producer, __ATOMIC_ACQUIRE) - tail;

	n = n < most ? n : most;
	for (uint32_t i = 0; i < n; i++) {
		struct xske_desc desc = ((struct xske_desc *)k->tx.slots)[(tail + i) & k->tx.mask];

		if (k->posted)
			k->posted(k->watcher, &desc, k->now_ns);
		/* In order and nothing held: complete without the detour, for the benchmark. */
		if (k->auto_complete && !k->held_count && !k->posted && !fake_complete_addr(k, desc.addr))
			continue;
		if (hold(k, desc)) {
			n = i;
			break;
		}
	}
	k->tx_taken = tail + n;
	k->taken += n;
	return n;
}

int fake_kick(void *ctx)
{
	struct fake_kernel *k = ctx;

	k->kicks++;
	publish(k);
	if (k->script_times && (k->script_errno != EBUSY || k->tx_taken != k->tx.producer)) {
		k->script_times--;
		if (k->script_errno == EBUSY) {
			/* Some pass, one is dropped; both complete. */
			take(k, k->pass_before_drop + 1);
			while (k->held_count && !fake_complete(k, 0))
				;
		}
		return k->script_errno;
	}
	take(k, k->budget);
	publish(k);
	while (k->auto_complete && k->held_count)
		if (fake_complete(k, 0))
			break;
	return 0;
}

uint64_t fake_now(void *ctx)
{
	struct fake_kernel *k = ctx;

	return k->now_ns += k->turn_ns;
}

void fake_sleep(void *ctx, uint64_t ns)
{
	struct fake_kernel *k = ctx;

	uint64_t left_ns = k->until_ns > k->now_ns ? k->until_ns - k->now_ns : 0;

	k->sleeps++;
	k->wake_ns = k->now_ns + ns;
	ns = ns < left_ns ? ns : left_ns;
	k->now_ns += ns;
	k->slept_ns += ns;
}

void fake_turn(struct fake_kernel *k, uint64_t ns)
{
	k->turn_ns = ns;
}

void fake_watch(struct fake_kernel *k, fake_desc_fn posted, fake_desc_fn completed, void *watcher)
{
	k->posted = posted;
	k->completed = completed;
	k->watcher = watcher;
}

int32_t fake_run(struct fake_kernel *k, fake_step_fn step, void *loop, uint64_t until_ns, uint32_t most)
{
	uint32_t turns = 0, idle = 0, sleeps;
	int state = XSKE_LOOP_RUNNING;

	k->until_ns = until_ns;
	/* It has settled when it wants to sleep twice in a row at the end of the time. */
	while (idle < 2 && turns < most && (state == XSKE_LOOP_RUNNING || state == XSKE_LOOP_DRAINING)) {
		sleeps = k->sleeps;
		state = step(loop);
		turns++;
		idle = k->sleeps != sleeps && k->now_ns >= until_ns ? idle + 1 : 0;
	}
	k->until_ns = UINT64_MAX;
	return turns < most ? (int32_t)turns : -1;
}

uint64_t fake_clock(const struct fake_kernel *k)
{
	return k->now_ns;
}

uint64_t fake_wake_ns(const struct fake_kernel *k)
{
	return k->wake_ns;
}

void fake_advance(struct fake_kernel *k, uint64_t ns)
{
	k->now_ns += ns;
}

uint64_t fake_slept_ns(const struct fake_kernel *k)
{
	return k->slept_ns;
}

void fake_policy(struct fake_kernel *k, uint32_t budget, int auto_complete)
{
	k->budget = budget;
	k->auto_complete = auto_complete;
}

void fake_script(struct fake_kernel *k, int err, uint32_t times)
{
	k->script_errno = err;
	k->script_times = times;
}

void fake_lossy(struct fake_kernel *k, uint32_t pass_before_drop)
{
	k->pass_before_drop = pass_before_drop;
}

void fake_silent(struct fake_kernel *k)
{
	k->silent = true;
}

uint32_t fake_held(const struct fake_kernel *k)
{
	return k->held_count;
}

struct xske_desc fake_held_desc(const struct fake_kernel *k, uint32_t i)
{
	return k->held[k->held_first + i];
}

uint64_t fake_taken(const struct fake_kernel *k)
{
	return k->taken;
}

uint64_t fake_kicks(const struct fake_kernel *k)
{
	return k->kicks;
}
