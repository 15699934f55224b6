/* SPDX-License-Identifier: MIT */
/* Stands in for GLib: qemu-plugin.h names these two types in functions that count.c does not use. */
typedef struct GArray GArray;
typedef struct GByteArray GByteArray;
