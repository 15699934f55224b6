/* SPDX-License-Identifier: MIT */
/*
 * csum.h - the Internet checksum as a sum that is kept and added to (RFC 1071, RFC 1624 equation 3). One's
 * complement sums are sums modulo 0xffff, so any grouping of the bits into multiples of 16 adds up to the same.
 */
#ifndef XSKE_CSUM_H
#define XSKE_CSUM_H

#include <arpa/inet.h>
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

/* Words as the machine reads them, turned round once into network order: RFC 1071, 2 (B). */
static inline uint64_t csum_turn(uint64_t sum)
{
	return ntohs(csum_fold(sum));
}

/* The last `len` bytes, less than 8, as the machine reads them; an odd one is followed by 0. */
static inline uint64_t csum_rest(const uint8_t *from, uint32_t len)
{
	uint8_t bytes[2] = {0};
	uint64_t sum = 0;
	uint16_t folded;
	uint32_t half;

	/* Sizes that the compiler knows: no call. */
	if (len & 4) {
		memcpy(&half, from, 4);
		sum += half;
		from += 4;
	}
	if (len & 2) {
		memcpy(&folded, from, 2);
		sum += folded;
		from += 2;
	}
	if (len & 1) {
		bytes[0] = *from;
		memcpy(&folded, bytes, 2);
		sum += folded;
	}
	return sum;
}

/* As csum_bytes(), of long runs (csum.c); and copies them meanwhile. */
uint64_t csum_long(const uint8_t *from, uint32_t len);
uint64_t csum_copy(uint8_t *to, const uint8_t *from, uint32_t len);

/* From so many bytes on, wide registers pay for the call. Headers stay below it. */
#define CSUM_LONG_BYTES 128u

/* Bytes as a sum of 16-bit words; an odd one at the end is followed by 0. Not 0 unless all bytes are. */
static inline uint64_t csum_bytes(const uint8_t *from, uint32_t len)
{
	uint64_t sum = 0, word;
	uint32_t i = 0;

	if (len >= CSUM_LONG_BYTES)
		return csum_long(from, len);
	for (; i + 8 <= len; i += 8) {
		memcpy(&word, from + i, 8);
		sum += (word & 0xffffffff) + (word >> 32);
	}
	return csum_turn(sum + csum_rest(from + i, len % 8));
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
