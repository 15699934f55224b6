/* SPDX-License-Identifier: MIT */
/*
 * csum.h - the Internet checksum as a sum that is kept and added to (RFC 1071, RFC 1624 equation 3). One's
 * complement sums are sums modulo 0xffff, so any grouping of the bits into multiples of 16 adds up to the same.
 */
#ifndef XSKE_CSUM_H
#define XSKE_CSUM_H

#include <stdint.h>
#include <string.h>

static inline uint16_t csum_fold(uint64_t sum)
{
	uint32_t half;

	/* Added to itself turned round, the upper half is both halves with the carry that comes back. */
	sum += sum << 32 | sum >> 32;
	half = (uint32_t)(sum >> 32);
	half += half << 16 | half >> 16;
	return (uint16_t)(half >> 16);
}

/* Bytes as a sum of 16-bit words; an odd one at the end is followed by 0. Added up as the machine reads them, and
 * turned round once: RFC 1071, 2 (B). Not 0 unless all bytes are. */
static inline uint64_t csum_bytes(const uint8_t *from, uint32_t len)
{
	uint64_t sum = 0, word;
	uint8_t bytes[2] = {0};
	uint16_t folded;
	uint32_t i = 0, half;

	for (; i + 8 <= len; i += 8) {
		memcpy(&word, from + i, 8);
		sum += (word & 0xffffffff) + (word >> 32);
	}
	/* Sizes that the compiler knows: no call. */
	if (len & 4) {
		memcpy(&half, from + i, 4);
		sum += half;
		i += 4;
	}
	if (len & 2) {
		memcpy(&folded, from + i, 2);
		sum += folded;
		i += 2;
	}
	if (len & 1) {
		bytes[0] = from[i];
		memcpy(&folded, bytes, 2);
		sum += folded;
	}
	folded = csum_fold(sum);
	memcpy(bytes, &folded, sizeof(bytes));
	return (uint64_t)bytes[0] << 8 | bytes[1];
}

/* How far a field of `width` bytes at `offset` lies from the 16-bit words of the sum: 0 or 8 bits. */
static inline uint32_t csum_shift(uint32_t width, uint32_t offset)
{
	return ((width ^ offset) & 1) * 8; /* 8: it ends in the middle of a word */
}

/* What a field's value adds to the sum; below 2^41, so that thousands fit into 64 bits. */
static inline uint64_t csum_part(uint64_t value, uint32_t shift)
{
	return ((value & 0xffffffff) + (value >> 32)) << shift;
}

#endif
