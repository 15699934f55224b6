/* SPDX-License-Identifier: MIT */
/* option.h - the numbers of the TCP header, for what reads and what writes it (RFC 9293, 3.1; RFC 2018, 2; RFC 7323). */
#ifndef XSKE_TCP_OPTION_H
#define XSKE_TCP_OPTION_H

#define TCP_BYTES 20u
#define TCP_MAX_BYTES 60u

enum {
	OPTION_END = 0,
	OPTION_NOP = 1,
	OPTION_MSS = 2,
	OPTION_WSCALE = 3,
	OPTION_SACK_PERMITTED = 4,
	OPTION_SACK = 5,
	OPTION_TIMESTAMP = 8,
};

/* Lengths with kind and length themselves. */
#define OPTION_MSS_BYTES 4u
#define OPTION_WSCALE_BYTES 3u
#define OPTION_SACK_PERMITTED_BYTES 2u
#define OPTION_TIMESTAMP_BYTES 10u
#define OPTION_SACK_BYTES(blocks) (2u + 8u * (blocks))

#endif
