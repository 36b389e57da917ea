/** The schema of what only a live lab has: its machines, names beside AWS's, views. */

import { z } from "zod";
import {
  address,
  address4,
  integer,
  list,
  name,
  named,
  object,
  oneOf,
  text,
  truth,
  unique,
} from "./parts.ts";

const DNS_NAME_MAX = 253;
/** One character-string of RFC 1035, whose length is one byte. */
const DNS_TEXT_BYTES_MAX = 255;

const mtu = integer(1280, 65_535);

const host = object({
  vpc: name.describe("VPC that it stands in, or internet"),
  addresses: list(address, 16).check(unique((one: string) => one)),
  mtu: mtu.optional().describe("default: that of the lab"),
});

/** Names as dns/view.ts takes them. */
const LABELS = "([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\\.)*";
export const domain = text(
  new RegExp(`^${LABELS}[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`),
  "a domain name in lower case",
).max(DNS_NAME_MAX, { error: `is longer than ${DNS_NAME_MAX} characters` });

/** A name in a zone of one's own, and what is found under it. */
export const dnsRecord = object({
  name: text(
    new RegExp(`^(@|\\*|(\\*\\.)?${LABELS}[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)$`),
    "a name in lower case, * or @",
  ),
  addresses: list(address, 32).optional(),
  cname: domain.optional(),
  texts: list(
    z.string().refine((one) => new TextEncoder().encode(one).length <= DNS_TEXT_BYTES_MAX, {
      error: `is longer than ${DNS_TEXT_BYTES_MAX} bytes`,
    }),
    16,
  ).optional(),
});

const dns = object({
  forward: list(address4, 3)
    .optional()
    .describe("resolvers that are asked for other names; default: other names are refused"),
  zones: named(
    list(dnsRecord, 1000, 0).check(unique(({ name: one }: { name: string }) => one)),
    100,
    domain,
  )
    .prefault({})
    .describe("zones of one's own, seen in every VPC"),
});

const redis = object({
  servers: list(text(/^(.+:\d{1,5}|\/.+)$/, "host:port or the path of a socket"), 32),
  is_cluster: truth.optional().describe("default: when there are several servers"),
  password: z.string().optional(),
});

const nodes = object({
  count: integer(2, 64).describe("processes that carry the lab's packets together"),
  per_resource: integer(1, 64)
    .optional()
    .describe("nodes of each resource, a shuffle shard of its own; default all"),
  redis: redis.optional().describe("keeps what nodes decide; default: the lab's own process"),
});

const room = object({
  services: integer(1, 16_384).describe("listeners of endpoints and nodes, NAT gateways, routes"),
  targets: integer(0, 1_000_000).describe("in the lists of all services"),
  ring_entries: integer(0, 100_000_000).describe(
    "1,021 a list of targets, more from 11 targets on",
  ),
  rules: integer(0, 1_000_000).describe("of security groups"),
  entries: integer(1, 1_000_000).describe("VPCs, addresses, listeners, routes, subnets"),
});

export const lab = object({
  name: text(/^[A-Za-z0-9][A-Za-z0-9_-]{0,30}$/, "a name of 1 to 31 letters, digits, _ and -"),
  prefix: text(/^[A-Za-z0-9_-]{0,16}$/, "at most 16 letters, digits, _ and -")
    .default("")
    .describe("stands before the names of all namespaces"),
  hosts: named(host, 200)
    .prefault({})
    .describe("machines by the name of their namespace; targets that are not here get one as well"),
  dns: dns.prefault({}),
  http: integer(0, 65_535)
    .optional()
    .describe("port of the page and the metrics on 127.0.0.1; 0 = any; default: no page"),
  webhooks: list(z.url({ protocol: /^https?$/, error: "is not an http or https URL" }), 8, 0)
    .default([])
    .describe("where events of endpoints go"),
  workers: integer(1, 64).default(1),
  nodes: nodes.optional().describe("default: the lab's own process carries its packets"),
  priority: oneOf("realtime", "normal")
    .default("normal")
    .describe("of workers; realtime goes before all other programs, if a core is left for those"),
  room: room
    .optional()
    .describe(
      "what network tables may hold; each reload then does the work of full ones (constant work)",
    ),
  offload: oneOf("udp", "tcp", "none").default("udp").describe("the best that devices may use"),
  io: oneOf("ring", "calls")
    .default("ring")
    .describe("ring: many packets by one system call (io_uring), where the kernel has it"),
  busy_poll_ms: integer(0, 1000)
    .default(0)
    .describe("workers stay awake that long after a packet; costs a core while traffic comes"),
  mtu: mtu.default(1500),
});

export type LabConfig = z.output<typeof lab>;
