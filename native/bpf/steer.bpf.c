/* SPDX-License-Identifier: MIT */
/*
 * steer.bpf.c - which received packets go to the AF_XDP sockets of their queue, and which to the kernel. Loaded and
 * attached by xsk_engine/steering.py, which also fills the maps; nothing else writes them.
 *
 *   steer_xsks    queue -> socket; a queue without one passes everything
 *   steer_rules   one word, STEER_*: what is looked at
 *   steer_ports   UDP destination ports, host order; the values are not looked at
 *   steer_tuples  4-tuples of TCP and UDP as they stand in the packet
 *   steer_reflected  per CPU, what has been sent back; written here, read by the loader
 *
 * Everything that is not matched passes. Packets of several fragments are looked at too (xdp.frags), headers only in
 * the first one. IPv4 options and fragments, and IPv6 with extension headers, match by signature alone.
 *
 * STEER_REFLECT: packets with a signature leave by the interface they came from (XDP_TX), with MAC addresses, those of
 * IPv4 or IPv6, and the ports of the UDP or TCP header behind them swapped; VLAN tags stay. No checksum changes by a
 * swap. What is not IP, or behind IPv6 extension headers, keeps its ports. Their magic becomes STEER_REFLECTED_MAGIC,
 * which no reflector sends back: two that face each other let a packet pass once. Hop limits are as they came. Left to
 * the kernel and counted as refused: to or from a multicast or broadcast address (it would become the source), IP
 * fragments (their signature's ports are in another one), and headers that are not whole in the first fragment.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "steer.h"

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, STEER_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} steer_xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} steer_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STEER_PORTS);
	__type(key, __u32);
	__type(value, __u32);
} steer_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STEER_TUPLES);
	__type(key, struct steer_tuple);
	__type(value, __u32);
} steer_tuples SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct steer_counters);
} steer_reflected SEC(".maps");

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
	__u32 ports_at;      /* if has_ports: bytes from the packet's start */
	int version;         /* 4, 6, or 0: no IP */
	int protocol;
	int has_options; /* of IPv4 */
	int is_fragment; /* of IPv4 */
	int has_ports;   /* UDP or TCP */
};

static __always_inline int has_signature(struct xdp_md *ctx, __u32 magic)
{
	__u64 len = bpf_xdp_get_buff_len(ctx);
	__be32 found;

	if (len < ETH_HLEN + STEER_SIGNATURE_BYTES)
		return 0;
	return !bpf_xdp_load_bytes(ctx, len - STEER_SIGNATURE_BYTES, &found, sizeof(found)) &&
	       found == bpf_htonl(magic);
}

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
	h->ports_at = ETH_HLEN;
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
		h->ports_at += sizeof(*tag);
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
		h->ports_at += ip->ihl * 4;
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
		at = ip + 1;
		barrier_var(at);
		return find_ports(h, at, end);
	}
	return 1;
}

/* 1: addresses, protocol and ports are in the tuple. */
static __always_inline int dissect(struct xdp_md *ctx, struct steer_tuple *tuple)
{
	struct headers h = {};

	if (!find_headers(ctx, &h) || !h.has_ports || h.has_options)
		return 0;
	if (h.version == 4) {
		struct iphdr *ip = h.ip;

		tuple->src[3] = ip->saddr;
		tuple->dst[3] = ip->daddr;
	} else {
		struct ipv6hdr *ip = h.ip;

		__builtin_memcpy(tuple->src, &ip->saddr, 16);
		__builtin_memcpy(tuple->dst, &ip->daddr, 16);
	}
	tuple->version = h.version;
	tuple->protocol = h.protocol;
	tuple->src_port = h.ports->src;
	tuple->dst_port = h.ports->dst;
	return 1;
}

/* Class D and the limited broadcast: RFC 1112, RFC 919. */
static __always_inline int is_many4(__be32 address)
{
	return (address & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) || address == bpf_htonl(0xffffffff);
}

static __always_inline int is_for_one(const struct headers *h)
{
	if ((h->eth->h_dest[0] | h->eth->h_source[0]) & 1)
		return 0;
	if (h->version == 4) {
		struct iphdr *ip = h->ip;

		return !is_many4(ip->daddr) && !is_many4(ip->saddr);
	}
	if (h->version == 6) {
		struct ipv6hdr *ip = h->ip;

		return ip->daddr.in6_u.u6_addr8[0] != 0xff && ip->saddr.in6_u.u6_addr8[0] != 0xff;
	}
	return 1;
}

#define SWAP_BYTES(a, b, n)                                                                                  \
	do {                                                                                                 \
		__u8 kept[n];                                                                                \
		__builtin_memcpy(kept, a, n);                                                                \
		__builtin_memcpy(a, b, n);                                                                   \
		__builtin_memcpy(b, kept, n);                                                                \
	} while (0)

static __always_inline void swap(const struct headers *h)
{
	SWAP_BYTES(h->eth->h_dest, h->eth->h_source, ETH_ALEN);
	if (h->version == 4) {
		struct iphdr *ip = h->ip;

		SWAP_BYTES(&ip->saddr, &ip->daddr, 4);
	} else if (h->version == 6) {
		struct ipv6hdr *ip = h->ip;

		SWAP_BYTES(&ip->saddr, &ip->daddr, 16);
	}
	if (h->has_ports && !h->has_options)
		SWAP_BYTES(&h->ports->src, &h->ports->dst, 2);
}

/* Behind options. Ends the life of the pointers. 0: they are not there. */
static __always_inline int swap_far_ports(struct xdp_md *ctx, __u32 at)
{
	struct ports was, now;

	if (bpf_xdp_load_bytes(ctx, at, &was, sizeof(was)))
		return 0;
	now = (struct ports){.src = was.dst, .dst = was.src};
	return !bpf_xdp_store_bytes(ctx, at, &now, sizeof(now));
}

/* What happens to a packet while there is STEER_REFLECT. */
static __always_inline int reflect(struct xdp_md *ctx)
{
	const __be32 magic = bpf_htonl(STEER_REFLECTED_MAGIC);
	__u32 zero = 0;
	struct steer_counters *counters = bpf_map_lookup_elem(&steer_reflected, &zero);
	__u64 len = bpf_xdp_get_buff_len(ctx);
	struct headers h = {};

	if (!counters || !has_signature(ctx, STEER_MAGIC))
		return XDP_PASS;
	if (!find_headers(ctx, &h) || h.is_fragment || !is_for_one(&h)) {
		counters->refused_packets++;
		return XDP_PASS;
	}
	swap(&h);
	/* What follows ends the life of the pointers, and the second cannot fail: it has been read there. */
	if (h.has_ports && h.has_options && !swap_far_ports(ctx, h.ports_at))
		return XDP_ABORTED;
	if (bpf_xdp_store_bytes(ctx, len - STEER_SIGNATURE_BYTES, (void *)&magic, sizeof(magic)))
		return XDP_ABORTED;
	counters->packets++;
	counters->bytes += len;
	counters->last_ns = bpf_ktime_get_ns();
	if (!counters->first_ns)
		counters->first_ns = counters->last_ns;
	return XDP_TX;
}

static __always_inline int is_wanted(struct xdp_md *ctx, __u32 rules)
{
	struct steer_tuple tuple = {};

	if (rules & STEER_BY_SIGNATURE && has_signature(ctx, STEER_MAGIC))
		return 1;
	if (rules & STEER_BY_REFLECTED && has_signature(ctx, STEER_REFLECTED_MAGIC))
		return 1;
	if (!(rules & (STEER_BY_PORT | STEER_BY_TUPLE)) || !dissect(ctx, &tuple))
		return 0;
	if (rules & STEER_BY_PORT && tuple.protocol == IPPROTO_UDP) {
		__u32 port = bpf_ntohs(tuple.dst_port);

		if (bpf_map_lookup_elem(&steer_ports, &port))
			return 1;
	}
	return rules & STEER_BY_TUPLE && bpf_map_lookup_elem(&steer_tuples, &tuple);
}

SEC("xdp.frags")
int xske_steer(struct xdp_md *ctx)
{
	__u32 zero = 0, *rules = bpf_map_lookup_elem(&steer_rules, &zero);

	if (!rules)
		return XDP_PASS;
	if (*rules & STEER_REFLECT)
		return reflect(ctx);
	if (is_wanted(ctx, *rules))
		return bpf_redirect_map(&steer_xsks, ctx->rx_queue_index, XDP_PASS);
	return XDP_PASS;
}

char steer_license[] SEC("license") = "Dual MIT/GPL";
