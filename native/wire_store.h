/* SPDX-License-Identifier: MIT */
/*
 * wire_store.h - frames that wait: a ring of bytes with copies of them, first in, first out, of a bounded size.
 * One thread. A frame that was taken out stays where it is until the store is settled, so that it can be sent
 * from there:
 *
 *     tail ---- taken out, still to be sent ---- next ---- waiting ---- head
 *
 * A frame lies in one piece; what is left at the ring's end before a frame that does not fit there is skipped.
 */
#ifndef XSKE_WIRE_STORE_H
#define XSKE_WIRE_STORE_H

#include <stdbool.h>
#include <stdint.h>

struct wire_frame {
	uint64_t due_ns; /* when it leaves at the latest (held back) or the earliest (delayed) */
	uint64_t number; /* the owner's */
	uint32_t len;
	uint32_t skip; /* no frame: so many bytes to the ring's end */
	uint64_t reserved;
	uint8_t bytes[];
};

struct wire_store {
	uint8_t *ring;
	uint64_t size; /* power of two */
	uint64_t head;
	uint64_t next;
	uint64_t tail;
	uint64_t count; /* waiting */
};

/* 0 or -ENOMEM. Memory is taken from the kernel as it is touched. */
int store_create(struct wire_store *s, uint64_t size);
void store_destroy(struct wire_store *s);

/* A copy of the frame; false when there is no room. */
bool store_put(struct wire_store *s, const uint8_t *bytes, uint32_t len, uint64_t due_ns, uint64_t number);

/* The first that waits, or NULL. */
struct wire_frame *store_first(struct wire_store *s);

/* Takes the first one out. */
void store_take(struct wire_store *s);

/* All that was taken out has been sent. */
static inline void store_settle(struct wire_store *s)
{
	s->tail = s->next;
}

#endif
