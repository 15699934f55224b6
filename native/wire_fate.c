/* SPDX-License-Identifier: MIT */
#include "field.h"
#include "util.h"
#include "wire_fate.h"

/* Ethertypes: IEEE 802 numbers (IANA); include/uapi/linux/if_ether.h */
#define TYPE_IPV4 0x0800u
#define TYPE_IPV6 0x86ddu
#define TYPE_VLAN 0x8100u
#define TYPE_QINQ 0x88a8u
#define MAX_TAGS 2u

#define MACS_BYTES 12u
#define IPV4_BYTES 20u /* RFC 791, 3.1: without options */
#define IPV6_BYTES 40u /* RFC 8200, 3 */
#define UDP_BYTES 8u   /* RFC 768 */
#define TCP_BYTES 20u  /* RFC 9293, 3.1 */

/* Protocol numbers (IANA) */
enum {
	HOP_BY_HOP = 0,
	TCP = 6,
	UDP = 17,
	ROUTING = 43,
	FRAGMENT = 44,
	ICMPV6 = 58,
	DESTINATION = 60,
};
/* ICMPv6 types, RFC 4861, 4: neighbour discovery, from router solicitation to redirect */
#define FIRST_DISCOVERY 133u
#define LAST_DISCOVERY 137u

#define MAX_EXTENSIONS 8u

/* Another stream of random numbers for the place of the bit. */
#define BIT_KEY 0x6269745f6f665f69u

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

enum wire_fate wire_fate(const struct xske_wire_config *config, uint64_t key, uint64_t number)
{
	uint64_t r = field_random(key, number) >> 32;
	const uint64_t shares[] = {config->drop, config->duplicate, config->reorder, config->corrupt};

	for (uint32_t i = 0; i < 4; i++) {
		if (r < shares[i])
			return (enum wire_fate)(i + WIRE_DROP);
		r -= shares[i];
	}
	return WIRE_PASS;
}

/* Multicast that does not leave the link: 224.0.0.0/24 (RFC 5771, 4), ff02::/16 (RFC 4291, 2.7). */
static bool is_of_link(const uint8_t *ip, bool four)
{
	if (four)
		return ip[16] == 224 && !ip[17] && !ip[18];
	return ip[24] == 0xff && ip[25] == 0x02;
}

static bool is_discovery(const uint8_t *ip, const uint8_t *end)
{
	const uint8_t *type = ip + IPV6_BYTES;

	return ip[6] == ICMPV6 && type < end && *type >= FIRST_DISCOVERY && *type <= LAST_DISCOVERY;
}

static bool is_subject(const uint8_t *ip, const uint8_t *end, bool four)
{
	if (ip + (four ? IPV4_BYTES : IPV6_BYTES) > end || ip[0] >> 4 != (four ? 4 : 6))
		return false;
	return !is_of_link(ip, four) && (four || !is_discovery(ip, end));
}

bool wire_find_ip(const uint8_t *frame, uint32_t len, uint32_t *ip)
{
	uint32_t offset = MACS_BYTES, tags = 0, type;

	while (offset + 2 <= len) {
		type = get16(frame + offset);
		offset += 2;
		if (type == TYPE_IPV4 || type == TYPE_IPV6) {
			*ip = offset;
			return is_subject(frame + offset, frame + len, type == TYPE_IPV4);
		}
		if ((type != TYPE_VLAN && type != TYPE_QINQ) || tags++ == MAX_TAGS)
			return false;
		offset += 2;
	}
	return false;
}

/* Behind the transport header at `start`, as far as there is one we know. */
static uint32_t behind_transport(const uint8_t *frame, uint32_t start, uint32_t end, uint32_t protocol)
{
	if (protocol == UDP)
		return start + UDP_BYTES;
	if (protocol == TCP) {
		uint32_t words = start + TCP_BYTES <= end ? frame[start + 12] >> 4 : 0;

		return words * 4 < TCP_BYTES ? end : start + words * 4;
	}
	return start;
}

static uint32_t payload_of_ipv4(const uint8_t *frame, uint32_t ip, uint32_t *end)
{
	uint32_t header = (frame[ip] & 0xfu) * 4;

	*end = min_u32(*end, ip + get16(frame + ip + 2));
	if (header < IPV4_BYTES)
		return *end;
	if (get16(frame + ip + 6) & 0x1fffu) /* a later fragment: no transport header */
		return ip + header;
	return behind_transport(frame, ip + header, *end, frame[ip + 9]);
}

static uint32_t payload_of_ipv6(const uint8_t *frame, uint32_t ip, uint32_t *end)
{
	uint32_t offset = ip + IPV6_BYTES, next = frame[ip + 6];

	*end = min_u32(*end, offset + get16(frame + ip + 4));
	for (uint32_t i = 0; i < MAX_EXTENSIONS; i++) {
		if (next != HOP_BY_HOP && next != ROUTING && next != DESTINATION && next != FRAGMENT)
			break;
		if (offset + 8 > *end)
			return *end;
		if (next == FRAGMENT && get16(frame + offset + 2) & 0xfff8u)
			return offset + 8; /* a later fragment */
		/* A fragment header has a zero where the others have their length (RFC 8200, 4.5). */
		uint32_t words = next == FRAGMENT ? 0 : frame[offset + 1];

		next = frame[offset];
		offset += words * 8 + 8;
	}
	return behind_transport(frame, offset, *end, next);
}

bool wire_corrupt(uint8_t *frame, uint32_t len, uint32_t ip, uint64_t key, uint64_t number)
{
	uint32_t end = len;
	uint32_t start =
	        frame[ip] >> 4 == 4 ? payload_of_ipv4(frame, ip, &end) : payload_of_ipv6(frame, ip, &end);
	uint64_t bit;

	if (start >= end)
		return false;
	bit = field_random_below(key ^ BIT_KEY, number, (uint64_t)(end - start) * 8);
	frame[start + bit / 8] ^= (uint8_t)(1u << bit % 8);
	return true;
}
