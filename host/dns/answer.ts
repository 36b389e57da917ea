/**
 * A DNS query in, the response out (RFC 1034, 1035, 2308, 6891, 8482). A pure function of the
 * message, the view, who asks and a source of randomness; sockets are in server.ts.
 *
 * Whatever the bytes are, this answers or stays silent, and never throws: a message that is
 * shorter than a header, or a response, gets nothing; one that cannot be read gets FORMERR. The
 * question is answered as it was spelt. All records live 60 seconds, as those of AWS do.
 */

import type { Answer, Packet, Question } from "dns-packet";
import type { DnsAddress, DnsName, DnsView } from "./view.ts";

export type Codec = Pick<typeof import("dns-packet"), "decode" | "encode">;

/** Who asks, and what decides. */
export interface Asked {
  view: DnsView;
  /** Availability zone of the client, where it is known. */
  clientZone?: string | undefined;
  /** Most bytes that the transport carries, when the query does not say more. */
  transport: "udp" | "tcp";
  /** Whether names outside the view are asked for elsewhere; otherwise they are refused. */
  isForwarding: boolean;
  /** 0 to 1, for the order of addresses and for routing policies. */
  random: () => number;
}

export type Reply =
  | { kind: "silence" }
  | { kind: "response"; bytes: Uint8Array }
  /** The whole message is for another resolver. */
  | { kind: "forward" }
  /** `packet` ends with an alias to a name outside; its records complete the answer. */
  | { kind: "complete"; packet: Packet; question: Question };

const TTL_SECONDS = 60;
const HEADER_BYTES = 12;
/** RFC 6891: what a query without EDNS may get, and what one with it gets at most over UDP. */
const PLAIN_BYTES_MAX = 512;
export const EDNS_BYTES_MAX = 1232;
const ALIASES_MAX = 8;

const FLAG_RESPONSE = 0x8000;
const FLAG_AUTHORITATIVE = 0x0400;
const FLAG_TRUNCATED = 0x0200;
const FLAG_RECURSION_DESIRED = 0x0100;
const FLAG_RECURSION_AVAILABLE = 0x0080;

const NOERROR = 0;
const FORMERR = 1;
const NXDOMAIN = 3;
const NOTIMP = 4;
const REFUSED = 5;
/** Extended: its upper bits travel in the OPT record. */
const BADVERS_UPPER = 1;

/** What the resolver does with a message. */
export function answer(codec: Codec, message: Uint8Array, asked: Asked): Reply {
  if (message.length < HEADER_BYTES) return { kind: "silence" };
  const header = new DataView(message.buffer, message.byteOffset, message.length);
  const flags = header.getUint16(2);
  if (flags & FLAG_RESPONSE) return { kind: "silence" };
  if ((flags >> 11) & 0xf) return headerOnly(header, NOTIMP);
  const query = readQuery(codec, message);
  const question = query?.questions?.[0];
  if (query === undefined || question === undefined) return headerOnly(header, FORMERR);
  const opt = optOf(query);
  const response: Packet = {
    type: "response",
    id: query.id ?? 0,
    flags: responseFlags(flags, asked.isForwarding),
    questions: [question],
    answers: [],
    authorities: [],
    additionals: opt ? [optRecord(0)] : [],
  };
  if (opt && (opt.ednsVersion ?? 0) > 0) {
    response.additionals = [optRecord(BADVERS_UPPER)];
    return finished(codec, response, asked, opt.udpPayloadSize);
  }
  if (!["IN", "ANY"].includes(question.class ?? "IN") || /^[AI]XFR$/.test(question.type)) {
    return finished(codec, withCode(response, REFUSED), asked, opt?.udpPayloadSize);
  }
  const outcome = fillIn(response, question, asked);
  if (outcome === "forward") return { kind: "forward" };
  if (outcome) return { kind: "complete", packet: response, question: outcome };
  return finished(codec, response, asked, opt?.udpPayloadSize);
}

/** Bytes of a response, cut down to a truncated one where they are too many. */
export function encoded(
  codec: Codec,
  response: Packet,
  transport: "udp" | "tcp",
  udpPayloadSize?: number,
): Uint8Array {
  const bytes = codec.encode(response);
  const bytesMax = Math.min(Math.max(udpPayloadSize ?? 0, PLAIN_BYTES_MAX), EDNS_BYTES_MAX);
  if (transport === "tcp" ? bytes.length <= 65_535 : bytes.length <= bytesMax) return bytes;
  const flags = (response.flags ?? 0) | FLAG_TRUNCATED;
  return codec.encode({ ...response, flags, answers: [], authorities: [] });
}

/** The size that a query's OPT record offers, where it has one. */
export function offeredBytes(codec: Codec, message: Uint8Array): number | undefined {
  const query = readQuery(codec, message);
  return query && optOf(query)?.udpPayloadSize;
}

function finished(codec: Codec, response: Packet, asked: Asked, offered?: number): Reply {
  return { kind: "response", bytes: encoded(codec, response, asked.transport, offered) };
}

/** A query with exactly one question that the codec would write in the same bytes. */
function readQuery(codec: Codec, message: Uint8Array): Packet | undefined {
  try {
    const query = codec.decode(Buffer.from(message));
    if (query.questions?.length !== 1 || query.answers?.length) return undefined;
    const again = codec.encode({ type: "query", id: 0, questions: query.questions });
    const isSame = again.subarray(HEADER_BYTES).every((byte, at) => {
      return byte === message[HEADER_BYTES + at];
    });
    return isSame ? query : undefined;
  } catch {
    return undefined;
  }
}

function optOf(query: Packet) {
  const record = query.additionals?.find(({ type }) => type === "OPT");
  return record as { udpPayloadSize?: number; ednsVersion?: number } | undefined;
}

function optRecord(extendedRcode: number): Answer {
  const record = {
    type: "OPT",
    name: ".",
    udpPayloadSize: EDNS_BYTES_MAX,
    extendedRcode,
    ednsVersion: 0,
    flags: 0,
    flag_do: false,
    options: [],
  };
  return record as Answer;
}

/** Nothing of the message can be trusted but its number: a response of a header alone. */
function headerOnly(query: DataView, code: number): Reply {
  const bytes = new Uint8Array(HEADER_BYTES);
  const header = new DataView(bytes.buffer);
  header.setUint16(0, query.getUint16(0));
  const kept = query.getUint16(2) & (0x7800 | FLAG_RECURSION_DESIRED);
  header.setUint16(2, FLAG_RESPONSE | kept | code);
  return { kind: "response", bytes };
}

function responseFlags(query: number, isForwarding: boolean): number {
  return (query & FLAG_RECURSION_DESIRED) | (isForwarding ? FLAG_RECURSION_AVAILABLE : 0);
}

function withCode(response: Packet, code: number): Packet {
  response.flags = ((response.flags ?? 0) & ~0xf) | code;
  return response;
}

/** Follows aliases. @returns what another resolver has to do, where it has to */
function fillIn(response: Packet, question: Question, asked: Asked): "forward" | Question | null {
  let name = question.name === "." ? "" : question.name;
  const type: string = question.type;
  for (let aliases = 0; aliases <= ALIASES_MAX; aliases++) {
    const found = asked.view.find(name);
    if (found.kind === "outside") {
      if (asked.isForwarding) return aliases === 0 ? "forward" : { ...question, name };
      if (aliases === 0) withCode(response, REFUSED);
      return null;
    }
    response.flags = (response.flags ?? 0) | FLAG_AUTHORITATIVE;
    if (found.kind === "missing") {
      withCode(response, NXDOMAIN).authorities = [soa(found.zone)];
      return null;
    }
    const { entry, zone } = found;
    if (entry.cname === undefined || type === "CNAME" || type === "ANY") {
      const records = recordsOf(entry, name, zone, type, asked);
      response.answers?.push(...records);
      if (records.length === 0) response.authorities = [soa(zone)];
      return null;
    }
    response.answers?.push({ type: "CNAME", name, ttl: TTL_SECONDS, data: entry.cname });
    name = entry.cname;
  }
  // A ring of aliases: what was found so far is the answer, as every link of it is true.
  withCode(response, NOERROR);
  return null;
}

function recordsOf(
  entry: DnsName,
  name: string,
  zone: string,
  type: string,
  asked: Asked,
): Answer[] {
  const common = { name, ttl: TTL_SECONDS };
  const isApex = name.toLowerCase() === zone;
  switch (type) {
    case "A":
    case "AAAA": {
      const isSix = type === "AAAA";
      const fitting = (entry.addresses ?? []).filter(({ address }) => {
        return address.includes(":") === isSix;
      });
      const chosen = routed(fitting, entry.policy ?? "any_availability_zone", asked);
      return chosen.map(({ address }) => ({ ...common, type, data: address }));
    }
    case "TXT":
      return (entry.texts ?? []).map((text) => ({ ...common, type: "TXT", data: [text] }));
    case "CNAME":
      return entry.cname === undefined ? [] : [{ ...common, type: "CNAME", data: entry.cname }];
    case "SOA":
      return isApex ? [soa(zone)] : [];
    case "NS":
      return isApex ? [{ ...common, type: "NS", data: `ns.${zone}` }] : [];
    case "ANY":
      if (entry.cname !== undefined) return [{ ...common, type: "CNAME", data: entry.cname }];
      // RFC 8482, 4.2: one record that says why there are no more.
      return [{ ...common, type: "HINFO", data: { cpu: "RFC8482", os: "" } }];
    default:
      return [];
  }
}

/** Share of queries that prefer the client's own zone. */
const AFFINITY: Record<string, number> = {
  any_availability_zone: 0,
  partial_availability_zone_affinity: 0.85,
  availability_zone_affinity: 1,
};

/** Addresses in the order of the answer: those of the client's zone alone, or all, shuffled. */
function routed(all: readonly DnsAddress[], policy: string, asked: Asked): DnsAddress[] {
  const isLocal = asked.random() < (AFFINITY[policy] ?? 0);
  const own = isLocal
    ? all.filter(({ zone }) => zone !== undefined && zone === asked.clientZone)
    : [];
  const chosen = own.length > 0 ? own : [...all];
  for (let last = chosen.length - 1; last > 0; last--) {
    const other = Math.floor(asked.random() * (last + 1));
    [chosen[last], chosen[other]] = [chosen[other] as DnsAddress, chosen[last] as DnsAddress];
  }
  return chosen;
}

/** Start of authority: says how long an absence may be remembered (RFC 2308). */
function soa(zone: string): Answer {
  return {
    type: "SOA",
    name: zone,
    ttl: TTL_SECONDS,
    data: {
      mname: `ns.${zone}`,
      rname: `hostmaster.${zone}`,
      serial: 1,
      refresh: 7200,
      retry: 900,
      expire: 1_209_600,
      minimum: TTL_SECONDS,
    },
  };
}
