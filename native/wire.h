/* SPDX-License-Identifier: MIT */
/*
 * wire.h - one direction of the laboratory's wire. All of it belongs to the thread that runs it, but `stop`; the
 * counters are the caller's memory, written here and read by anybody.
 *
 *   w0 --- receive ring --- fate --- held back --- delayed --- batch --- sendmmsg --- w1
 *          (wire_port)   (wire_fate)     (wire_store)          (wire_port)
 *
 * A batch holds pointers to slots of the receive ring (packet_ring.h) and to frames in the stores; slots go back, and
 * stores are settled, when all of the batch has been sent.
 *
 * At most one of drop, duplicate, reorder and corrupt meets a packet, so that each count stands for itself.
 */
#ifndef XSKE_WIRE_H
#define XSKE_WIRE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "packet_ring.h"
#include "util.h"
#include "wire_store.h"
#include "xske.h"

#define WIRE_BATCH 64u

struct wire_port {
	struct packet_ring in;
	int out_fd;
	bool refused; /* the last packet was refused for good: the next is not tried twice */
};

struct xske_wire {
	struct xske_wire_config config;
	struct xske_wire_counters *counters;
	uint64_t key;
	uint64_t numbered; /* packets that are subject to faults so far */
	uint64_t passed;   /* of them: that have gone ahead */
	uint64_t moved_ns; /* when something moved last */
	uint64_t asked_ns; /* when the kernel was asked last what it had no room for */
	struct wire_store held;
	struct wire_store delayed;
	struct wire_port port;
	uint32_t batch_len;
	struct mmsghdr messages[WIRE_BATCH];
	struct iovec iov[WIRE_BATCH];
	_Alignas(
	        XSKE_CACHE_LINE) _Atomic uint32_t stop; /* release, acquire; no wait is longer than POLL_NS */
};

/* ---- wire_port.c: the two interfaces ---- */

/* 0 or a negative errno; port_close in any case. */
int port_open(struct wire_port *port, const struct xske_wire_config *config);
void port_close(struct wire_port *port);

/* Sends all n; returns how many the kernel took. */
uint32_t port_send(struct wire_port *port, struct mmsghdr *messages, uint32_t n);

/* Until a frame is there, or so long. */
void port_wait(struct wire_port *port, uint64_t ns);

void wire_nap(uint64_t ns);
uint64_t wire_now(void);

#endif
