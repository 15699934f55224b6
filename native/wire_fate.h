/* SPDX-License-Identifier: MIT */
/*
 * wire_fate.h - which packet the wire does what to. Pure: the fate of a packet depends on nothing but the key
 * (of seed and direction) and on its number among the packets that are subject to faults: those with an IP header.
 * What resolves addresses is not, so that it works under loss, and so that the moment at which a kernel resolves or
 * announces something does not shift the fate of others: ARP, IPv6 neighbour discovery, and multicast that does not
 * leave the link.
 */
#ifndef XSKE_WIRE_FATE_H
#define XSKE_WIRE_FATE_H

#include <stdbool.h>
#include <stdint.h>

#include "xske.h"

enum wire_fate {
	WIRE_PASS = 0,
	WIRE_DROP = 1,
	WIRE_DUPLICATE = 2,
	WIRE_REORDER = 3,
	WIRE_CORRUPT = 4,
};

/* One of the four faults at most: they share one random number. */
enum wire_fate wire_fate(const struct xske_wire_config *config, uint64_t key, uint64_t number);

/* Is the frame subject to faults? Then *ip is where its IP header starts, behind up to two VLAN tags. */
bool wire_find_ip(const uint8_t *frame, uint32_t len, uint32_t *ip);

/* Flips one bit behind the transport header of UDP and TCP, else behind the IP header; never in the padding of
 * a short frame. false: there is no such byte, nothing was changed. */
bool wire_corrupt(uint8_t *frame, uint32_t len, uint32_t ip, uint64_t key, uint64_t number);

#endif
