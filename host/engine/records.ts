/** Reads flow records and usage blocks (FLOW_*, KEY_*, USAGE_* of abi.ts) into plain objects. */
import * as abi from "../../assembly/abi.ts";
import { addressText } from "../address.ts";
import type { Blocked, Counters, EmitName, Endpoint, Flow, Usage, VerdictName } from "./api.ts";
import { EMIT_NAMES, VERDICT_NAMES } from "./names.ts";

/** Names of states by FLOW_STATE_* value. */
export const STATES: readonly Flow["state"][] = [
  "half-open",
  "established",
  "fin-client",
  "fin-service",
  "closing",
  "udp",
  "icmp",
  "other",
  "terminated",
  "proposed",
];

const PROTOCOLS: Record<number, string> = { 1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6" };

/** The two endpoints of one side of a record, the client's first. */
function endpoints(
  view: DataView,
  record: number,
  side: number,
  isIpv6: boolean,
): [Endpoint, Endpoint] {
  const key = record + side * abi.KEY_BYTES;
  const flags = view.getUint8(record + abi.FLOW_FLAGS);
  const clientIsHigh = ((flags >> side) & 1) === 1;
  const addresses = isIpv6
    ? record + (side === abi.SIDE_CLIENT ? abi.FLOW6_CLIENT_LOW : abi.FLOW6_SERVICE_LOW)
    : key;
  const bytes = isIpv6 ? 16 : 4;
  const endpoint = (isHigh: boolean): Endpoint => ({
    address: addressText(new Uint8Array(view.buffer, addresses + (isHigh ? bytes : 0), bytes)),
    port: view.getUint16(key + (isHigh ? abi.KEY_HIGH_PORT_BE : abi.KEY_LOW_PORT_BE)),
  });
  return [endpoint(clientIsHigh), endpoint(!clientIsHigh)];
}

/** How far a flow's PROXY header is, by its flags. */
function headerOf(flags: number, isDatagrams: boolean): Pick<Flow, "header"> {
  const isOpen = (flags & abi.FLOW_FLAG_OPEN) !== 0;
  if ((flags & abi.FLOW_FLAG_HEADER) !== 0) return { header: isOpen ? "sent" : "acknowledged" };
  return isOpen ? { header: isDatagrams ? "in-datagrams" : "due" } : {};
}

/** The flow at `record`, copied. */
export function readFlow(view: DataView, handle: number, record: number): Flow {
  const isIpv6 = (handle & abi.HANDLE_IPV6) !== 0;
  const [client, service] = endpoints(view, record, abi.SIDE_CLIENT, isIpv6);
  const [translatedClient, translatedService] = endpoints(view, record, abi.SIDE_SERVICE, isIpv6);
  const protocol = view.getUint8(record + abi.KEY_PROTOCOL);
  const octets = (field: number) =>
    view.getUint32(record + field, true) + view.getUint16(record + field + 4, true) * 2 ** 32;
  return {
    handle,
    protocol: PROTOCOLS[protocol] ?? String(protocol),
    zone: view.getUint32(record + abi.KEY_PROTOCOL, true) >>> 8,
    client,
    service,
    translatedClient,
    translatedService,
    state: STATES[view.getUint8(record + abi.FLOW_STATE)] as Flow["state"],
    ...headerOf(view.getUint8(record + abi.FLOW_FLAGS), protocol === 17),
    packetsFromClient: view.getUint32(record + abi.FLOW_PACKETS_CLIENT, true),
    packetsFromService: view.getUint32(record + abi.FLOW_PACKETS_SERVICE, true),
    bytesFromClient: octets(abi.FLOW_OCTETS_CLIENT),
    bytesFromService: octets(abi.FLOW_OCTETS_SERVICE),
    lastSeenMs: view.getUint32(record + abi.FLOW_LAST_SEEN_MS, true),
    madeBy: view.getUint16(record + abi.FLOW_SERVICE, true),
  };
}

/** The counters at `base`, copied. */
export function readCounters(view: DataView, base: number): Counters {
  const read = (field: number) => Number(view.getBigUint64(base + field, true));
  const verdicts = {} as Record<VerdictName, number>;
  for (const [value, name] of VERDICT_NAMES.entries()) {
    verdicts[name] = read(abi.COUNTER_VERDICTS + value * 8);
  }
  const flows = {
    created: read(abi.COUNTER_FLOWS_CREATED),
    expired: read(abi.COUNTER_FLOWS_EXPIRED),
    reopened: read(abi.COUNTER_FLOWS_REOPENED),
    active: read(abi.COUNTER_FLOWS_ACTIVE),
    activeMax: read(abi.COUNTER_FLOWS_ACTIVE_MAX),
    spilled: read(abi.COUNTER_FLOWS_SPILLED),
    tcp: read(abi.COUNTER_FLOWS_TCP),
    udp: read(abi.COUNTER_FLOWS_UDP),
    icmp: read(abi.COUNTER_FLOWS_ICMP),
    other: read(abi.COUNTER_FLOWS_OTHER),
  };
  const emitted = {} as Record<EmitName, number>;
  for (const [kind, name] of EMIT_NAMES.entries()) {
    emitted[name] = read(abi.COUNTER_EMITTED + kind * 8);
  }
  const proxyProtocol = {
    repeated: read(abi.COUNTER_PP2_REPEATED),
    clamped: read(abi.COUNTER_PP2_CLAMPED),
    adopted: read(abi.COUNTER_PP2_ADOPTED),
    cut: read(abi.COUNTER_PP2_CUT),
    datagrams: read(abi.COUNTER_PP2_DATAGRAMS),
  };
  const unreachable = read(abi.COUNTER_UNREACHABLE);
  return { verdicts, flows, emitted, proxyProtocol, unreachable };
}

const TALLY_SHIFT = BigInt(abi.TALLY_PACKETS_SHIFT);
const TALLY_MASK = (1n << TALLY_SHIFT) - 1n;

/** The usage block at `base`, copied, with what the service has tallied since at `tally`. */
export function readUsage(view: DataView, base: number, tally: number): Usage {
  const read = (field: number) => Number(view.getBigUint64(base + field, true));
  const tallies = [0, 8].map((lane) => view.getBigUint64(tally + lane, true));
  const [packetsFromClient = 0, packetsFromService = 0] = tallies.map((both, lane) => {
    return read(abi.USAGE_PACKETS_CLIENT + lane * 8) + Number(both >> TALLY_SHIFT);
  });
  const [bytesFromClient = 0, bytesToClient = 0] = tallies.map((both, lane) => {
    return read(abi.USAGE_OCTETS_CLIENT + lane * 8) + Number(both & TALLY_MASK);
  });
  const blocked = (field: number): Blocked => ({
    tcp: read(field),
    udp: read(field + 8),
    other: read(field + 16),
  });
  return {
    packetsFromClient,
    packetsFromService,
    bytesFromClient,
    bytesFromService: bytesToClient - read(abi.USAGE_CROSSED_SERVICE),
    bytesToService: bytesFromClient - read(abi.USAGE_CROSSED_CLIENT),
    bytesToClient,
    flowsCreated: read(abi.USAGE_FLOWS_CREATED),
    flowsActive: read(abi.USAGE_FLOWS_ACTIVE),
    portsExhausted: read(abi.USAGE_PORTS_EXHAUSTED),
    tcp: { created: read(abi.USAGE_FLOWS_TCP), active: read(abi.USAGE_ACTIVE_TCP) },
    udp: { created: read(abi.USAGE_FLOWS_UDP), active: read(abi.USAGE_ACTIVE_UDP) },
    established: read(abi.USAGE_ESTABLISHED),
    idleTimeouts: read(abi.USAGE_IDLE_TIMEOUTS),
    resets: {
      client: read(abi.USAGE_RESETS_CLIENT),
      service: read(abi.USAGE_RESETS_SERVICE),
      made: read(abi.USAGE_RESETS_MADE),
    },
    flowsRefused: read(abi.USAGE_REFUSED),
    flowsFailOpen: read(abi.USAGE_FAIL_OPEN),
    unintended: read(abi.USAGE_UNINTENDED),
    blocked: {
      inbound: blocked(abi.USAGE_BLOCKED),
      outbound: blocked(abi.USAGE_BLOCKED + 24),
      endpoint: read(abi.USAGE_BLOCKED_ENDPOINT),
    },
    packetsDropped: read(abi.USAGE_DROPPED),
  };
}
