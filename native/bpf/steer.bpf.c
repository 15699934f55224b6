/* SPDX-License-Identifier: MIT */
/*
 * steer.bpf.c - which received packets go to the AF_XDP sockets of their queue, and which to the kernel. Loaded and
 * attached by xsk_engine/steering.py, which also fills the maps; nothing else writes them.
 *
 *   steer_xsks    queue -> socket; a queue without one passes everything
 *   steer_rules   one word, RULE_*: what is looked at
 *   steer_ports   UDP destination ports, host order; the values are not looked at
 *   steer_tuples  4-tuples of TCP and UDP as they stand in the packet
 *
 * Everything that is not matched passes. Packets of several fragments are looked at too (xdp.frags), headers only in
 * the first one. IPv4 options and fragments, and IPv6 with extension headers, match by signature alone.
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

struct vlan_tag {
	__be16 tci;
	__be16 protocol;
};

/* Ports stand at the same place in UDP and TCP. */
struct ports {
	__be16 src;
	__be16 dst;
};

static __always_inline int has_signature(struct xdp_md *ctx)
{
	__u64 len = bpf_xdp_get_buff_len(ctx);
	__be32 magic;

	if (len < ETH_HLEN + STEER_SIGNATURE_BYTES)
		return 0;
	return !bpf_xdp_load_bytes(ctx, len - STEER_SIGNATURE_BYTES, &magic, sizeof(magic)) &&
	       magic == bpf_htonl(STEER_MAGIC);
}

/* 1: addresses, protocol and ports are in the tuple. */
static __always_inline int dissect(struct xdp_md *ctx, struct steer_tuple *tuple)
{
	void *at = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = at;
	struct ports *ports;
	__be16 protocol;

	if ((void *)(eth + 1) > end)
		return 0;
	protocol = eth->h_proto;
	at = eth + 1;
	for (int i = 0; i < 2; i++) {
		struct vlan_tag *tag = at;

		if (protocol != bpf_htons(ETH_P_8021Q) && protocol != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 1) > end)
			return 0;
		protocol = tag->protocol;
		at = tag + 1;
	}
	if (protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = at;

		if ((void *)(ip + 1) > end || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff))
			return 0;
		tuple->src[3] = ip->saddr;
		tuple->dst[3] = ip->daddr;
		tuple->version = 4;
		tuple->protocol = ip->protocol;
		at = ip + 1;
	} else if (protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = at;

		if ((void *)(ip + 1) > end)
			return 0;
		__builtin_memcpy(tuple->src, &ip->saddr, 16);
		__builtin_memcpy(tuple->dst, &ip->daddr, 16);
		tuple->version = 6;
		tuple->protocol = ip->nexthdr;
		at = ip + 1;
	} else {
		return 0;
	}
	if (tuple->protocol != IPPROTO_UDP && tuple->protocol != IPPROTO_TCP)
		return 0;
	ports = at;
	if ((void *)(ports + 1) > end)
		return 0;
	tuple->src_port = ports->src;
	tuple->dst_port = ports->dst;
	return 1;
}

static __always_inline int is_wanted(struct xdp_md *ctx, __u32 rules)
{
	struct steer_tuple tuple = {};

	if (rules & STEER_BY_SIGNATURE && has_signature(ctx))
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

	if (rules && is_wanted(ctx, *rules))
		return bpf_redirect_map(&steer_xsks, ctx->rx_queue_index, XDP_PASS);
	return XDP_PASS;
}

char steer_license[] SEC("license") = "Dual MIT/GPL";
