/**
 * Flow states as a middlebox sees them, and their idle timeouts.
 *
 * A table of 32 bytes a state answers every transition: row = state, column = direction << 4 | flags
 * (FIN 1, SYN 2, RST 4, ACK 8). States of other protocols map to themselves, so the packet path
 * asks the same table for every packet and never branches on the protocol.
 *
 *   state         from client            from service           RST          idle timeout
 *   half-open     stays                  established            closing      half-open
 *   established   FIN: fin-client        FIN: fin-service       closing      established
 *   fin-client    stays                  FIN: closing           closing      established
 *   fin-service   FIN: closing           stays                  closing      established
 *   closing       SYN: begins again      stays                  stays        closing
 *   terminated    stays                  stays                  stays        over at once
 *
 * Services of network tables may have an idle timeout of their own. The packet path compares with
 * the shortest one (isIdle); only a flow that has been idle longer than that is asked about exactly.
 */
import {
  CLOCK_STEP_MS_MAX,
  CONFIG_TIMEOUTS_MS,
  CONFIG_TUPLE_HOLD_MS,
  DIRECTION_FROM_CLIENT,
  FLOW_LAST_SEEN_MS,
  FLOW_SERVICE,
  FLOW_STATE,
  FLOW_STATE_CLOSING,
  FLOW_STATE_COUNT,
  FLOW_STATE_ESTABLISHED,
  FLOW_STATE_FIN_CLIENT,
  FLOW_STATE_FIN_SERVICE,
  FLOW_STATE_HALF_OPEN,
  FLOW_STATE_ICMP,
  FLOW_STATE_OTHER,
  FLOW_STATE_UDP,
  FLOW_TIMEOUT_COUNT,
  IMAGE_IDLE_MS_MIN,
  SERVICE_BYTES,
  SERVICE_IDLE_MS,
} from "../abi";
import { config, image, services } from "../memory";
import {
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  TCP_ACK,
  TCP_FIN,
  TCP_RST,
  TCP_SYN,
} from "../packet";

/** Answer of the table for a SYN that begins a new connection on the tuple of an ended one. */
export const STATE_REOPEN: u32 = 0xff;

const transitions: usize = memory.data(512, 64);
/** 1 where a packet neither changes the state nor asks for a closer look. */
const steadiness: usize = memory.data(512, 64);
/** Idle timeouts in ms by state, and after how long idle a flow may be forgotten altogether. */
const timeouts: usize = memory.data(64, 64);
const holds: usize = memory.data(64, 64);
/** The shortest of each that any service has: whoever is not idle that long need not ask further. */
const timeoutsMin: usize = memory.data(64, 64);
const holdsMin: usize = memory.data(64, 64);
const NEVER: u32 = 0x7fffffff;

/** Fills the tables of transitions and timeouts from the configuration and the network image. */
export function prepareStates(): void {
  const hold = load<u32>(config, CONFIG_TUPLE_HOLD_MS);
  const idleMin = image == 0 ? 0 : load<u32>(image, IMAGE_IDLE_MS_MIN);
  for (let state: u32 = 0; state < FLOW_STATE_COUNT; state++) {
    for (let column: u32 = 0; column < 32; column++) {
      const after = next(state, column >> 4, column & 15);
      const at = <usize>((state << 5) | column);
      store<u8>(transitions + at, after);
      const isPlain = state > FLOW_STATE_CLOSING || (column & (TCP_SYN | TCP_ACK)) == TCP_ACK;
      store<u8>(steadiness + at, u8(isPlain && after == <u8>state));
    }
    const isTimed = state < FLOW_TIMEOUT_COUNT;
    const configured = isTimed ? load<u32>(config + <usize>(CONFIG_TIMEOUTS_MS + (state << 2))) : 0;
    const timeout = configured == 0 ? NEVER : configured;
    const shortest = idleMin != 0 && hasIdle(state) ? min<u32>(timeout, idleMin) : timeout;
    const at = <usize>(state << 2);
    store<u32>(timeouts + at, isTimed ? timeout : ALWAYS);
    store<u32>(holds + at, isTimed ? max<u32>(timeout, hold) : hold);
    store<u32>(holdsMin + at, isTimed ? max<u32>(shortest, hold) : hold);
    // A flow that has not been answered always asks further: so its answer takes the long way, too.
    const isAnswered = isTimed && state != FLOW_STATE_HALF_OPEN;
    store<u32>(timeoutsMin + at, isAnswered ? shortest : ALWAYS);
  }
}

/** As a timeout: over at once, whatever the clock says. */
const ALWAYS: u32 = 0x80000000;

/** The states whose timeout is the TCP idle timeout of their service. */
function hasIdle(state: u32): bool {
  return state >= FLOW_STATE_ESTABLISHED && state <= FLOW_STATE_FIN_SERVICE;
}

/** SERVICE_IDLE_MS of the flow's service where it counts, else 0. */
function idleOf(record: usize, state: u32): u32 {
  if (!hasIdle(state)) return 0;
  const service = services + <usize>load<u16>(record, FLOW_SERVICE) * SERVICE_BYTES;
  return load<u32>(service, SERVICE_IDLE_MS);
}

function next(state: u32, direction: u32, flags: u32): u8 {
  if (state > FLOW_STATE_CLOSING) return <u8>state;
  const fromClient = direction == DIRECTION_FROM_CLIENT;
  if (state == FLOW_STATE_CLOSING) {
    const begins = fromClient && (flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
    return <u8>(begins ? STATE_REOPEN : state);
  }
  if (flags & TCP_RST) return <u8>FLOW_STATE_CLOSING;
  const fin = (flags & TCP_FIN) != 0;
  if (state == FLOW_STATE_HALF_OPEN) {
    if (fromClient) return <u8>state;
    return <u8>(fin ? FLOW_STATE_FIN_SERVICE : FLOW_STATE_ESTABLISHED);
  }
  if (!fin) return <u8>state;
  const own = fromClient ? FLOW_STATE_FIN_CLIENT : FLOW_STATE_FIN_SERVICE;
  return <u8>(state == FLOW_STATE_ESTABLISHED || state == own ? own : FLOW_STATE_CLOSING);
}

/** State after a packet, or STATE_REOPEN. */
export function nextState(state: u32, direction: u32, flags: u32): u32 {
  return load<u8>(transitions + <usize>((state << 5) | (direction << 4) | flags));
}

/**
 * True when the packet changes nothing about the flow's state, and, of TCP, is neither a SYN nor without
 * ACK, as all segments of a connection that goes on are.
 */
export function isSteady(state: u32, direction: u32, flags: u32): bool {
  return load<u8>(steadiness + <usize>((state << 5) | (direction << 4) | flags)) != 0;
}

/** State of a flow that begins with this packet: its client's, or the service's if adopted. */
export function firstState(protocol: u8, flags: u8, direction: u32): u32 {
  if (protocol == PROTOCOL_TCP) {
    if (flags & TCP_RST) return FLOW_STATE_CLOSING;
    const fromClient = direction == DIRECTION_FROM_CLIENT;
    const isSyn = (flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
    if (isSyn && fromClient) return FLOW_STATE_HALF_OPEN;
    if (flags & TCP_FIN) return fromClient ? FLOW_STATE_FIN_CLIENT : FLOW_STATE_FIN_SERVICE;
    return FLOW_STATE_ESTABLISHED;
  }
  if (protocol == PROTOCOL_UDP) return FLOW_STATE_UDP;
  const isIcmp = protocol == PROTOCOL_ICMP || protocol == PROTOCOL_ICMPV6;
  return isIcmp ? FLOW_STATE_ICMP : FLOW_STATE_OTHER;
}

/**
 * True when the flow has been idle longer than some service allows in its state, so that the exact
 * question has to be asked; also when it is half-open. Time may step back.
 */
export function isIdle(record: usize, nowMs: u32): bool {
  const idleMs = <i32>(nowMs - load<u32>(record, FLOW_LAST_SEEN_MS));
  return idleMs > <i32>load<u32>(timeoutsMin + ((<usize>load<u8>(record, FLOW_STATE)) << 2));
}

/** True when the flow has been idle longer than its service allows in its state. */
export function isExpired(record: usize, nowMs: u32): bool {
  if (!isIdle(record, nowMs)) return false;
  const idleMs = <i32>(nowMs - load<u32>(record, FLOW_LAST_SEEN_MS));
  const state = <u32>load<u8>(record, FLOW_STATE);
  const own = idleOf(record, state);
  return idleMs > <i32>(own != 0 ? own : load<u32>(timeouts + ((<usize>state) << 2)));
}

/** True when, beyond that, nobody may miss its service-side tuple any more. */
export function isForgettable(record: usize, nowMs: u32): bool {
  const idleMs = <i32>(nowMs - load<u32>(record, FLOW_LAST_SEEN_MS));
  const state = <u32>load<u8>(record, FLOW_STATE);
  if (idleMs <= <i32>load<u32>(holdsMin + ((<usize>state) << 2))) return false;
  return idleMs > <i32>holdOf(record, state);
}

/** Idle timeout of a state where no service has one of its own. */
export function timeoutMsOf(state: u32): u32 {
  return load<u32>(timeouts + ((<usize>state) << 2));
}

/** After how long idle a flow in this state may be forgotten, likewise. */
export function holdMsOf(state: u32): u32 {
  return load<u32>(holds + ((<usize>state) << 2));
}

/** After how long idle a flow in this state may be forgotten. */
function holdOf(record: usize, state: u32): u32 {
  const own = idleOf(record, state);
  if (own == 0) return load<u32>(holds + ((<usize>state) << 2));
  return max<u32>(own, load<u32>(config, CONFIG_TUPLE_HOLD_MS));
}

/** Instant from which on the flow may be forgotten unless a packet of it comes. */
export function forgettableAtMs(record: usize): u32 {
  return load<u32>(record, FLOW_LAST_SEEN_MS) + holdOf(record, load<u8>(record, FLOW_STATE)) + 1;
}

/**
 * The instant `thenMs`, or the oldest (or latest) one that the clock can tell from all others at
 * `nowMs`. All three are true distances apart: `thenMs` from `agedMs`, and that from `nowMs`.
 */
export function inRange(thenMs: u32, agedMs: u32, nowMs: u32): u32 {
  const ageMs = <i64>(<i32>(agedMs - thenMs)) + <i64>(<i32>(nowMs - agedMs));
  if (ageMs > <i64>CLOCK_STEP_MS_MAX) return nowMs - CLOCK_STEP_MS_MAX;
  return ageMs < -(<i64>CLOCK_STEP_MS_MAX) ? nowMs + CLOCK_STEP_MS_MAX : thenMs;
}

/** How far the clock moves with time: CLOCK_STEP_MS_MAX at most, either way. */
export function clockStep(elapsedMs: i64): u32 {
  const stepMax = <i64>CLOCK_STEP_MS_MAX;
  return <u32>min<i64>(max<i64>(elapsedMs, -stepMax), stepMax);
}
