/* SPDX-License-Identifier: MIT */
/* segment_pieces.c - segments for tests: every piece and every header is memory of exactly its size. */
#include <stdlib.h>
#include <string.h>

#include "csum.h"
#include "tcp/segment.h"

/* The payload is copied out by `step` bytes at a time; there is room for all of the frame. */
XSKE_API uint32_t segments_read(const uint8_t *bytes, const uint32_t *lens, uint32_t n, uint32_t verify,
                                struct segment *out, uint32_t step, uint8_t *payload)
{
	struct piece *pieces = calloc(n ? n : 1, sizeof(*pieces));
	enum segment_kind kind;

	for (uint32_t i = 0; i < n; i++) {
		uint8_t *copy = malloc(lens[i]);

		memcpy(copy, bytes, lens[i]);
		pieces[i] = (struct piece){copy, lens[i]};
		bytes += lens[i];
	}
	memset(out, 0xa5, sizeof(*out));
	kind = segment_read(pieces, n, verify, out);
	for (uint32_t at = 0, some; kind == SEGMENT_TCP && at < out->payload_len; at += some) {
		some = out->payload_len - at < step ? out->payload_len - at : step;
		segment_copy(out, at, some, payload + at);
	}
	for (uint32_t i = 0; i < n; i++)
		free((void *)pieces[i].bytes);
	free(pieces);
	return kind;
}

static bool may_be_pattern(const struct segment_out *out)
{
	return !out->mss && !out->sack_count && !out->sack_permitted && out->wscale == SEGMENT_NO_WSCALE;
}

/* Is the header that a pattern makes the same? */
static bool pattern_agrees(const uint8_t *header, uint32_t bytes, const struct segment_out *out, uint32_t len,
                           uint64_t sum, bool partial)
{
	struct segment_pattern pattern;
	struct segment_out other = *out;
	uint8_t *made = malloc(bytes);
	bool agrees;

	memset(&pattern, 0xa5, sizeof(pattern));
	memset(made, 0x5a, bytes);
	other.seq ^= 0xdeadbeef;
	segment_pattern_init(&pattern, &other, len, partial);
	segment_pattern_write(&pattern, made, out->seq, sum);
	agrees = pattern.len == bytes && !memcmp(made, header, bytes);
	free(made);
	return agrees;
}

/* Returns how many bytes of `frame` are written, or 0 when functions do not agree. */
XSKE_API uint32_t segments_write(uint8_t *frame, const struct segment_out *out, const uint8_t *payload,
                                 uint32_t len, uint32_t partial)
{
	uint32_t bytes = segment_header_bytes(out);
	uint8_t *header = malloc(bytes);
	uint64_t sum = partial ? ~0ull : csum_bytes(payload, len);
	uint32_t written;

	memset(header, 0xa5, bytes);
	written = segment_write(header, out, len, sum, partial);
	memcpy(frame, header, bytes);
	if (may_be_pattern(out) && !pattern_agrees(frame, bytes, out, len, sum, partial))
		written = 0;
	free(header);
	return written == bytes ? written : 0;
}

/* The sum of `len` bytes, as they are copied; ~0: the functions that add up do not agree. */
XSKE_API uint64_t sums_copy(uint8_t *to, const uint8_t *from, uint32_t len)
{
	uint64_t sum = csum_copy(to, from, len);

	return sum == csum_bytes(from, len) && sum == csum_long(from, len) ? sum : ~0ull;
}

XSKE_API uint32_t segments_sizes(uint32_t *out_bytes)
{
	*out_bytes = sizeof(struct segment_out);
	return sizeof(struct segment);
}
