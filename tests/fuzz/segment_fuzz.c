/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer over received segments: whatever the bytes and however they are cut, nothing beyond the pieces is read, the
 * pieces make no difference, a payload lies within its packet, and what is written of a segment is read again as it
 * was. Half of the frames get right headers and checksums, or hardly one would come further than those.
 */
#include <stddef.h>

#include "csum.h"
#include "edit.h"
#include "fuzz.h"
#include "tcp/segment.h"

#define CONTROL_BYTES 4u
#define FIX 1u
#define VERIFY 2u
#define PARTIAL 4u
#define SIX 8u
#define ERROR 16u
#define SHAPE 32u
#define IP_AT 14u
#define MOST_BYTES 2048u

/* An IP header whose lengths are right, and a protocol that is looked into. */
static void shape(uint8_t *frame, uint32_t len, uint32_t how)
{
	uint32_t size = how & SIX ? 40 : 20;
	uint8_t *ip = frame + IP_AT;

	if (len < IP_AT + size)
		return;
	len -= IP_AT + (how & SIX ? size : 0);
	frame[12] = how & SIX ? 0x86 : 0x08;
	frame[13] = how & SIX ? 0xdd : 0x00;
	ip[0] = how & SIX ? 0x60 : 0x45;
	ip[how & SIX ? 4 : 2] = (uint8_t)(len >> 8);
	ip[how & SIX ? 5 : 3] = (uint8_t)len;
	ip[how & SIX ? 6 : 9] = how & ERROR ? (how & SIX ? 58 : 1) : 6;
	if (!(how & SIX))
		ip[6] = ip[7] = 0;
}

static enum segment_kind read_cut(const uint8_t *frame, uint32_t len, uint32_t n, uint32_t some_bytes,
                                  bool verify, struct segment *out, uint8_t *payload)
{
	struct piece pieces[RX_PIECES];
	enum segment_kind kind;
	uint32_t at = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t most = some_bytes * (i + 1) % 61;
		uint32_t some = i + 1 == n || len - at < most ? len - at : most;
		uint8_t *copy = malloc(some);

		memcpy(copy, frame + at, some);
		pieces[i] = (struct piece){copy, some};
		at += some;
	}
	memset(out, 0xa5, sizeof(*out));
	kind = segment_read(pieces, n, verify, out);
	if (kind == SEGMENT_TCP) {
		uint32_t half = out->payload_len / 2;

		must(out->payload_len <= len && out->payload_count <= n, "a payload is a part of the frame");
		segment_copy(out, half, out->payload_len - half, payload + half);
		segment_copy(out, 0, half, payload);
	}
	for (uint32_t i = 0; i < n; i++)
		free((void *)pieces[i].bytes);
	return kind;
}

static struct xske_header header_to(const struct tcp_tuple *t)
{
	struct xske_header h = {.ip_offset = IP_AT};
	uint8_t *bytes = (uint8_t *)h.words, *ip = bytes + IP_AT;
	bool six = t->version == 6;

	bytes[12] = six ? 0x86 : 0x08;
	bytes[13] = six ? 0xdd : 0x00;
	ip[0] = six ? 0x60 : 0x45;
	memcpy(ip + (six ? 8 : 12), t->remote, six ? 16 : 4);
	memcpy(ip + (six ? 24 : 16), t->local, six ? 16 : 4);
	h.len = IP_AT + (six ? 40 : 20);
	return h;
}

static void same_again(const struct segment *s, const struct segment *back)
{
	struct segment like = *back;

	/* Blocks for which there was no room any more: those in front are there. */
	must(back->sack_count <= s->sack_count &&
	             !memcmp(back->sacks, s->sacks, back->sack_count * sizeof(s->sacks[0])),
	     "blocks from the first one on");
	like.sack_count = s->sack_count;
	like.csum_partial = s->csum_partial;
	memcpy(like.sacks, s->sacks, sizeof(s->sacks));
	must(!memcmp(&like, s, offsetof(struct segment, payload)), "what was written is read");
}

/* As who sent it would write it. */
static void written_again(const struct segment *s, const uint8_t *payload, bool partial, uint32_t some_bytes)
{
	struct xske_header header = header_to(&s->tuple);
	struct segment_out out = {
	        .header = &header,
	        .seq = s->seq,
	        .ack = s->ack,
	        .local_port = s->tuple.remote_port,
	        .remote_port = s->tuple.local_port,
	        .window = s->window,
	        .flags = s->flags,
	        .has_timestamp = s->has_timestamp,
	        .sack_permitted = s->sack_permitted,
	        .wscale = s->wscale,
	        .mss = s->mss,
	        .ts_val = s->ts_val,
	        .ts_ecr = s->ts_ecr,
	        .sack_count = s->sack_count,
	};
	uint32_t bytes;
	uint8_t *copy = malloc(s->payload_len), *frame;
	enum segment_kind kind;
	struct segment back;

	memcpy(out.sacks, s->sacks, sizeof(out.sacks));
	bytes = segment_header_bytes(&out);
	must(bytes <= SEGMENT_MAX_HEADER_BYTES, "a header has at most so many bytes");
	frame = malloc(bytes);
	must(segment_write(frame, &out, s->payload_len, csum_bytes(payload, s->payload_len), partial) ==
	             bytes,
	     "as many bytes as were said");
	frame = realloc(frame, bytes + s->payload_len);
	memcpy(frame + bytes, payload, s->payload_len);
	kind = read_cut(frame, bytes + s->payload_len, RX_PIECES, some_bytes, true, &back, copy);
	must(kind == SEGMENT_TCP && (partial || !back.csum_partial), "it is right");
	must(!memcmp(copy, payload, s->payload_len), "with its payload");
	same_again(s, &back);
	free(frame);
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t payload[MOST_BYTES], cut_payload[MOST_BYTES];
	struct segment whole, cut;
	enum segment_kind kind;
	uint32_t how, len;
	uint8_t *frame;
	bool verify;

	if (size < CONTROL_BYTES || size > MOST_BYTES)
		return 0;
	how = data[0];
	verify = how & VERIFY;
	len = (uint32_t)size - CONTROL_BYTES;
	frame = malloc(len);
	memcpy(frame, data + CONTROL_BYTES, len);
	if (how & SHAPE)
		shape(frame, len, how);
	if (how & FIX)
		edit_fix_checksums(frame, len);
	kind = read_cut(frame, len, 1, 0, verify, &whole, payload);
	must(read_cut(frame, len, 1 + data[1] % RX_PIECES, data[2], verify, &cut, cut_payload) == kind &&
	             !memcmp(&whole, &cut, offsetof(struct segment, payload)),
	     "pieces make no difference");
	if (kind == SEGMENT_TCP) {
		must(!memcmp(payload, cut_payload, whole.payload_len), "nor to the payload");
		written_again(&whole, payload, how & PARTIAL, data[3]);
	}
	free(frame);
	return 0;
}
