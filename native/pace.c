/* SPDX-License-Identifier: MIT */
#include <math.h>

#include "field.h"
#include "pace.h"

/* Before `paid` could overflow it is set back by whole periods, which is exact. */
#define REBASE_UNITS (1ull << 48)

void pace_init(struct pace *p, const struct xske_pace_config *config)
{
	*p = (struct pace){.config = *config, .paid = config->first_units};
	p->constant = !config->byte_units && !config->burst && !config->poisson && !config->recorded;
	if (config->rate_units)
		p->ns_per_unit = (double)config->period_ns / (double)config->rate_units;
}

void pace_start(struct pace *p, uint64_t now)
{
	p->origin_ns = now;
}

void pace_change(struct pace *p, const struct xske_pace_config *config, uint64_t now)
{
	uint64_t packets = p->packets;

	pace_init(p, config);
	pace_start(p, now);
	p->packets = packets;
}

void pace_look(struct pace *p, uint64_t now)
{
	const struct xske_pace_config *c = &p->config;
	uint64_t next;

	if (pace_is_max(p))
		return;
	if (unlikely(p->paid > REBASE_UNITS && p->paid > c->rate_units)) {
		uint64_t periods = p->paid / c->rate_units;

		p->paid -= periods * c->rate_units;
		p->origin_ns += periods * c->period_ns;
	}
	next = pace_next_ns(p);
	if (unlikely(now > next && now - next > PACE_MAX_LAG_NS))
		p->origin_ns += now - next - PACE_MAX_LAG_NS;
	p->allowed =
	        now < p->origin_ns
	                ? 0
	                : (uint64_t)((unsigned __int128)(now - p->origin_ns) * c->rate_units / c->period_ns);
}

void pace_wait(struct pace *p, uint64_t now)
{
	uint64_t next = pace_next_ns(p);

	if (now > next)
		p->origin_ns += now - next;
}

static uint64_t own_units(const struct pace *p, uint32_t len, uint64_t packet)
{
	const struct xske_pace_config *c = &p->config;
	uint64_t wire = (len < c->min_bytes ? c->min_bytes : len) + c->overhead_bytes;
	uint64_t units = c->packet_units + c->byte_units * wire;

	if (c->poisson) {
		/* 53 random bits above 0 and up to 1: the gaps are exponential with mean 1 */
		double u = ((double)(field_random(c->key, packet) >> 11) + 1) * 0x1p-53;

		return (uint64_t)((double)units * -log(u));
	}
	return units;
}

uint32_t pace_due(const struct pace *p, const uint32_t *len, uint64_t *cost, uint32_t n)
{
	const struct xske_pace_config *c = &p->config;
	uint64_t paid = p->paid, held = p->held, own;

	if (p->allowed < paid)
		return 0;
	if (p->constant) {
		uint64_t due = c->packet_units ? (p->allowed - paid) / c->packet_units + 1 : n;

		for (uint32_t i = 0; i < n; i++)
			cost[i] = c->packet_units;
		return (uint32_t)min_u64(due, n);
	}
	for (uint32_t i = 0; i < n; i++) {
		bool last = c->burst && (p->packets + i) % c->burst == c->burst - 1;

		if (paid > p->allowed)
			return i;
		own = c->recorded ? cost[i] : own_units(p, len[i], p->packets + i);
		cost[i] = own;
		if (c->burst && c->burst_gap_units)
			cost[i] = last ? c->burst_gap_units : own;
		else if (c->burst) {
			held += own;
			cost[i] = last ? held : 0;
			held = last ? 0 : held;
		}
		paid += cost[i];
	}
	return n;
}

void pace_pay(struct pace *p, const uint32_t *len, const uint64_t *cost, uint32_t n)
{
	const struct xske_pace_config *c = &p->config;

	for (uint32_t i = 0; i < n; i++) {
		p->paid += cost[i];
		if (c->burst && !c->burst_gap_units)
			p->held = cost[i] ? 0 : p->held + own_units(p, len[i], p->packets + i);
	}
	p->packets += n;
}
