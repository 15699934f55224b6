/* SPDX-License-Identifier: MIT */
/* arrivals.c - what one flow's packets say of their way: sequences, reordering, latency (check.h). */
#include <string.h>

#include "check.h"

/* ---- sequences ---------------------------------------------------------------------------------------- */

/* Sequences `from` to `from + n - 1` have not been seen. */
static COLD void window_clear(struct arrivals *a, uint64_t from, uint64_t n)
{
	if (n >= CHECK_WINDOW) {
		memset(a->window, 0, sizeof(a->window));
		return;
	}
	while (n) {
		uint32_t bit = from % 64, some = min_u32(64 - bit, n < 64 ? (uint32_t)n : 64);
		uint64_t mask = some == 64 ? ~0ull : ((1ull << some) - 1) << bit;

		a->window[from / 64 % (CHECK_WINDOW / 64)] &= ~mask;
		from += some;
		n -= some;
	}
}

static inline void window_set(struct arrivals *a, uint64_t sequence)
{
	a->window[sequence / 64 % (CHECK_WINDOW / 64)] |= 1ull << sequence % 64;
}

static inline bool window_has(const struct arrivals *a, uint64_t sequence)
{
	return a->window[sequence / 64 % (CHECK_WINDOW / 64)] >> sequence % 64 & 1;
}

static void run_push(struct arrivals *a, uint64_t sequence)
{
	a->runs[a->run_count++ % CHECK_RUNS] = (struct run){sequence, a->shown.received_packets};
}

static inline void set_highest(struct arrivals *a, const struct arrival *p)
{
	check_store(&a->shown.highest_sequence, p->sequence);
	a->highest_stamp_ns = p->stamp_ns;
	window_set(a, p->sequence);
}

static void lose(struct xske_check *c, struct arrivals *a, uint64_t n)
{
	check_count(&a->shown.lost_packets, n);
	check_count(&c->totals.lost_packets, n);
}

static COLD void begin(struct xske_check *c, struct arrivals *a, const struct arrival *p)
{
	uint64_t first = p->sequence < CHECK_WINDOW ? 0 : p->sequence;

	memset(a->window, 0, sizeof(a->window));
	a->run_count = 0;
	check_store(&a->shown.first_sequence, first);
	lose(c, a, p->sequence - first);
	set_highest(a, p);
	run_push(a, p->sequence);
}

static COLD void open_flow(struct xske_check *c, struct arrivals *a, uint32_t id, const struct arrival *p)
{
	a->known = 1;
	check_store(&a->shown.flow_id, id);
	begin(c, a, p);
	c->order[c->totals.flows] = id;
	/* Released: who sees the number sees the flow. */
	__atomic_store_n(&c->totals.flows, c->totals.flows + 1, __ATOMIC_RELEASE);
}

static void late(struct xske_check *c, struct arrivals *a)
{
	check_count(&a->shown.late_packets, 1);
	check_count(&c->totals.late_packets, 1);
}

/* A packet that is behind: how many received packets ago the earliest larger one came. Every run that begins with a
 * larger sequence came in order and later than those before it, so the oldest of them it is. */
static void count_extent(struct arrivals *a, uint64_t sequence)
{
	uint64_t kept = a->run_count < CHECK_RUNS ? a->run_count : CHECK_RUNS, at = a->run_count - 1, extent;

	while (at > a->run_count - kept && (int64_t)(a->runs[(at - 1) % CHECK_RUNS].sequence - sequence) > 0)
		at--;
	if (at && at == a->run_count - kept)
		check_count(&a->shown.least_extents, 1);
	extent = a->shown.received_packets - a->runs[at % CHECK_RUNS].index;
	check_count(&a->shown.extent_sum_packets, extent);
	if (extent > a->shown.extent_max_packets)
		check_store(&a->shown.extent_max_packets, extent);
}

static bool restarts(const struct arrivals *a, const struct arrival *p)
{
	return p->sequence < CHECK_WINDOW && a->highest_stamp_ns && p->stamp_ns > a->highest_stamp_ns &&
	       p->stamp_ns - a->highest_stamp_ns >= CHECK_RESTART_NS;
}

static void restart(struct xske_check *c, struct arrivals *a, const struct arrival *p)
{
	check_count(&a->shown.restarts, 1);
	check_count(&c->totals.restarts, 1);
	a->since_ns = p->stamp_ns - CHECK_RESTART_NS / 2;
	begin(c, a, p);
}

/* Any but the next one in order. True: received. */
static COLD bool place(struct xske_check *c, struct arrivals *a, const struct arrival *p)
{
	uint64_t highest = a->shown.highest_sequence, ahead = p->sequence - highest, behind = -ahead;
	bool old = p->stamp_ns && p->stamp_ns < a->since_ns;

	if ((int64_t)ahead > 0 && ahead <= CHECK_MAX_JUMP && !old) {
		window_clear(a, highest + 1, ahead);
		set_highest(a, p);
		if (ahead > 1) {
			lose(c, a, ahead - 1);
			run_push(a, p->sequence);
		}
		return true;
	}
	if ((int64_t)ahead > 0 || old) {
		late(c, a);
		return false;
	}
	if (behind >= CHECK_WINDOW || window_has(a, p->sequence)) {
		if (restarts(a, p)) {
			restart(c, a, p);
			return true;
		}
		if (behind >= CHECK_WINDOW) {
			late(c, a);
		} else {
			check_count(&a->shown.duplicate_packets, 1);
			check_count(&c->totals.duplicate_packets, 1);
		}
		return false;
	}
	window_set(a, p->sequence);
	check_count(&a->shown.reordered_packets, 1);
	check_count(&c->totals.reordered_packets, 1);
	if (p->sequence - a->shown.first_sequence <= highest - a->shown.first_sequence)
		lose(c, a, -1ull);
	count_extent(a, p->sequence);
	return true;
}

/* ---- time ----------------------------------------------------------------------------------------------- */

#define LATENCY_EXACT 32u
#define LATENCY_BITS 44u /* 5 hours; longer ones share the last bucket */
_Static_assert(LATENCY_EXACT + (LATENCY_BITS - 5) * 16 == XSKE_LATENCY_BUCKETS,
               "32 = 2^5, and 16 to a power");

static inline uint32_t latency_bucket(uint64_t ns)
{
	uint32_t top;

	if (ns < LATENCY_EXACT)
		return (uint32_t)ns;
	if (unlikely(ns >> LATENCY_BITS))
		return XSKE_LATENCY_BUCKETS - 1;
	top = 63 - (uint32_t)__builtin_clzll(ns);
	return LATENCY_EXACT + (top - 5) * 16 + ((uint32_t)(ns >> (top - 4)) & 15);
}

static inline void count_latency(struct xske_check *c, struct arrivals *a, uint64_t ns)
{
	struct xske_check_flow *s = &a->shown;
	uint32_t bucket = latency_bucket(ns), before = a->bucket[bucket];
	struct xske_latency *all = &c->latency;

	if (unlikely(ns < s->latency_min_ns || !s->latency_count)) {
		check_store(&s->latency_min_ns, ns);
		if (ns < all->min_ns || !all->count)
			check_store(&all->min_ns, ns);
	}
	if (unlikely(ns > s->latency_max_ns)) {
		check_store(&s->latency_max_ns, ns);
		if (ns > all->max_ns)
			check_store(&all->max_ns, ns);
	}
	check_count(&s->latency_count, 1);
	check_count(&s->latency_sum_ns, ns);
	if (likely(before != UINT32_MAX))
		__atomic_store_n(&a->bucket[bucket], before + 1, __ATOMIC_RELAXED);
	check_count(&all->count, 1);
	check_count(&all->sum_ns, ns);
	check_count(&all->bucket[bucket], 1);
}

/* RFC 3550, A.8. A difference of years is none, and must not overflow. */
static inline void count_jitter(struct arrivals *a, uint64_t transit_ns)
{
	uint64_t by = transit_ns - a->transit_ns, jitter = a->shown.jitter_ns;

	by = min_u64((int64_t)by < 0 ? -by : by, 1ull << 58);
	if (likely(a->timed))
		check_store(&a->shown.jitter_ns, jitter + by - ((jitter + 8) >> 4));
	a->timed = 1;
	a->transit_ns = transit_ns;
}

static inline void count_time(struct xske_check *c, struct arrivals *a, const struct arrival *p)
{
	uint64_t transit_ns = p->arrived_ns - p->stamp_ns;

	if (unlikely(!p->stamp_ns)) {
		check_count(&a->shown.untimed_packets, 1);
		check_count(&c->totals.untimed_packets, 1);
		return;
	}
	count_jitter(a, transit_ns);
	if (unlikely((int64_t)transit_ns < 0)) {
		check_count(&a->shown.negative_latency_packets, 1);
		check_count(&c->totals.negative_latency_packets, 1);
		return;
	}
	count_latency(c, a, transit_ns);
}

/* ---- one packet ------------------------------------------------------------------------------------------ */

void arrivals_add(struct xske_check *c, uint32_t id, const struct arrival *p)
{
	struct xske_check_counters *t = &c->totals;
	struct arrivals *a = check_flow(c, id);

	if (unlikely(!a->known))
		open_flow(c, a, id, p);
	else if (likely(p->sequence - a->shown.highest_sequence == 1 && p->stamp_ns >= a->since_ns))
		set_highest(a, p); /* its bit was the one of 4096 sequences ago: set or not, it is now */
	else if (!place(c, a, p))
		return;
	check_count(&a->shown.received_packets, 1);
	check_count(&a->shown.received_bytes, p->len);
	count_time(c, a, p);
	check_count(&t->received_packets, 1);
	check_count(&t->received_bytes, p->len);
	if (unlikely(!t->first_ns))
		check_store(&t->first_ns, p->arrived_ns);
	check_store(&t->last_ns, p->arrived_ns);
}

/* ---- reading, by any thread -------------------------------------------------------------------------------- */

static void copy_words(void *out, const void *words, size_t bytes)
{
	const uint64_t *from = words;
	uint64_t *to = out;

	for (size_t i = 0; i < bytes / sizeof(*to); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

void xske_check_read(const struct xske_check *c, struct xske_check_counters *out,
                     struct xske_latency *latency)
{
	copy_words(out, &c->totals, sizeof(*out));
	if (latency)
		copy_words(latency, &c->latency, sizeof(*latency));
}

uint32_t xske_check_flows(const struct xske_check *c, uint32_t first, uint32_t n, struct xske_check_flow *out,
                          uint32_t *buckets)
{
	uint64_t known = __atomic_load_n(&c->totals.flows, __ATOMIC_ACQUIRE);

	n = first < known ? min_u32(n, (uint32_t)known - first) : 0;
	for (uint32_t i = 0; i < n; i++) {
		const struct arrivals *a = check_flow(c, c->order[first + i]);

		copy_words(&out[i], &a->shown, sizeof(out[i]));
		out[i].jitter_ns >>= 4;
		for (uint32_t b = 0; buckets && b < XSKE_LATENCY_BUCKETS; b++)
			*buckets++ = __atomic_load_n(&a->bucket[b], __ATOMIC_RELAXED);
	}
	return n;
}
