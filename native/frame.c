/* SPDX-License-Identifier: MIT */
/* frame.c - bytes of a frame that lie in several pieces. */
#include "frame.h"

const uint8_t *pieces_copy(const struct piece *pieces, uint32_t offset, uint32_t len, uint8_t *to)
{
	uint32_t at = 0, done = 0;

	for (uint32_t i = 0; done < len; at += pieces[i++].len) {
		uint32_t end = at + pieces[i].len, from = offset + done, n;

		if (from >= end)
			continue;
		n = min_u32(end - from, len - done);
		memcpy(to + done, pieces[i].bytes + (from - at), n);
		done += n;
	}
	return to;
}

uint64_t pieces_sum(const struct frame *f, uint32_t from, uint32_t to)
{
	uint64_t sum = 0;
	uint32_t at = 0;

	for (uint32_t i = 0; i < f->n && at < to; at += f->pieces[i++].len) {
		uint32_t first = max_u32(at, from), end = min_u32(at + f->pieces[i].len, to);

		/* A part that begins in the middle of a word lies a byte lower in all of them. */
		if (first < end)
			sum += csum_bytes(f->pieces[i].bytes + (first - at), end - first)
			       << ((first - from) & 1) * 8;
	}
	return sum;
}
