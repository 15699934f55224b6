/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "util.h"
#include "wire_store.h"

int store_create(struct wire_store *s, uint64_t size)
{
	void *ring =
	        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (ring == MAP_FAILED)
		return -ENOMEM;
	*s = (struct wire_store){.ring = ring, .size = size};
	return 0;
}

void store_destroy(struct wire_store *s)
{
	if (s->ring)
		munmap(s->ring, s->size);
	s->ring = NULL;
}

static struct wire_frame *at(const struct wire_store *s, uint64_t offset)
{
	return (struct wire_frame *)(s->ring + (offset & (s->size - 1)));
}

/* A multiple of the head's size, so that a head always fits before the ring's end. */
static uint64_t room_for(uint32_t len)
{
	return sizeof(struct wire_frame) + align_up(len, (uint32_t)sizeof(struct wire_frame));
}

bool store_put(struct wire_store *s, const uint8_t *bytes, uint32_t len, uint64_t due_ns, uint64_t number)
{
	uint64_t need = room_for(len), left = s->size - (s->head & (s->size - 1));
	uint64_t skip = left < need ? left : 0;
	struct wire_frame *f;

	if (s->size - (s->head - s->tail) < skip + need)
		return false;
	if (skip) {
		at(s, s->head)->skip = (uint32_t)skip;
		s->head += skip;
	}
	f = at(s, s->head);
	*f = (struct wire_frame){.due_ns = due_ns, .number = number, .len = len};
	memcpy(f->bytes, bytes, len);
	s->head += need;
	s->count++;
	return true;
}

struct wire_frame *store_first(struct wire_store *s)
{
	if (!s->count)
		return NULL;
	if (at(s, s->next)->skip)
		s->next += at(s, s->next)->skip;
	return at(s, s->next);
}

void store_take(struct wire_store *s)
{
	s->next += room_for(store_first(s)->len);
	s->count--;
}
