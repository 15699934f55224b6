/* SPDX-License-Identifier: MIT */
/*
 * Two threads, one umem: the owner allocates, clones, releases, parks and reopens its arena while the other
 * thread clones and releases what it is given. Every frag is written by its holder and read by the other, so
 * that a sanitizer sees a recycling that comes too early. Usage: stress OPERATIONS (default 10^8, counted
 * over both threads). Exit code 0 = the audit is clean and all content was right.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "spsc.h"

#define CHUNKS 512u
#define CHUNK_SIZE 2048u
#define HANDED 256u

static struct xske_umem *umem;
static struct spsc to_other, to_owner;
static _Atomic uint32_t done;
static uint64_t operations;

#define CHECK(condition)                                                                                     \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "stress.c:%d: %s\n", __LINE__, #condition);                          \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

static uint32_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*state >> 33);
}

static uint64_t *words(uint64_t addr)
{
	return (uint64_t *)(umem->area + addr);
}

/* Releases whatever the owner gives; sends some of it back as clones. */
static void *other(void *arg)
{
	uint64_t *ops = arg, random = 99;
	uint32_t first, ready;

	for (;;) {
		bool last = atomic_load_explicit(&done, memory_order_acquire);

		ready = spsc_ready(&to_other, &first);
		for (uint32_t i = 0; i < ready; i++) {
			struct xske_desc d = to_other.slots[(first + i) & to_other.mask];
			struct chunk *c = chunk_of(umem, d.addr);

			CHECK(*words(d.addr) == d.addr);
			if (next_random(&random) % 8 == 0) {
				frag_ref(c);
				if (!spsc_push(&to_owner, &d, 1))
					frag_unref(NULL, c);
				++*ops;
			}
			CHECK(*words(d.addr) == d.addr);
			frag_unref(NULL, c);
			++*ops;
		}
		spsc_pop(&to_other, ready);
		if (last && !ready)
			return NULL;
	}
}

static struct xske_arena *open_arena(uint32_t flags)
{
	struct xske_arena_config config = {.quota_chunks = CHUNKS / 2, .flags = flags};
	struct xske_arena *a;

	CHECK(!xske_arena_open(umem, &config, &a));
	CHECK(!xske_arena_enter(a));
	return a;
}

static void close_arena(struct xske_arena *a)
{
	xske_arena_leave(a);
	CHECK(!xske_arena_close(a));
}

static uint64_t take_back(struct xske_arena *self)
{
	uint32_t first, ready = spsc_ready(&to_owner, &first);

	for (uint32_t i = 0; i < ready; i++) {
		struct xske_desc d = to_owner.slots[(first + i) & to_owner.mask];

		CHECK(*words(d.addr) == d.addr);
		frag_unref(self, chunk_of(umem, d.addr));
	}
	spsc_pop(&to_owner, ready);
	return ready;
}

static uint64_t owner(uint64_t target)
{
	/* One arena of each kind; from the loop-owned one only clones are given away. */
	struct xske_arena *arenas[2] = {open_arena(0), open_arena(XSKE_ARENA_LOOP_OWNED)};
	uint64_t kept[2][HANDED] = {{0}}, ops = 0, random = 7;
	uint32_t kept_count[2] = {0, 0};

	while (ops < target) {
		uint32_t r = next_random(&random), kind = r & 1;
		struct xske_arena *a = arenas[kind];
		struct xske_desc d = {.len = 8 + (r >> 8) % 1500};

		if (r % 65536 == 3) {
			xske_arena_park(a);
			ops++;
		} else if (r % 262144 == 5) {
			/* Closing with frags out, here and with the other thread. */
			close_arena(a);
			arenas[kind] = open_arena(kind ? XSKE_ARENA_LOOP_OWNED : 0);
			continue;
		}
		if (kept_count[kind] == HANDED || arena_alloc(a, d.len, &d.addr)) {
			ops += take_back(a);
			while (kept_count[kind] > HANDED / 2) {
				frag_unref(a, chunk_of(umem, kept[kind][--kept_count[kind]]));
				ops++;
			}
			continue;
		}
		*words(d.addr) = d.addr;
		ops++;
		if (r >> 16 & 1) {
			if (kind)
				frag_ref(chunk_of(umem, d.addr));
			if (!spsc_push(&to_other, &d, 1)) {
				frag_unref(a, chunk_of(umem, d.addr));
				ops++;
				if (!kind)
					continue;
			} else if (!kind) {
				continue;
			}
		}
		kept[kind][kept_count[kind]++] = d.addr;
	}
	for (int kind = 0; kind < 2; kind++) {
		while (kept_count[kind])
			frag_unref(arenas[kind], chunk_of(umem, kept[kind][--kept_count[kind]]));
		close_arena(arenas[kind]);
	}
	return ops;
}

int main(int argc, char **argv)
{
	uint64_t target = argc > 1 ? strtoull(argv[1], NULL, 10) : 100000000, other_ops = 0;
	struct xske_umem_config config = {.len = CHUNKS * CHUNK_SIZE, .chunk_size = CHUNK_SIZE};
	struct xske_audit audit;
	pthread_t thread;

	config.area = aligned_alloc(4096, config.len);
	CHECK(config.area && !xske_umem_create(&config, &umem));
	CHECK(spsc_init(&to_other, 1024) && spsc_init(&to_owner, 1024));
	CHECK(!pthread_create(&thread, NULL, other, &other_ops));
	operations = owner(target); /* what the other thread does comes on top */
	atomic_store_explicit(&done, 1, memory_order_release);
	pthread_join(thread, NULL);
	operations += other_ops + take_back(NULL);
	CHECK(!xske_umem_audit(umem, 1, &audit));
	CHECK(audit.pooled == CHUNKS && audit.arenas == 0);
	printf("%llu operations, audit clean\n", (unsigned long long)operations);
	CHECK(operations >= target);
	xske_umem_destroy(umem);
	free(config.area);
	free(to_other.slots);
	free(to_owner.slots);
	return 0;
}
