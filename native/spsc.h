/* SPDX-License-Identifier: MIT */
/*
 * spsc.h - a ring of 16-byte messages between two threads of this process: one producer (who writes head),
 * one consumer (who writes tail). The only such ring: commands and submit rings are both made of it. Each loads his own
 * index relaxed and stores it with a release behind what he did to the slots; the other's load acquires it. Nothing here is
 * a store and then a load, so nothing is seq_cst: who must also wake somebody does that behind it (loop_wake()).
 * Models: command_ring.pml, submit_ring.pml.
 */
#ifndef XSKE_SPSC_H
#define XSKE_SPSC_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "util.h"
#include "xske.h"

struct spsc {
	alignas(XSKE_CACHE_LINE) _Atomic uint32_t head;
	alignas(XSKE_CACHE_LINE) _Atomic uint32_t tail;
	alignas(XSKE_CACHE_LINE) uint32_t mask;
	struct xske_desc *slots;
};

static inline bool spsc_init(struct spsc *s, uint32_t entries)
{
	atomic_init(&s->head, 0);
	atomic_init(&s->tail, 0);
	s->mask = entries - 1;
	s->slots = calloc(entries, sizeof(*s->slots));
	return s->slots != NULL;
}

/* Free slots. Producer. */
static inline uint32_t spsc_room(const struct spsc *s)
{
	/* Acquire pairs with pop's release: the slots are read out. */
	return s->mask + 1 -
	       (atomic_load_explicit(&s->head, memory_order_relaxed) -
	        atomic_load_explicit(&s->tail, memory_order_acquire));
}

/* One, for which there is room. Producer. */
static inline void spsc_put(struct spsc *s, const struct xske_desc *from)
{
	uint32_t head = atomic_load_explicit(&s->head, memory_order_relaxed);

	s->slots[head & s->mask] = *from;
	atomic_store_explicit(&s->head, head + 1, memory_order_release);
}

/* All or none. Producer. */
static inline bool spsc_push(struct spsc *s, const struct xske_desc *from, uint32_t n)
{
	uint32_t head = atomic_load_explicit(&s->head, memory_order_relaxed);

	if (n > spsc_room(s))
		return false;
	for (uint32_t i = 0; i < n; i++)
		s->slots[(head + i) & s->mask] = from[i];
	atomic_store_explicit(&s->head, head + n, memory_order_release);
	return true;
}

/* Slots ready to read from *first on. Consumer. */
static inline uint32_t spsc_ready(const struct spsc *s, uint32_t *first)
{
	*first = atomic_load_explicit(&s->tail, memory_order_relaxed);
	return atomic_load_explicit(&s->head, memory_order_acquire) - *first;
}

static inline void spsc_pop(struct spsc *s, uint32_t n)
{
	uint32_t tail = atomic_load_explicit(&s->tail, memory_order_relaxed);

	atomic_store_explicit(&s->tail, tail + n, memory_order_release);
}

#endif
