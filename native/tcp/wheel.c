/* SPDX-License-Identifier: MIT */
#include "tcp/wheel.h"
#include "util.h"

static uint32_t shift_of(uint32_t level)
{
	return level * WHEEL_SLOT_BITS;
}

/* The first tick that begins when t is due: not the one it is due in, which began before. */
static uint64_t due_tick(const struct wheel_timer *t)
{
	return (t->due_ns >> WHEEL_TICK_SHIFT) + !!(t->due_ns & (WHEEL_TICK_NS - 1));
}

void wheel_init(struct wheel *w, uint64_t now_ns)
{
	*w = (struct wheel){.tick = now_ns >> WHEEL_TICK_SHIFT, .now_tick = now_ns >> WHEEL_TICK_SHIFT};
}

static void take_off(struct wheel *w, struct wheel_timer *t)
{
	uintptr_t offset = (uintptr_t)t->prev - (uintptr_t)w->slots;

	*t->prev = t->next;
	if (t->next)
		t->next->prev = t->prev;
	else if (offset < sizeof(w->slots)) { /* the only one in its slot */
		uint64_t slot = offset / sizeof(w->slots[0][0]);

		w->used[slot / WHEEL_SLOTS] &= ~(1ull << slot % WHEEL_SLOTS);
	}
	t->prev = NULL;
}

/* tick is after w->tick. */
static void put_on(struct wheel *w, struct wheel_timer *t, uint64_t tick)
{
	uint32_t level = (63 - (uint32_t)__builtin_clzll(tick ^ w->tick)) / WHEEL_SLOT_BITS;
	uint32_t slot = tick >> shift_of(level) & (WHEEL_SLOTS - 1);
	struct wheel_timer **head = &w->slots[level][slot];

	t->next = *head;
	t->prev = head;
	if (t->next)
		t->next->prev = &t->next;
	*head = t;
	w->used[level] |= 1ull << slot;
}

void wheel_arm(struct wheel *w, struct wheel_timer *t, uint64_t due_ns)
{
	uint64_t soonest_ns = w->now_tick << WHEEL_TICK_SHIFT | (WHEEL_TICK_NS - 1);

	if (wheel_is_armed(t)) {
		if (likely(due_ns >= t->due_ns)) {
			t->due_ns = due_ns;
			return;
		}
		take_off(w, t);
	}
	/* With the next tick at the earliest: a loop of wheel_expire() must not find it. */
	t->due_ns = due_ns > soonest_ns ? due_ns : soonest_ns;
	put_on(w, t, due_tick(t));
}

void wheel_cancel(struct wheel *w, struct wheel_timer *t)
{
	if (wheel_is_armed(t))
		take_off(w, t);
}

/* The slot that begins first, and when; UINT64_MAX: all are empty. */
static uint64_t first_slot(const struct wheel *w, struct wheel_timer *const **slot)
{
	uint64_t first = UINT64_MAX;

	*slot = NULL;
	for (uint32_t level = 0; level < WHEEL_LEVELS; level++) {
		uint64_t at, begins;

		if (!w->used[level])
			continue;
		at = (uint64_t)__builtin_ctzll(w->used[level]);
		begins = ((w->tick >> shift_of(level) & ~(uint64_t)(WHEEL_SLOTS - 1)) | at)
		         << shift_of(level);
		if (begins < first) {
			first = begins;
			*slot = &w->slots[level][at];
		}
	}
	return first;
}

struct wheel_timer *wheel_expire(struct wheel *w, uint64_t now_ns)
{
	uint64_t begins, tick;

	if (now_ns >> WHEEL_TICK_SHIFT > w->now_tick)
		w->now_tick = now_ns >> WHEEL_TICK_SHIFT;
	for (;;) {
		struct wheel_timer *const *slot;
		struct wheel_timer *t;

		begins = first_slot(w, &slot);
		if (begins > w->now_tick)
			break;
		/* A slot above level 0 is emptied over several turns; what is put on meanwhile stands on lower
		 * levels. */
		if (begins > w->tick)
			w->tick = begins;
		t = *slot;
		take_off(w, t);
		tick = due_tick(t);
		if (tick <= w->now_tick)
			return t;
		put_on(w, t, tick);
	}
	w->tick = w->now_tick;
	return NULL;
}

uint64_t wheel_next_ns(const struct wheel *w)
{
	struct wheel_timer *const *slot;
	uint64_t begins = first_slot(w, &slot);

	return begins >> (64 - WHEEL_TICK_SHIFT) ? UINT64_MAX : begins << WHEEL_TICK_SHIFT;
}
