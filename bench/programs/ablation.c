/* SPDX-License-Identifier: MIT */
/*
 * What each idea of the allocator is worth, without a kernel: every arm beside its opposite, ns per packet. Prints
 * one JSON object. Usage: ablation [ROUNDS]
 */
#include <stdlib.h>
#include <string.h>

#include "path.h"

#define SMALL 64u
#define LARGE 1514u
#define LIVE 1024u

/* Far beyond the caches: what a sender walks through that never uses the hottest chunk again. */
#define CIRCLE_BYTES (64u << 20)

static unsigned char packet[MAX_FRAME];

static double recycled(void)
{
	return packet_path(&(struct path_options){.frame_len = SMALL, .fields = 1});
}

static double not_recycled(void)
{
	return packet_path(&(struct path_options){.frame_len = SMALL, .fields = 1, .give_back = true});
}

/* LIVE frags of len bytes, each written with a small packet; completed in the order of posting. */
static double small_packets_in(uint32_t len)
{
	struct xske_arena *a = open_arena(XSKE_ARENA_LOOP_OWNED);
	uint64_t live[LIVE];
	double start;

	for (uint32_t i = 0; i < LIVE; i++)
		if (arena_alloc(a, len, &live[i]))
			abort();
	start = now_ns();
	for (uint32_t i = 0; i < OPS; i++) {
		uint64_t *at = &live[i % LIVE];

		frag_unref(a, chunk_of(umem, *at));
		if (arena_alloc(a, len, at))
			abort();
		memcpy(umem->area + *at, packet, SMALL);
	}
	start = (now_ns() - start) / OPS;
	for (uint32_t i = 0; i < LIVE; i++)
		frag_unref(a, chunk_of(umem, live[i]));
	close_arena(a);
	return start;
}

static double packed(void)
{
	return small_packets_in(SMALL);
}

static double chunk_per_packet(void)
{
	return small_packets_in(CHUNK);
}

/* A retransmission, say: the same bytes once more. */
static double again(bool copy)
{
	struct xske_arena *a = open_arena(0);
	uint64_t original, other;
	double start;

	if (arena_alloc(a, LARGE, &original))
		abort();
	start = now_ns();
	for (uint32_t i = 0; i < OPS; i++) {
		other = original;
		if (!copy) {
			frag_ref(chunk_of(umem, original));
		} else {
			if (arena_alloc(a, LARGE, &other))
				abort();
			memcpy(umem->area + other, umem->area + original, LARGE);
		}
		frag_unref(a, chunk_of(umem, other));
	}
	start = (now_ns() - start) / OPS;
	frag_unref(a, chunk_of(umem, original));
	close_arena(a);
	return start;
}

static double cloned(void)
{
	return again(false);
}

static double copied(void)
{
	return again(true);
}

static double template_1514(void)
{
	return packet_path(&(struct path_options){.frame_len = LARGE});
}

static double copies_1514(void)
{
	return packet_path(&(struct path_options){.frame_len = LARGE, .fields = 1});
}

/* Writing packets into the chunk that was freed last, or into memory used in turn. */
static double written_hot(void)
{
	struct xske_arena *a = open_arena(XSKE_ARENA_LOOP_OWNED);
	double start = now_ns();
	uint64_t addr;

	for (uint32_t i = 0; i < OPS; i++) {
		if (arena_alloc(a, CHUNK, &addr))
			abort();
		memcpy(umem->area + addr, packet, LARGE);
		frag_unref(a, chunk_of(umem, addr));
	}
	start = (now_ns() - start) / OPS;
	close_arena(a);
	return start;
}

static double written_in_a_circle(void)
{
	double start = now_ns();

	for (uint32_t i = 0; i < OPS; i++)
		memcpy(umem->area + (uint64_t)i * CHUNK % CIRCLE_BYTES, packet, LARGE);
	return (now_ns() - start) / OPS;
}

int main(int argc, char **argv)
{
	static const struct arm arms[] = {
	        {"recycled", recycled},
	        {"not_recycled", not_recycled},
	        {"packed", packed},
	        {"chunk_per_packet", chunk_per_packet},
	        {"cloned", cloned},
	        {"copied", copied},
	        {"template_1514", template_1514},
	        {"copies_1514", copies_1514},
	        {"written_hot", written_hot},
	        {"written_in_a_circle", written_in_a_circle},
	};

	open_umem(CIRCLE_BYTES);
	run_rounds(arms, sizeof(arms) / sizeof(*arms), argc > 1 ? (uint32_t)atoi(argv[1]) : 11);
	return 0;
}
