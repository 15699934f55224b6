/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "tcp.h"

#define FIRST_ENTRIES 64u
/* Of either ring. A window of 64 MiB in segments of 1 KiB; with segments of one byte it bounds what a connection costs
 * (2 MiB), and the rest waits in the submit ring. Higher: more of the loop's memory for the same. */
#define MOST_ENTRIES 65536u

static bool grow(void **ring, uint32_t *mask, uint32_t head, uint32_t tail, size_t size)
{
	uint32_t entries = *ring ? 2 * (*mask + 1) : FIRST_ENTRIES;
	uint8_t *bigger;

	if (entries > MOST_ENTRIES)
		return false;
	bigger = malloc(entries * size);
	if (!bigger)
		return false;
	for (uint32_t i = head; i != tail; i++)
		memcpy(bigger + (i & (entries - 1)) * size, (uint8_t *)*ring + (i & *mask) * size, size);
	free(*ring);
	*ring = bigger;
	*mask = entries - 1;
	return true;
}

/* ---- blocks -------------------------------------------------------------------------------------- */

/* Room for n more; as many as there is memory for. */
static uint32_t reserve(void **ring, uint32_t *mask, uint32_t head, uint32_t tail, uint32_t n, size_t size)
{
	while (n && (!*ring || *mask + 1 - (tail - head) < n))
		if (!grow(ring, mask, head, tail, size))
			break;
	return *ring ? min_u32(n, *mask + 1 - (tail - head)) : 0;
}

uint32_t blocks_push(struct xske_tcp_conn *c, const struct xske_desc *slots, uint32_t n)
{
	struct blocks *b = &c->blocks;
	void *ring = b->ring;
	uint32_t seq = c->snd_end;

	n = reserve(&ring, &b->mask, b->head, b->tail, n, sizeof(*b->ring));
	b->ring = ring;
	for (uint32_t i = 0; i < n; i++) {
		b->ring[(b->tail + i) & b->mask] = (struct block){
		        .addr = slots[i].addr, .seq = seq, .len = slots[i].len, .sum = slots[i].options};
		seq += slots[i].len;
	}
	b->tail += n;
	c->snd_end = seq;
	return n;
}

static bool is_in(const struct blocks *b, uint32_t index, uint32_t seq)
{
	const struct block *at;

	if (index - b->head >= b->tail - b->head)
		return false;
	at = &b->ring[index & b->mask];
	return seq - at->seq < at->len;
}

const struct block *blocks_find(const struct xske_tcp_conn *c, uint32_t seq, uint32_t *offset,
                                uint32_t *index)
{
	const struct blocks *b = &c->blocks;
	uint32_t low = 0, high = b->tail - b->head;

	for (uint32_t i = b->latest; i != b->latest + 2; i++) {
		if (is_in(b, i, seq)) {
			*index = i;
			*offset = seq - b->ring[i & b->mask].seq;
			return &b->ring[i & b->mask];
		}
	}
	/* The first that ends behind seq. */
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct block *at = &b->ring[(b->head + middle) & b->mask];

		if (seq_after(at->seq + at->len, seq))
			high = middle;
		else
			low = middle + 1;
	}
	if (low == b->tail - b->head)
		return NULL;
	*index = b->head + low;
	*offset = seq - b->ring[*index & b->mask].seq;
	return &b->ring[*index & b->mask];
}

static void drop(struct xske_tcp_conn *c, const struct block *b)
{
	struct xske_txq *q = c->tcp->loop->txq;

	if (frag_unref(q->self, chunk_of(q->umem, b->addr)))
		q->owner_waits = true;
}

void blocks_acked(struct xske_tcp_conn *c, uint32_t upto)
{
	struct blocks *b = &c->blocks;

	while (b->head != b->tail) {
		const struct block *at = &b->ring[b->head & b->mask];

		if (seq_after(at->seq + at->len, upto))
			return;
		drop(c, at);
		b->head++;
	}
}

/* ---- segments ------------------------------------------------------------------------------------ */

bool sents_full(const struct xske_tcp_conn *c)
{
	return sents_count(c) >= MOST_ENTRIES;
}

uint32_t sents_reserve(struct xske_tcp_conn *c, uint32_t n)
{
	struct sents *s = &c->sents;
	void *ring = s->ring;

	n = reserve(&ring, &s->mask, s->head, s->tail, n, sizeof(*s->ring));
	s->ring = ring;
	return n;
}

struct sent *sents_push(struct xske_tcp_conn *c)
{
	return sents_reserve(c, 1) ? &c->sents.ring[c->sents.tail++ & c->sents.mask] : NULL;
}

uint32_t sents_find(const struct xske_tcp_conn *c, uint32_t seq)
{
	uint32_t low = 0, high = sents_count(c);

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct sent *s = sents_at(c, middle);

		if (seq_after(s->seq + s->len, seq))
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* Its FIN goes with the last part. */
static bool split_one(struct xske_tcp_conn *c, struct sent s, uint32_t most)
{
	uint32_t payload = s.len - !!(s.flags & SENT_FIN);

	while (payload > most) {
		struct sent *part = sents_push(c);

		if (!part)
			return false;
		*part = s;
		part->len = most;
		part->flags &= ~SENT_FIN;
		s.seq += most;
		s.len -= most;
		payload -= most;
	}
	if (s.len) {
		struct sent *rest = sents_push(c);

		if (!rest)
			return false;
		*rest = s;
	}
	return true;
}

bool sents_split(struct xske_tcp_conn *c, uint32_t most)
{
	struct sents old = c->sents;
	bool done = true;

	c->sents = (struct sents){0};
	for (uint32_t i = old.head; done && i != old.tail; i++)
		done = split_one(c, old.ring[i & old.mask], most);
	free(old.ring);
	return done;
}

bool sents_cut(struct xske_tcp_conn *c, uint32_t index, uint32_t len)
{
	struct sent *s, *rest;

	if (!sents_push(c))
		return false;
	for (uint32_t i = sents_count(c) - 1; i > index + 1; i--)
		*sents_at(c, i) = *sents_at(c, i - 1);
	s = sents_at(c, index);
	rest = sents_at(c, index + 1);
	*rest = *s;
	rest->seq += len;
	rest->len -= len;
	s->len = len;
	s->flags &= ~SENT_FIN;
	return true;
}

void sendq_free(struct xske_tcp_conn *c)
{
	struct blocks *b = &c->blocks;

	for (; b->head != b->tail; b->head++)
		drop(c, &b->ring[b->head & b->mask]);
	free(b->ring);
	free(c->sents.ring);
	c->blocks = (struct blocks){0};
	c->sents = (struct sents){0};
	c->sacked_bytes = c->lost_bytes = 0;
}
