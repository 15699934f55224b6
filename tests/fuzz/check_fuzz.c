/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer over received frames: whatever the bytes and however they are cut, nothing beyond the pieces is read, every
 * frame is counted as exactly one thing, the pieces make no difference, and what flows count adds up. Half of the
 * frames get right checksums and a signature, or hardly one would come further than those.
 */
#include "check.h"
#include "edit.h"
#include "fuzz.h"

#define FLOWS 4u
#define MOST_PIECES 8u
#define CONTROL_BYTES 12u
#define SIGN 1u
#define FIX 2u

/* Numbers around which something changes, near each other and far apart. */
static uint64_t number(uint8_t kind, uint8_t by)
{
	static const uint64_t bases[] = {
	        0,          CHECK_WINDOW, CHECK_MAX_JUMP,      CHECK_RESTART_NS, CHECK_RESTART_NS / 2,
	        1ull << 63, -1ull,        CHECK_RESTART_NS * 3};

	return bases[kind % 8] + (uint64_t)(int8_t)by;
}

static void sign(uint8_t *frame, uint32_t len, const uint8_t *control)
{
	uint64_t words[3] = {(uint64_t)SIGNATURE_MAGIC << 32 | control[3] % (FLOWS + 1),
	                     number(control[4], control[5]), number(control[6], control[7])};

	if (len < SIGNATURE_BYTES)
		return;
	for (uint32_t i = 0; i < 3; i++)
		words[i] = __builtin_bswap64(words[i]);
	memcpy(frame + len - SIGNATURE_BYTES, words, SIGNATURE_BYTES);
}

static void in_pieces(struct xske_check *c, const uint8_t *frame, uint32_t len, const uint8_t *control,
                      uint64_t arrived_ns, uint32_t flags)
{
	struct piece pieces[MOST_PIECES];
	uint32_t n = 1 + control[1] % MOST_PIECES, at = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t some = i + 1 == n ? len - at : min_u32(len - at, control[2] * (i + 1) % 61);
		uint8_t *copy = malloc(some);

		memcpy(copy, frame + at, some);
		pieces[i] = (struct piece){copy, some};
		at += some;
	}
	check_frame(c, pieces, n, arrived_ns, flags);
	for (uint32_t i = 0; i < n; i++)
		free((void *)pieces[i].bytes);
}

static void add_up(const struct xske_check *c)
{
	struct xske_check_counters t;
	struct xske_latency l;
	struct xske_check_flow flows[FLOWS];
	static uint32_t buckets[FLOWS * XSKE_LATENCY_BUCKETS];
	uint64_t received = 0, duplicate = 0, late = 0, lost = 0, timed = 0;
	uint32_t n = xske_check_flows(c, 0, FLOWS, flows, buckets);

	xske_check_read(c, &t, &l);
	must(n == t.flows, "all flows are read");
	for (uint32_t i = 0; i < n; i++) {
		const struct xske_check_flow *f = &flows[i];
		uint64_t counted = 0;

		for (uint32_t b = 0; b < XSKE_LATENCY_BUCKETS; b++)
			counted += buckets[i * XSKE_LATENCY_BUCKETS + b];
		must(counted == f->latency_count, "a bucket for each");
		must(f->latency_count + f->untimed_packets + f->negative_latency_packets ==
		             f->received_packets,
		     "received with a latency or without one");
		must(f->reordered_packets < f->received_packets &&
		             f->extent_max_packets < f->received_packets &&
		             f->extent_max_packets <= f->extent_sum_packets &&
		             f->extent_sum_packets >= f->reordered_packets &&
		             f->least_extents <= f->reordered_packets,
		     "extents");
		must(f->lost_packets < 1ull << 62, "not less than nothing is lost");
		received += f->received_packets;
		duplicate += f->duplicate_packets;
		late += f->late_packets;
		lost += f->lost_packets;
		timed += f->latency_count;
	}
	must(received == t.received_packets && duplicate == t.duplicate_packets && late == t.late_packets &&
	             lost == t.lost_packets && timed == l.count,
	     "flows add up");
	must(t.packets == received + duplicate + late + t.corrupt_packets + t.truncated_packets +
	                          t.foreign_packets + t.unknown_flow_packets,
	     "every frame is one thing");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct xske_check_config config = {.max_flows = FLOWS};
	struct xske_check *whole, *cut;

	must(!xske_check_create(&config, &whole) && !xske_check_create(&config, &cut), "created");
	while (size > CONTROL_BYTES) {
		const uint8_t *control = data;
		uint32_t len = min_u32((uint32_t)(size - CONTROL_BYTES), control[10]);
		uint64_t arrived_ns = number(control[8], control[9]);
		uint32_t flags = control[11] & CHECK_CSUM_PARTIAL;
		uint8_t *frame = malloc(len);

		memcpy(frame, data + CONTROL_BYTES, len);
		if (control[0] & SIGN)
			sign(frame, len, control);
		if (control[0] & FIX)
			edit_fix_checksums(frame, len);
		xske_check_frame(whole, frame, len, arrived_ns, flags);
		in_pieces(cut, frame, len, control, arrived_ns, flags);
		free(frame);
		data += CONTROL_BYTES + len;
		size -= CONTROL_BYTES + len;
	}
	add_up(whole);
	must(!memcmp(&whole->totals, &cut->totals, sizeof(cut->totals)) &&
	             !memcmp(&whole->latency, &cut->latency, sizeof(cut->latency)) &&
	             !memcmp(whole->flows, cut->flows, FLOWS * CHECK_FLOW_BYTES),
	     "pieces make no difference");
	xske_check_destroy(whole);
	xske_check_destroy(cut);
	return 0;
}
