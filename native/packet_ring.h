/* SPDX-License-Identifier: MIT */
/*
 * packet_ring.h - frames as they come to an interface, beside the kernel, for anybody who has CAP_NET_RAW in its namespace:
 * a packet socket with a receive ring (packet(7), Documentation/networking/packet_mmap.rst).
 *
 * TPACKET_V2: a frame is handed over as soon as it is there; a block of TPACKET_V3 only when it is full, or a
 * millisecond later. The kernel writes a slot and then its status; we read it, and write the status when it is the
 * kernel's again. One thread.
 */
#ifndef XSKE_PACKET_RING_H
#define XSKE_PACKET_RING_H

#include <linux/filter.h>
#include <stdbool.h>
#include <stdint.h>

struct packet_ring {
	int fd;
	uint8_t *memory;
	uint64_t bytes;
	uint32_t slot_bytes;
	uint32_t slots;
	uint32_t next; /* the slot the kernel fills next, as far as we know */
};

struct packet_frame {
	uint8_t *bytes; /* a VLAN tag that the kernel has put beside it is back in its place */
	uint32_t len;
	bool csum_partial; /* the kernel of this host has left the checksum to a device */
	uint64_t wall_ns;  /* CLOCK_REALTIME when the kernel received it */
};

/* Of all that comes to the interface and that `filter` takes (NULL: everything); what goes out is not seen. Frames of up
 * to max_frame_bytes, longer ones are cut off. 0 or a negative errno; packet_ring_close in any case. */
int packet_ring_open(struct packet_ring *ring, uint32_t ifindex, uint32_t max_frame_bytes,
                     const struct sock_fprog *filter, bool promiscuous);
void packet_ring_close(struct packet_ring *ring);
/* The i-th frame from here; false: it has not come yet. */
bool packet_ring_frame(const struct packet_ring *ring, uint32_t i, struct packet_frame *out);
/* n slots go back to the kernel. */
void packet_ring_give_back(struct packet_ring *ring, uint32_t n);
/* Packets that the ring had no room for since the last call. */
uint32_t packet_ring_missed(const struct packet_ring *ring);

#endif
