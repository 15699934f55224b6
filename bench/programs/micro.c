/* SPDX-License-Identifier: MIT */
/*
 * Micro benchmark: ns per operation, the median over rounds, everything in one run because only the ratios
 * carry over to another machine. Prints one JSON object. Usage: micro [ROUNDS]
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "edit.h"
#include "path.h"
#include "spsc.h"

#define FRAME 64u

static double atomic_add(void)
{
	static _Atomic uint32_t word;
	double start = now_ns();

	for (uint32_t i = 0; i < OPS; i++)
		atomic_fetch_add_explicit(&word, 1, memory_order_relaxed);
	return (now_ns() - start) / OPS;
}

/* `window` frags live at a time; released in the order of allocation, as completions come. */
static double alloc_free(uint32_t flags, uint32_t len, uint32_t window)
{
	struct xske_arena *a = open_arena(flags);
	uint64_t *live = calloc(window, sizeof(*live));
	double start;

	for (uint32_t i = 0; i < window; i++)
		if (arena_alloc(a, len, &live[i]))
			abort();
	start = now_ns();
	for (uint32_t i = 0, at = 0; i < OPS; i++) {
		frag_unref(a, chunk_of(umem, live[at]));
		if (arena_alloc(a, len, &live[at]))
			abort();
		at = at + 1 == window ? 0 : at + 1;
	}
	start = (now_ns() - start) / OPS;
	for (uint32_t i = 0; i < window; i++)
		frag_unref(a, chunk_of(umem, live[i]));
	close_arena(a);
	free(live);
	return start;
}

static double alloc_free_loop_owned(void)
{
	return alloc_free(XSKE_ARENA_LOOP_OWNED, FRAME, 1);
}

static double alloc_free_application(void)
{
	return alloc_free(0, FRAME, 1);
}

static double alloc_free_window(void)
{
	return alloc_free(XSKE_ARENA_LOOP_OWNED, FRAME, INFLIGHT);
}

static double alloc_free_window_1514(void)
{
	return alloc_free(XSKE_ARENA_LOOP_OWNED, 1514, 256);
}

/* ---- another thread returns what this one allocates ---------------------------------------------- */

static struct spsc gone;

static void *return_all(void *arg)
{
	uint32_t first, ready, left = OPS;

	(void)arg;
	while (left) {
		ready = spsc_ready(&gone, &first);
		for (uint32_t i = 0; i < ready; i++)
			frag_unref(NULL, chunk_of(umem, gone.slots[(first + i) & gone.mask].addr));
		if (ready)
			spsc_pop(&gone, ready);
		left -= ready;
	}
	return NULL;
}

/* Per frag: alloc here, hand over in batches, release there, chunk back over the return list. */
static double cross_thread_return(void)
{
	struct xske_arena *a = open_arena(0);
	struct xske_desc batch[BATCH];
	pthread_t thread;
	double start;

	pthread_create(&thread, NULL, return_all, NULL);
	start = now_ns();
	for (uint32_t i = 0; i < OPS; i += BATCH) {
		for (uint32_t j = 0; j < BATCH; j++)
			while (arena_alloc(a, FRAME, &batch[j].addr))
				;
		while (!spsc_push(&gone, batch, BATCH))
			;
	}
	pthread_join(thread, NULL);
	start = (now_ns() - start) / OPS;
	close_arena(a);
	return start;
}

static double path_one_field(void)
{
	return packet_path(&(struct path_options){.frame_len = FRAME, .fields = 1});
}

static double path_three_fields(void)
{
	return packet_path(&(struct path_options){.frame_len = FRAME, .fields = 3});
}

static double path_three_random(void)
{
	return packet_path(&(struct path_options){.frame_len = FRAME, .fields = 3, .lab = true});
}

static double path_three_fields_1514(void)
{
	return packet_path(&(struct path_options){.frame_len = 1514, .fields = 3});
}

static double path_imix(void)
{
	return packet_path(&(struct path_options){.imix = true});
}

static double path_imix_flows(void)
{
	return packet_path(&(struct path_options){.imix = true, .flows = 10000});
}

static double path_imix_tuples(void)
{
	return packet_path(&(struct path_options){.imix = true, .fields = 1});
}

static double path_template(void)
{
	return packet_path(&(struct path_options){.frame_len = FRAME});
}

/* ---- what arrived is checked -------------------------------------------------------------------------- */

#define CHECKED (OPS / 4)

static void put_be64(uint8_t *to, uint64_t value)
{
	value = __builtin_bswap64(value);
	memcpy(to, &value, sizeof(value));
}

/* UDP over IPv4 with a right checksum, in the cache; one flow, nothing lost. Writing the frame is not counted. */
static double check_one(uint32_t len)
{
	static const uint8_t headers[] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45};
	const uint8_t *magic = (const uint8_t[]){0x78, 0x73, 0x6b, 0x65};
	struct xske_check_config config = {.max_flows = 1};
	struct xske_check_counters counters;
	uint8_t frames[BATCH][MAX_FRAME] = {0};
	struct xske_check *c;
	double ns = 0;

	if (xske_check_create(&config, &c))
		abort();
	for (uint32_t i = 0; i < CHECKED; i += BATCH) {
		double start;

		for (uint32_t j = 0; j < BATCH; j++) {
			uint8_t *f = frames[j];

			memcpy(f, headers, sizeof(headers));
			f[16] = (uint8_t)((len - 14) >> 8);
			f[17] = (uint8_t)(len - 14);
			f[23] = 17;
			f[38] = (uint8_t)((len - 34) >> 8);
			f[39] = (uint8_t)(len - 34);
			f[40] = 1; /* 0 is none */
			memcpy(f + len - 24, magic, 4);
			put_be64(f + len - 16, i + j);
			put_be64(f + len - 8, 1000 + i + j);
			edit_fix_checksums(f, len);
		}
		start = now_ns();
		for (uint32_t j = 0; j < BATCH; j++) {
			const struct piece whole = {frames[j], len};

			check_frame(c, &whole, 1, 9000 + i + j * 77, 0);
		}
		ns += now_ns() - start;
	}
	xske_check_read(c, &counters, NULL);
	if (counters.received_packets != CHECKED || counters.unverified_packets)
		abort();
	xske_check_destroy(c);
	return ns / CHECKED;
}

static double check_66(void)
{
	return check_one(66);
}

static double check_1514(void)
{
	return check_one(1514);
}

int main(int argc, char **argv)
{
	static const struct arm arms[] = {
	        {"atomic_add", atomic_add},
	        {"alloc_free", alloc_free_loop_owned},
	        {"alloc_free_application", alloc_free_application},
	        {"alloc_free_2048_inflight", alloc_free_window},
	        {"alloc_free_1514_bytes", alloc_free_window_1514},
	        {"cross_thread_return", cross_thread_return},
	        {"path_template", path_template},
	        {"path_one_field", path_one_field},
	        {"path_three_fields", path_three_fields},
	        {"path_three_random_fields", path_three_random},
	        {"path_three_fields_1514", path_three_fields_1514},
	        {"path_imix", path_imix},
	        {"path_imix_10000_tuples", path_imix_tuples},
	        {"path_imix_10000_flows", path_imix_flows},
	        {"check_66_bytes", check_66},
	        {"check_1514_bytes", check_1514},
	};

	open_umem(64u << 20);
	if (!spsc_init(&gone, 1024))
		return 1;
	run_rounds(arms, sizeof(arms) / sizeof(*arms), argc > 1 ? (uint32_t)atoi(argv[1]) : 11);
	return 0;
}
