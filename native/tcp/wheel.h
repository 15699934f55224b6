/* SPDX-License-Identifier: MIT */
/*
 * wheel.h - timers of one thread on a clock that is passed in, by the hierarchical wheel of Varghese and
 * Lauck ("Hashed and hierarchical timing wheels", SOSP 1987, scheme 7). A timer is a part of its owner's
 * struct, all zero before it is first armed; the wheel allocates nothing.
 *
 * Promises, by the clock that is passed in:
 * - A timer never expires before due_ns. It is late by at most one tick, counted from due_ns or, when that
 *   was already over, from the wheel_expire() before it was armed.
 * - One that is armed to a time that is over expires with the next tick, not in the same loop of
 *   wheel_expire(): such a loop ends, whatever is armed in it.
 * - All that is due at once comes in no particular order.
 * - The clock may jump ahead by any time: the cost is that of the timers, not of the time. When it goes back,
 *   nothing happens until it is where it was.
 */
#ifndef XSKE_TCP_WHEEL_H
#define XSKE_TCP_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 262 us. What is timed here: a RACK reordering window, min RTT / 4 (RFC 8985, 6.2), so 250 us for the 1 ms
 * of a city; a tail loss probe, 2 SRTT + 2 ms and more; an RTO of 200 ms and more. Longer: RACK waits
 * noticeably longer than it has to. Shorter: a loop that could sleep wakes for timers that it could have
 * served together, thousands of times a second. */
#define WHEEL_TICK_SHIFT 18u
#define WHEEL_TICK_NS (1ull << WHEEL_TICK_SHIFT)

#define WHEEL_SLOT_BITS 6u /* a level's slots are the bits of one word */
#define WHEEL_SLOTS (1u << WHEEL_SLOT_BITS)
#define WHEEL_LEVELS 8u /* 48 bits: all the ticks of a 64-bit clock, so that no time is too far */

struct wheel_timer {
	struct wheel_timer *next, **prev; /* prev NULL: not armed */
	uint64_t due_ns;
};

/*
 * With ticks in digits of 6 bits, a timer stands on the level of the highest digit in which its tick is not
 * that of `tick`, in the slot of that digit. So within a level no slot is behind, and nothing in a slot is
 * due before the slot's first tick. A slot that is reached gives its timers back or to the levels below.
 */
struct wheel {
	uint64_t tick;               /* up to which slots are empty */
	uint64_t now_tick;           /* of the latest wheel_expire() */
	uint64_t used[WHEEL_LEVELS]; /* bit: its slot holds timers */
	struct wheel_timer *slots[WHEEL_LEVELS][WHEEL_SLOTS];
};

void wheel_init(struct wheel *w, uint64_t now_ns);

/* Also for one that is armed. To a later time it only writes due_ns: the timer keeps its slot and is moved
 * when that comes, which makes an RTO that every ACK pushes back one store an ACK and one move an RTO. To a
 * time that is over: t->due_ns says the one that it is put off to. */
void wheel_arm(struct wheel *w, struct wheel_timer *t, uint64_t due_ns);

/* Nothing for one that is not armed. */
void wheel_cancel(struct wheel *w, struct wheel_timer *t);

static inline bool wheel_is_armed(const struct wheel_timer *t)
{
	return t->prev != NULL;
}

/* Takes one timer that is due off the wheel; NULL: there is none. Callers loop until NULL, then
 * wheel_next_ns() is later than now_ns. */
struct wheel_timer *wheel_expire(struct wheel *w, uint64_t now_ns);

/* When to call wheel_expire() again: not later than the earliest due_ns + WHEEL_TICK_NS. It may be earlier,
 * and then nothing is due yet, at most once a level and a timer's push back. UINT64_MAX: nothing is armed. */
uint64_t wheel_next_ns(const struct wheel *w);

#endif
