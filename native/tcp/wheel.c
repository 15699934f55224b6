/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "wheel.h"

#define SLOT_BITS 6u
#define EXPIRED UINT16_MAX

void wheel_init(struct wheel *w, uint64_t now_ns)
{
	memset(w, 0, sizeof(*w));
	w->tick = now_ns / WHEEL_TICK_NS;
}

static void link_into(struct wheel_timer **list, struct wheel_timer *t)
{
	t->next = *list;
	t->prev = list;
	if (t->next)
		t->next->prev = &t->next;
	*list = t;
}

/* The first tick at which it may come out: rounded up, so that none is early. */
static uint64_t due_tick(const struct wheel_timer *t)
{
	return t->due_ns / WHEEL_TICK_NS + !!(t->due_ns % WHEEL_TICK_NS);
}

/* By the highest bit in which its tick differs from now: it comes down, or out, when that part of the clock gets there. */
static void place(struct wheel *w, struct wheel_timer *t)
{
	uint64_t tick = due_tick(t);
	uint32_t level, slot;

	if (tick <= w->tick) {
		t->slot = EXPIRED;
		link_into(&w->expired, t);
		return;
	}
	level = (63 - (uint32_t)__builtin_clzll(tick ^ w->tick)) / SLOT_BITS;
	if (level >= WHEEL_LEVELS) { /* to be placed again when the last level has gone round */
		level = WHEEL_LEVELS - 1;
		slot = (uint32_t)(w->tick >> SLOT_BITS * level) - 1;
	} else {
		slot = (uint32_t)(tick >> SLOT_BITS * level);
	}
	slot &= WHEEL_SLOTS - 1;
	t->slot = (uint16_t)(level * WHEEL_SLOTS + slot);
	w->used[level] |= 1ull << slot;
	link_into(&w->slots[t->slot], t);
}

void wheel_cancel(struct wheel *w, struct wheel_timer *t)
{
	if (!t->prev)
		return;
	*t->prev = t->next;
	if (t->next)
		t->next->prev = t->prev;
	t->prev = NULL;
	if (t->slot != EXPIRED && !w->slots[t->slot])
		w->used[t->slot / WHEEL_SLOTS] &= ~(1ull << t->slot % WHEEL_SLOTS);
}

void wheel_arm(struct wheel *w, struct wheel_timer *t, uint64_t due_ns)
{
	wheel_cancel(w, t);
	t->due_ns = due_ns;
	place(w, t);
}

/* The tick at which the next slot begins that holds anything; UINT64_MAX: none. Slots behind the clock's own belong to
 * the level's next round. */
static uint64_t next_tick(const struct wheel *w)
{
	uint64_t best = UINT64_MAX;

	for (uint32_t level = 0; level < WHEEL_LEVELS; level++) {
		uint32_t shift = SLOT_BITS * level, own = (uint32_t)(w->tick >> shift) & (WHEEL_SLOTS - 1);
		uint64_t round = w->tick >> shift & ~(uint64_t)(WHEEL_SLOTS - 1), ahead, tick;

		if (!w->used[level])
			continue;
		ahead = own == WHEEL_SLOTS - 1 ? 0 : w->used[level] & (~0ull << (own + 1));
		if (ahead)
			tick = (round + (uint32_t)__builtin_ctzll(ahead)) << shift;
		else
			tick = (round + WHEEL_SLOTS + (uint32_t)__builtin_ctzll(w->used[level])) << shift;
		best = tick < best ? tick : best;
	}
	return best;
}

/* Its timers come out, or down. */
static void empty(struct wheel *w, uint32_t level)
{
	uint32_t slot = (uint32_t)(w->tick >> SLOT_BITS * level) & (WHEEL_SLOTS - 1);
	struct wheel_timer **list = &w->slots[level * WHEEL_SLOTS + slot], *t = *list, *next;

	*list = NULL;
	w->used[level] &= ~(1ull << slot);
	for (; t; t = next) {
		next = t->next;
		place(w, t);
	}
}

struct wheel_timer *wheel_expire(struct wheel *w, uint64_t now_ns)
{
	uint64_t now = now_ns / WHEEL_TICK_NS;
	struct wheel_timer *t;

	while (!w->expired && w->tick < now) {
		uint64_t next = next_tick(w);

		w->tick = next < now ? next : now;
		if (next > now)
			break;
		/* From above: what comes down may be due at once. */
		for (uint32_t level = WHEEL_LEVELS; level--;)
			if (!(w->tick & ((1ull << SLOT_BITS * level) - 1)))
				empty(w, level);
	}
	t = w->expired;
	if (t)
		wheel_cancel(w, t);
	return t;
}

uint64_t wheel_next_ns(const struct wheel *w)
{
	uint64_t tick = w->expired ? w->tick : next_tick(w);

	return tick > UINT64_MAX / WHEEL_TICK_NS ? UINT64_MAX : tick * WHEEL_TICK_NS;
}
