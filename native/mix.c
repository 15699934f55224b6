/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "capture.h"
#include "gaps.h"
#include "mix.h"

/* In a block of many flows the cache misses of those to come overlap: first the flow itself, then its lengths. Lower:
 * still under way when its turn comes; higher: gone again. */
#define PREFETCH_FLOW 12u
#define PREFETCH_VARIANTS 6u

static bool is_sound(const struct xske_mix_config *c)
{
	if (!c->batch || (c->pace.rate_units && !c->pace.period_ns))
		return false;
	if (c->trace)
		return !c->flow_count && !c->order_len;
	for (uint32_t i = 0; i < c->order_len; i++)
		if (c->order[i] >= c->flow_count)
			return false;
	return c->flow_count && c->order_len;
}

static int take_flows(struct xske_mix *m, const struct xske_mix_config *config)
{
	m->flows = calloc(config->flow_count, sizeof(struct xske_flow *));
	m->order = calloc(config->order_len, sizeof(struct xske_flow *));
	if (!m->flows || !m->order)
		return -ENOMEM;
	for (uint32_t i = 0; i < config->flow_count; i++) {
		m->flows[i] = config->flows[i];
		m->max_bytes = max_u32(m->max_bytes, m->flows[i]->frame_len);
		m->max_descs = max_u32(m->max_descs, m->flows[i]->max_descs);
	}
	for (uint32_t i = 0; i < config->order_len; i++)
		m->order[i] = m->flows[config->order[i]];
	m->flow_count = config->flow_count;
	m->order_len = config->order_len;
	return 0;
}

int xske_mix_create(const struct xske_mix_config *config, struct xske_mix **out)
{
	struct xske_mix *m;

	if (!is_sound(config))
		return -EINVAL;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	if (config->trace) {
		m->trace = config->trace;
		m->max_bytes = trace_max_bytes(m->trace);
		m->max_descs = trace_max_descs(m->trace);
	} else if (take_flows(m, config)) {
		free(m->flows);
		free(m->order);
		free(m);
		return -ENOMEM;
	}
	m->beside = config->beside;
	pace_init(&m->pace, &config->pace);
	m->remaining = config->count ? config->count : UINT64_MAX;
	m->duration_ns = config->duration_ns;
	m->batch = config->batch;
	m->quota_frags = config->quota_frags ? config->quota_frags : UINT32_MAX;
	*out = m;
	return 0;
}

void xske_mix_destroy(struct xske_mix *m)
{
	while (m) {
		struct xske_mix *beside = m->beside;

		for (uint32_t i = 0; i < m->flow_count; i++)
			xske_flow_destroy(m->flows[i]);
		xske_trace_destroy(m->trace);
		free(m->flows);
		free(m->order);
		free(m);
		m = beside;
	}
}

int mix_load(struct xske_mix *m, struct xske_txq *q, uint64_t now)
{
	int err = 0;

	if (m->quota_frags != UINT32_MAX) {
		m->account = txq_open_account(q);
		err = m->account ? 0 : -ENOMEM;
	}
	for (uint32_t i = 0; !err && i < m->flow_count; i++)
		err = flow_load(m->flows[i], q->self);
	if (err)
		mix_unload(m, q);
	pace_start(&m->pace, now);
	m->quiet_since_ns = now;
	return err;
}

void mix_unload(struct xske_mix *m, struct xske_txq *q)
{
	if (m->trace)
		xske_trace_close(m->trace);
	for (uint32_t i = 0; i < m->flow_count; i++)
		flow_unload(m->flows[i], q->self);
	txq_close_account(q, m->account);
	m->account = 0;
}

int xske_mix_has_ended(const struct xske_mix *m)
{
	for (; m; m = m->beside)
		if (!atomic_load_explicit(&m->ended, memory_order_acquire))
			return 0;
	return 1;
}

int xske_mix_error(const struct xske_mix *m)
{
	for (; m; m = m->beside)
		if (m->error)
			return m->error;
	return 0;
}

void mix_shift(struct xske_mix *m, uint64_t ns, uint64_t now)
{
	ns = min_u64(ns, now - m->quiet_since_ns);
	m->pace.origin_ns += ns;
	m->quiet_since_ns += ns;
	if (m->end_ns)
		m->end_ns += ns;
}

/* Descs that the rings and the quota have room for, for up to n packets. *limited: by the quota, so others may go on. */
static uint32_t room_for(const struct xske_mix *m, const struct outlet *o, uint32_t n, bool *limited)
{
	uint32_t room = txq_room(o->q, n * m->max_descs), used = o->q->accounts[m->account].inflight, left;

	*limited = false;
	if (m->quota_frags == UINT32_MAX)
		return room;
	left = m->quota_frags > used ? m->quota_frags - used : 0;
	*limited = left < room && left < n * m->max_descs;
	return min_u32(room, left);
}

/* Of n packets, those that the capture has room for. */
static uint32_t captured(struct outlet *o, uint32_t n, uint32_t max_bytes)
{
	uint32_t most;

	if (likely(!o->capture))
		return n;
	most = capture_room(o->capture, max_bytes);
	o->waits |= most < n;
	return min_u32(n, most);
}

/* Packets of this flow, of n that are due, that this and the capture have room for. */
static uint32_t fitting(const struct xske_flow *f, struct outlet *o, uint32_t n, uint32_t room)
{
	return captured(o, f->max_descs == 1 ? min_u32(n, room) : min_u32(n, room / f->max_descs),
	                f->frame_len);
}

/* n packets were posted: how far apart, and how far from what was asked? */
static void note_gaps(struct xske_mix *m, struct outlet *o, const struct column *col, uint32_t n)
{
	struct xske_gaps *gaps = o->gaps;
	uint64_t gap = o->now_ns - m->quiet_since_ns;

	if (m->has_gap)
		histogram_add(&gaps->post, gap, 1);
	if (n > 1)
		histogram_add(&gaps->post, 0, n - 1);
	if (!pace_is_max(&m->pace)) {
		for (uint32_t i = 0; i < n; i++) {
			double is = i ? 0 : (double)gap, off = is - m->asked_gap_ns;

			if (i || m->has_gap) {
				histogram_add(&gaps->error, (uint64_t)(off < 0 ? -off : off), 1);
				gaps->paced_ns += (uint64_t)is;
				o->asked_ns += m->asked_gap_ns;
			}
			m->asked_gap_ns = (double)col->cost[i] * m->pace.ns_per_unit;
		}
		gaps->asked_ns = (uint64_t)o->asked_ns;
	}
}

static bool is_at_once(const struct xske_mix *m, const struct outlet *o)
{
	return pace_is_max(&m->pace) || o->probing;
}

/* n planned packets were posted, in the tx ring from `slot` on. */
static void account(struct xske_mix *m, struct outlet *o, const struct column *col, uint32_t slot, uint32_t n)
{
	if (!is_at_once(m, o))
		pace_pay(&m->pace, col->len, col->cost, n);
	if (o->gaps)
		note_gaps(m, o, col, n);
	if (likely(!o->probing)) {
		m->quiet_since_ns = o->now_ns;
		m->has_gap = true;
	}
	if (unlikely(o->capture != NULL))
		capture_take(o->capture, o->q, slot, n, o->now_ns);
	if (m->remaining != UINT64_MAX)
		m->remaining -= n;
	if (unlikely(!m->end_ns) && m->duration_ns)
		m->end_ns = o->counted_ns + m->duration_ns;
}

/* The flow whose turn it is, and how many packets in a row are its own. */
static struct xske_flow *whose_turn(const struct xske_mix *m, uint32_t most, uint32_t *n)
{
	if (m->order_len == 1) {
		*n = min_u32(most, FIELD_COLUMN);
		return m->order[0];
	}
	if (likely(m->at + PREFETCH_FLOW < m->order_len)) {
		const struct xske_flow *f = m->order[m->at + PREFETCH_FLOW];

		__builtin_prefetch(f, 1);
		__builtin_prefetch((const char *)f + XSKE_CACHE_LINE, 1);
		flow_prefetch(m->order[m->at + PREFETCH_VARIANTS]);
	}
	*n = 1;
	return m->order[m->at];
}

/* Fewer were posted than are due: for want of room, or by its own quota? */
static void note_shortage(struct outlet *o, bool is_short, bool limited)
{
	o->starved |= is_short && !o->waits && !limited;
	o->limited |= is_short && !o->waits && limited;
}

static uint32_t run_trace(struct xske_mix *m, struct outlet *o, uint32_t most, uint32_t room, bool limited)
{
	struct column *col = &o->column;
	uint32_t posted = 0;

	while (posted < most) {
		uint32_t n = trace_plan(m->trace, col, min_u32(most - posted, FIELD_COLUMN)), due, done;
		uint32_t slot = txq_next_slot(o->q);

		if (unlikely(!n)) {
			o->waits = true; /* for the file */
			if (!is_at_once(m, o))
				pace_wait(&m->pace, o->now_ns);
			break;
		}
		due = is_at_once(m, o) ? n : pace_due(&m->pace, col->len, col->cost, n);
		done = trace_post(m->trace, o->q, captured(o, due, m->max_bytes), &room);
		note_shortage(o, done < due, limited);
		if (done)
			account(m, o, col, slot, done);
		posted += done;
		if (done < n)
			break;
	}
	if (trace_is_over(m->trace))
		m->remaining = 0;
	return posted;
}

uint32_t mix_run(struct xske_mix *m, struct outlet *o, uint32_t limit)
{
	uint32_t most = (uint32_t)min_u64(min_u32(m->batch, limit), m->remaining), posted = 0;
	struct column *col = &o->column;
	bool at_once = is_at_once(m, o);
	uint32_t room;
	bool limited;

	if (!at_once)
		pace_look(&m->pace, o->now_ns);
	room = room_for(m, o, most, &limited);
	o->q->account = m->account;
	if (m->trace)
		posted = run_trace(m, o, most, room, limited);
	while (!m->trace && posted < most) {
		uint32_t n, due, fits, done, slot = txq_next_slot(o->q);
		struct xske_flow *f = whose_turn(m, most - posted, &n);

		flow_plan(f, col, n);
		due = at_once ? n : pace_due(&m->pace, col->len, col->cost, n);
		if (!due)
			break;
		fits = fitting(f, o, due, room);
		done = fits ? flow_post(f, o->q, col, fits, o->tai_ns) : 0;
		room -= done * f->max_descs;
		note_shortage(o, done < due, limited);
		if (done)
			account(m, o, col, slot, done);
		posted += done;
		if (m->order_len > 1 && done && ++m->at == m->order_len)
			m->at = 0;
		if (done < n)
			break;
	}
	o->q->account = 0;
	return posted;
}
