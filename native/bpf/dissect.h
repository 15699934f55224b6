/* SPDX-License-Identifier: MIT */
/*
 * dissect.h - what the headers of a received packet say, for steer.bpf.c. Where they stand: find_headers(). Whose packet
 * it is, as a steer_tuple: dissect(); and for an ICMP error, whose packet it is about: dissect_quoted().
 */
#ifndef XSKE_DISSECT_H
#define XSKE_DISSECT_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "steer.h"

struct vlan_tag {
	__be16 tci;
	__be16 protocol;
};

/* Ports stand at the same place in UDP and TCP. */
struct ports {
	__be16 src;
	__be16 dst;
};

/* What stands in the first fragment. Pointers are never compared with NULL, subtracted or moved by what a packet says:
 * the verifier forbids that to who has CAP_BPF without CAP_PERFMON. */
struct headers {
	struct ethhdr *eth;
	void *ip;            /* if version */
	struct ports *ports; /* if has_ports, and not has_options */
	__u32 above_at;      /* if version: where the IP header ends, in bytes from the packet's start */
	int version;         /* 4, 6, or 0: no IP */
	int protocol;
	int has_options; /* of IPv4 */
	int is_fragment; /* of IPv4 */
	int has_ports;   /* UDP or TCP */
};

/* The types that are errors about a packet of ours: RFC 792 (of its others, source quench is obsolete by RFC 6633, and
 * a redirect is the routing's), and RFC 4443, 3. */
enum {
	ICMP4_UNREACHABLE = 3,
	ICMP4_TIME_EXCEEDED = 11,
	ICMP4_PARAMETER_PROBLEM = 12,
	ICMP6_UNREACHABLE = 1,
	ICMP6_TOO_BIG = 2,
	ICMP6_TIME_EXCEEDED = 3,
	ICMP6_PARAMETER_PROBLEM = 4,
};

#define ICMP_BYTES 8

/* Those behind an IP header without options, which ends at `above`. */
static __always_inline int find_ports(struct headers *h, void *above, void *end)
{
	if ((h->protocol != IPPROTO_UDP && h->protocol != IPPROTO_TCP) || h->is_fragment)
		return 1;
	h->has_ports = 1;
	if (h->has_options)
		return 1;
	h->ports = above;
	return (void *)(h->ports + 1) <= end;
}

/* 0: one of them goes on beyond the first fragment's end, or contradicts itself. */
static __always_inline int find_headers(struct xdp_md *ctx, struct headers *h)
{
	void *at = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__be16 protocol;

	h->eth = at;
	h->above_at = ETH_HLEN;
	if ((void *)(h->eth + 1) > end)
		return 0;
	protocol = h->eth->h_proto;
	at = h->eth + 1;
	for (int i = 0; i < 2; i++) {
		struct vlan_tag *tag = at;

		if (protocol != bpf_htons(ETH_P_8021Q) && protocol != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 1) > end)
			return 0;
		protocol = tag->protocol;
		at = tag + 1;
		h->above_at += sizeof(*tag);
	}
	h->ip = at;
	if (protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = at;

		if ((void *)(ip + 1) > end || ip->ihl < 5)
			return 0;
		h->version = 4;
		h->protocol = ip->protocol;
		h->has_options = ip->ihl != 5;
		h->is_fragment = !!(ip->frag_off & bpf_htons(0x3fff));
		h->above_at += ip->ihl * 4;
		at = ip + 1;
		barrier_var(at); /* or the compiler adds the header's length as a variable */
		return find_ports(h, at, end);
	}
	if (protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = at;

		if ((void *)(ip + 1) > end)
			return 0;
		h->version = 6;
		h->protocol = ip->nexthdr;
		h->above_at += sizeof(*ip);
		at = ip + 1;
		barrier_var(at);
		return find_ports(h, at, end);
	}
	return 1;
}

/* 1: addresses, protocol and ports are in the tuple. The pointers come first: helpers may end their lives. */
static __always_inline int dissect(struct xdp_md *ctx, const struct headers *h, struct steer_tuple *tuple)
{
	struct ports ports;

	if (h->version == 4) {
		struct iphdr *ip = h->ip;

		tuple->src[3] = ip->saddr;
		tuple->dst[3] = ip->daddr;
	} else {
		struct ipv6hdr *ip = h->ip;

		__builtin_memcpy(tuple->src, &ip->saddr, 16);
		__builtin_memcpy(tuple->dst, &ip->daddr, 16);
	}
	tuple->version = h->version;
	tuple->protocol = h->protocol;
	if (!h->has_options)
		ports = *h->ports;
	else if (bpf_xdp_load_bytes(ctx, h->above_at, &ports, sizeof(ports)))
		return 0;
	tuple->src_port = ports.src;
	tuple->dst_port = ports.dst;
	return 1;
}

static __always_inline int is_error4(__u8 type)
{
	return type == ICMP4_UNREACHABLE || type == ICMP4_TIME_EXCEEDED || type == ICMP4_PARAMETER_PROBLEM;
}

static __always_inline int is_error6(__u8 type)
{
	return type == ICMP6_UNREACHABLE || type == ICMP6_TOO_BIG || type == ICMP6_TIME_EXCEEDED ||
	       type == ICMP6_PARAMETER_PROBLEM;
}

/* An IPv4 header in an ICMP error, its addresses and protocol into the tuple, the other way round. Where it ends, or 0:
 * it is none, or the ports are in another fragment. */
static __always_inline __u32 dissect_quoted4(struct xdp_md *ctx, __u32 at, struct steer_tuple *tuple)
{
	struct iphdr ip;

	if (bpf_xdp_load_bytes(ctx, at, &ip, sizeof(ip)))
		return 0;
	if (ip.version != 4 || ip.ihl < 5 || ip.frag_off & bpf_htons(0x1fff))
		return 0;
	tuple->src[3] = ip.daddr;
	tuple->dst[3] = ip.saddr;
	tuple->protocol = ip.protocol;
	return at + ip.ihl * 4;
}

/* As dissect_quoted4(). */
static __always_inline __u32 dissect_quoted6(struct xdp_md *ctx, __u32 at, struct steer_tuple *tuple)
{
	struct ipv6hdr ip;

	if (bpf_xdp_load_bytes(ctx, at, &ip, sizeof(ip)) || ip.version != 6)
		return 0;
	__builtin_memcpy(tuple->src, &ip.daddr, 16);
	__builtin_memcpy(tuple->dst, &ip.saddr, 16);
	tuple->protocol = ip.nexthdr;
	return at + sizeof(ip);
}

/* 1: it is an ICMP error, and in the tuple is the packet that would answer the quoted one. Rare, so all of it is copied:
 * the IP header in front may have options, and a quoted one moves what is behind it. */
static __always_inline int dissect_quoted(struct xdp_md *ctx, const struct headers *h,
                                          struct steer_tuple *tuple)
{
	const int is_icmp4 = h->version == 4 && h->protocol == IPPROTO_ICMP;
	struct ports ports;
	__u32 at = h->above_at;
	__u8 type;

	if ((!is_icmp4 && (h->version != 6 || h->protocol != IPPROTO_ICMPV6)) || h->is_fragment)
		return 0;
	if (bpf_xdp_load_bytes(ctx, at, &type, sizeof(type)) ||
	    !(is_icmp4 ? is_error4(type) : is_error6(type)))
		return 0;
	at += ICMP_BYTES;
	at = is_icmp4 ? dissect_quoted4(ctx, at, tuple) : dissect_quoted6(ctx, at, tuple);
	if (!at || bpf_xdp_load_bytes(ctx, at, &ports, sizeof(ports)))
		return 0;
	tuple->version = h->version;
	tuple->src_port = ports.dst;
	tuple->dst_port = ports.src;
	return 1;
}

#endif
