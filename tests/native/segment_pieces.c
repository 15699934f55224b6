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

/* Where it may have a front: what is written with one. */
static uint32_t write_with_front(uint8_t *frame, const struct segment_out *out, const uint8_t *payload,
                                 uint32_t len, uint32_t partial)
{
	struct segment_out with = *out;
	struct segment_front front;

	memset(&front, 0xa5, sizeof(front));
	segment_front_init(&front, out);
	with.front = &front;
	if (segment_header_bytes(&with) != segment_header_bytes(out))
		return 0;
	return segment_write(frame, &with, len, partial ? ~0ull : csum_bytes(payload, len), partial);
}

static bool may_have_front(const struct segment_out *out)
{
	return !out->mss && !out->sack_count && !out->sack_permitted && out->wscale == SEGMENT_NO_WSCALE;
}

/* Returns how many bytes of `frame` are written, or 0 when functions do not agree. */
XSKE_API uint32_t segments_write(uint8_t *frame, const struct segment_out *out, const uint8_t *payload,
                                 uint32_t len, uint32_t partial)
{
	uint32_t bytes = segment_header_bytes(out);
	uint8_t *header = malloc(bytes);
	uint32_t written;

	memset(header, 0xa5, bytes);
	written = segment_write(header, out, len, partial ? ~0ull : csum_bytes(payload, len), partial);
	memcpy(frame, header, bytes);
	if (may_have_front(out) && (write_with_front(header, out, payload, len, partial) != bytes ||
	                            memcmp(header, frame, bytes) != 0))
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
