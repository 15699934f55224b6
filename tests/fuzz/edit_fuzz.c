/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer over the rewriting of foreign packets: whatever the bytes and the edits, nothing outside the packet is
 * touched, lengths change by VLAN tags only, and a packet whose checksums were computed keeps them when it is edited
 * and they are computed again.
 */
#include "edit.h"
#include "fuzz.h"

#define MOST_EDITS 4u

/* Sound ones, as xske_trace_create() lets through. */
static struct xske_edit edit_of(const uint8_t *from)
{
	static const uint32_t ends[] = {12, 20, 40, 4, 2, 1};
	struct xske_edit e = {.layer = from[0] % 6, .flags = from[1] & 1};

	e.offset = e.layer == XSKE_EDIT_TAG ? 0 : from[2] % ends[e.layer];
	e.len = e.layer == XSKE_EDIT_TAG ? 2 : 1 + from[3] % 16;
	if (e.offset + e.len > ends[e.layer])
		e.len = ends[e.layer] - e.offset;
	memset(e.value, from[4], sizeof(e.value));
	memset(e.mask, from[5], sizeof(e.mask));
	return e;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct xske_edit edits[MOST_EDITS];
	uint32_t n, len, after;
	uint8_t *frame, *once;

	if (size < 1 + 6 * MOST_EDITS + 14)
		return 0;
	n = data[0] % (MOST_EDITS + 1);
	for (uint32_t i = 0; i < MOST_EDITS; i++)
		edits[i] = edit_of(data + 1 + 6 * i);
	data += 1 + 6 * MOST_EDITS;
	len = (uint32_t)(size - 1 - 6 * MOST_EDITS);
	frame = malloc(len + EDIT_GROWS); /* no byte more: the sanitizer watches */
	memcpy(frame, data, len);
	after = edit_packet(edits, n, frame, len);
	must(after <= len + EDIT_GROWS && after + edit_tag_bytes(data, len) >= len, "only tags come and go");
	frame = realloc(frame, after);
	edit_fix_checksums(frame, after);
	once = malloc(after);
	memcpy(once, frame, after);
	edit_fix_checksums(frame, after);
	must(!memcmp(once, frame, after), "what is computed is computed again");
	free(once);
	free(frame);
	return 0;
}
