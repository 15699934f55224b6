/* SPDX-License-Identifier: MIT */
/*
 * steer.bpf.c - which received packets go to the AF_XDP sockets of their queue, and which to the kernel. Loaded and
 * attached by xsk_engine/steering.py, which also fills the maps; nothing else writes them.
 *
 *   steer_xsks    queue -> socket; a queue without one passes everything
 *   steer_rules   one word, STEER_*: what is looked at
 *   steer_ports   UDP destination ports, host order; the values are not looked at
 *   steer_tuples  4-tuples of TCP as they stand in a packet that comes in; the values are not looked at. They come and
 *                 go while the program runs
 *   steer_reflected  per CPU, what has been sent back; written here, read by the loader
 *
 * Everything that is not matched passes. Packets of several fragments are looked at too (xdp.frags), headers only in
 * the first one. VLAN tags, at most two, are skipped. IP fragments, and IPv6 with extension headers, match by signature
 * alone.
 *
 * STEER_BY_TUPLE: with a tuple come the ICMP errors about what its connection has sent. They quote one of its packets
 * (RFC 792, RFC 4443 2.4), whose source is our end, so that is looked up the other way round. Of errors in IP
 * fragments, and of those that quote a later fragment, an extension header or too little, nobody can tell: they pass.
 * Whether an error is believed is not decided here (RFC 5927).
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

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "dissect.h"
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

static __always_inline int has_signature(struct xdp_md *ctx, __u32 magic)
{
	__u64 len = bpf_xdp_get_buff_len(ctx);
	__be32 found;

	if (len < ETH_HLEN + STEER_SIGNATURE_BYTES)
		return 0;
	return !bpf_xdp_load_bytes(ctx, len - STEER_SIGNATURE_BYTES, &found, sizeof(found)) &&
	       found == bpf_htonl(magic);
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
	if (h.has_ports && h.has_options && !swap_far_ports(ctx, h.above_at))
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

static __always_inline int has_tuple(const struct steer_tuple *tuple)
{
	return !!bpf_map_lookup_elem(&steer_tuples, tuple);
}

static __always_inline int is_wanted(struct xdp_md *ctx, __u32 rules)
{
	struct steer_tuple tuple = {};
	struct headers h = {};

	if (rules & STEER_BY_SIGNATURE && has_signature(ctx, STEER_MAGIC))
		return 1;
	if (rules & STEER_BY_REFLECTED && has_signature(ctx, STEER_REFLECTED_MAGIC))
		return 1;
	if (!(rules & (STEER_BY_PORT | STEER_BY_TUPLE)) || !find_headers(ctx, &h))
		return 0;
	if (!h.has_ports)
		return rules & STEER_BY_TUPLE && dissect_quoted(ctx, &h, &tuple) && has_tuple(&tuple);
	if (!dissect(ctx, &h, &tuple))
		return 0;
	if (rules & STEER_BY_PORT && tuple.protocol == IPPROTO_UDP) {
		__u32 port = bpf_ntohs(tuple.dst_port);

		if (bpf_map_lookup_elem(&steer_ports, &port))
			return 1;
	}
	return rules & STEER_BY_TUPLE && has_tuple(&tuple);
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
