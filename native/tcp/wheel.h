/* SPDX-License-Identifier: MIT */
/*
 * wheel.h - a hierarchical timer wheel on a passed-in clock. Intrusive: a timer is its owner's memory, and arming one
 * allocates nothing. One thread.
 *
 * Level k has 64 slots of 64^k ticks each; a timer stands in the level whose span its distance needs, and comes down a
 * level when the time of its slot begins (Varghese and Lauck, 1987). Arming and cancelling are O(1), also again and again,
 * as every ACK does. A bit per slot says whether there is anything, so a clock that jumps costs no walk through empty ones.
 */
#ifndef XSKE_TCP_WHEEL_H
#define XSKE_TCP_WHEEL_H

#include <stdbool.h>
#include <stdint.h>

/* 262 us. A timer is never early, and late by at most one. Lower: more levels to come down for an RTO; higher: RACK's
 * reordering window (a quarter of the round trip, so some 250 us for 1 ms) and tail loss probes would be late by more than
 * they are long. */
#define WHEEL_TICK_NS (1ull << 18)
#define WHEEL_LEVELS                                                                                         \
	6u /* 64^6 ticks: 208 days; what is further stands in the last slot and is looked at again */
#define WHEEL_SLOTS 64u

struct wheel_timer {
	struct wheel_timer *next, **prev; /* prev NULL: not armed */
	uint64_t due_ns;
	uint16_t slot; /* level * WHEEL_SLOTS + slot */
};

struct wheel {
	uint64_t tick; /* all timers of earlier ones have come out */
	uint64_t used[WHEEL_LEVELS];
	struct wheel_timer *slots[WHEEL_LEVELS * WHEEL_SLOTS];
	struct wheel_timer *expired; /* due, and not taken yet */
};

void wheel_init(struct wheel *w, uint64_t now_ns);
/* Again, too. What is due already comes with the next wheel_expire(). */
void wheel_arm(struct wheel *w, struct wheel_timer *t, uint64_t due_ns);
void wheel_cancel(struct wheel *w, struct wheel_timer *t); /* idempotent */
/* Takes one that is due at now_ns off the wheel; NULL: there is none. Called until NULL. */
struct wheel_timer *wheel_expire(struct wheel *w, uint64_t now_ns);
/* When there may be something to do: not before any timer's time plus a tick. UINT64_MAX: nothing is armed. */
uint64_t wheel_next_ns(const struct wheel *w);

static inline bool wheel_is_armed(const struct wheel_timer *t)
{
	return t->prev;
}

#endif
