/**
 * Source ports of network address translation, by destination: a port is free when no flow has the
 * service-side tuple that it would make.
 *
 * First come up to PORT_PROBES_MAX ports with the low six bits of the client's, in an order that the
 * flow's keyed hash gives: that keeps parity (RFC 4787 REQ-4), and both sides of a flow can be told
 * apart by the same six bits of their ports.
 *
 * Where the number of flows is limited by the number of ports (AWS: 55,000 per address and
 * destination), one that is free is found for certain: then all ports are looked at. That is up to
 * 55,000 lookups, so an address that turns out to be exhausted towards a destination is remembered
 * until the first of those flows can be over.
 */
import { CONFIG_TUPLE_HOLD_MS } from "../abi";
import { config, hasCrossings } from "../memory";
import { crossedTuple } from "../network/nat64";
import { Packet } from "../packet";
import { setTuple } from "../wire/transport";
import { forgetIfOver } from "./expiry";
import { forgettableAtMs } from "./state";
import { FlowTable, findOwner, flowTable } from "./table";

const PORT_KEPT_BITS: u32 = 6;
const PORT_KEPT_MASK: u32 = (1 << PORT_KEPT_BITS) - 1;
const PORT_PROBES_MAX: u32 = 64;

/** Sixteen primes, none of them a factor of 1,008, 860 or 859: how many ports agree in six bits. */
const strides: usize = memory.data<u8>([
  101, 109, 127, 131, 137, 149, 157, 163, 173, 181, 193, 199, 211, 223, 233, 241,
]);

/** Address and destination that have no free port: hash of both, since when, until when. */
const EXHAUSTED_COUNT: u32 = 256;
const EXHAUSTED_SINCE: usize = 8;
const EXHAUSTED_UNTIL: usize = 12;
const exhausted: usize = memory.data(16 * <i32>EXHAUSTED_COUNT, 64);

/** Forgets who is exhausted: flows have ended that were not over. */
export function forgetExhausted(): void {
  memory.fill(exhausted, 0, 16 * EXHAUSTED_COUNT);
}

/** When the flow that the last `isFree` met may be over, at the earliest. */
let takenUntilMs: u32 = 0;

/**
 * Whether no flow has the tuple; one that is over gives it up. With NAT64, a flow of the other family
 * may have it as well.
 */
export function isFree(table: FlowTable, tuple: Packet, nowMs: u32): bool {
  if (!isFreeIn(table, tuple, nowMs)) return false;
  if (!hasCrossings) return true;
  const crossed = crossedTuple(tuple);
  return crossed == 0 || isFreeIn(flowTable(table.isIpv6 ^ 1), changetype<Packet>(crossed), nowMs);
}

function isFreeIn(table: FlowTable, tuple: Packet, nowMs: u32): bool {
  const owner = findOwner(table, tuple);
  if (owner == 0 || forgetIfOver(table, owner, nowMs)) return true;
  takenUntilMs = forgettableAtMs(owner);
  return false;
}

/**
 * Gives `tuple`, whose addresses are set, the first free port that is at least `portMin`: among 64 of
 * them, or, as `isExact`, among all.
 */
export function allocatePort(
  table: FlowTable,
  tuple: Packet,
  portPair: u32,
  protocolZone: u32,
  portMin: u32,
  isExact: bool,
  order: u64,
  nowMs: u32,
): bool {
  const kept = <u32>bswap<u16>(<u16>portPair) & PORT_KEPT_MASK;
  const lowest = portMin + ((kept - portMin) & PORT_KEPT_MASK);
  const choices: u32 = (65536 - lowest + PORT_KEPT_MASK) >> PORT_KEPT_BITS;
  const stride = <u32>load<u8>(strides + <usize>(<u32>order & 15));
  let choice = <u32>(((order >> 32) * <u64>choices) >> 32);
  for (let probe: u32 = 0; probe < PORT_PROBES_MAX; probe++) {
    setPort(tuple, portPair, lowest + (choice << PORT_KEPT_BITS), protocolZone);
    if (isFree(table, tuple, nowMs)) return true;
    choice += stride;
    if (choice >= choices) choice -= choices;
  }
  return isExact && searchAll(table, tuple, portPair, protocolZone, portMin, order, nowMs);
}

function setPort(tuple: Packet, portPair: u32, port: u32, protocolZone: u32): void {
  setTuple(tuple, (portPair & 0xffff0000) | <u32>bswap<u16>(<u16>port), protocolZone);
}

/** Looks at every port from `portMin` on, unless that has been in vain and no flow can be over yet. */
function searchAll(
  table: FlowTable,
  tuple: Packet,
  portPair: u32,
  protocolZone: u32,
  portMin: u32,
  order: u64,
  nowMs: u32,
): bool {
  setPort(tuple, portPair, 0, protocolZone);
  const hash = tuple.hash;
  const entry = exhausted + <usize>((<u32>hash & (EXHAUSTED_COUNT - 1)) << 4);
  if (load<u64>(entry) == hash) {
    const sinceMs = load<u32>(entry, EXHAUSTED_SINCE);
    const untilMs = load<u32>(entry, EXHAUSTED_UNTIL);
    if (<i32>(nowMs - sinceMs) >= 0 && <i32>(nowMs - untilMs) < 0) return false;
  }
  // A flow that is closed from now on is over after its hold, not before.
  let freeInMs = load<u32>(config, CONFIG_TUPLE_HOLD_MS);
  const count: u32 = 65536 - portMin;
  let offset = <u32>(((order >> 32) * <u64>count) >> 32);
  for (let step: u32 = 0; step < count; step++) {
    setPort(tuple, portPair, portMin + offset, protocolZone);
    if (isFree(table, tuple, nowMs)) return true;
    freeInMs = min<u32>(freeInMs, takenUntilMs - nowMs);
    if (++offset == count) offset = 0;
  }
  store<u64>(entry, hash);
  store<u32>(entry, nowMs, EXHAUSTED_SINCE);
  store<u32>(entry, nowMs + freeInMs, EXHAUSTED_UNTIL);
  return false;
}
