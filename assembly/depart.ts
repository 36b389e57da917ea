/**
 * What leaves through devices: the forwarded frames of a batch, each with its virtio_net_hdr, in
 * order, and the device that has their destination. The host writes what stands in the list.
 *
 * Datagrams that follow each other in one flow may leave as one super-packet, which the kernel cuts
 * again at the receiver (UDP_L4): one write instead of up to 64. They must be equal in all that the
 * kernel copies from the first to the others; only the last may be shorter. Checksums must be
 * partial or verified, or a wrong one would become right.
 *
 * Each frame begins a slot that holds SLOT_FRAME_BYTES from there on.
 */
import {
  BATCH_COUNT_MAX,
  COUNTER_UNREACHABLE,
  DEPARTURE_ADDRESS,
  DEPARTURE_BYTES,
  DEPARTURE_DATAGRAMS,
  DEPARTURE_DEVICE,
  DEPARTURE_FLAG_MERGE,
  DEPARTURE_LENGTH,
  DEVICE_ADDRESS_COUNT_MAX,
  FRAME_ADDRESS,
  FRAME_BYTES,
  FRAME_CAPTURED_BYTES,
  FRAME_FLOW,
  FRAME_PORT_OUT,
  FRAME_VERDICT,
  PORT_BYTES,
  PORT_DEVICE,
  VERDICT_FORWARD,
  VNET_BYTES,
} from "./abi";
import { countUp } from "./counters";
import { emitCount, emits, placeOf } from "./emit";
import { hashWord } from "./hash";
import { counters, frames, ports, reserve } from "./memory";
import { mergeDatagram } from "./merge";

export const departures: usize = memory.data(<i32>(DEPARTURE_BYTES * 3 * BATCH_COUNT_MAX), 64);

// Which device has an address: open addressing, at most half full. An entry is the address (IPv4 in
// its mapped form), the port, and the device plus one.
const SLOT_COUNT: u32 = DEVICE_ADDRESS_COUNT_MAX * 2;
const ENTRY_PORT: usize = 16;
const ENTRY_DEVICE: usize = 20;
const ENTRY_BYTES: usize = 24;
let entries: usize = 0;
let entryCount: u32 = 0;
/** What stands before an IPv4 address in its mapped form, as a little-endian load sees it. */
const MAPPED: u64 = 0xffff0000;

export function reserveDevices(): void {
  entries = reserve(<u64>SLOT_COUNT * ENTRY_BYTES);
  entryCount = 0;
}

function slotOf(port: u32, high: u64, low: u64): usize {
  let slot = <u32>(hashWord(hashWord(high ^ port) ^ low) >> 32) & (SLOT_COUNT - 1);
  while (true) {
    const entry = entries + <usize>slot * ENTRY_BYTES;
    if (load<u32>(entry, ENTRY_DEVICE) == 0) return entry;
    const isHere = load<u64>(entry) == high && load<u64>(entry, 8) == low;
    if (isHere && load<u32>(entry, ENTRY_PORT) == port) return entry;
    slot = (slot + 1) & (SLOT_COUNT - 1);
  }
}

/**
 * Says which device has the 16-byte address at `address` behind a port; false when there is no room.
 */
export function placeAddress(port: u32, address: usize, device: u32): bool {
  const high = load<u64>(address);
  const low = load<u64>(address, 8);
  const entry = slotOf(port, high, low);
  if (load<u32>(entry, ENTRY_DEVICE) == 0) {
    if (entryCount == DEVICE_ADDRESS_COUNT_MAX) return false;
    entryCount++;
  }
  store<u64>(entry, high);
  store<u64>(entry, low, 8);
  store<u32>(entry, port, ENTRY_PORT);
  store<u32>(entry, device + 1, ENTRY_DEVICE);
  return true;
}

/** The device on which the IP packet at `ip` leaves through a port, plus one; 0 = none. */
function deviceOf(port: u32, ip: usize): u32 {
  const device = <u32>load<u16>(ports + <usize>(port * PORT_BYTES), PORT_DEVICE);
  if (device != 0) return device;
  const isIpv4 = load<u8>(ip) >> 4 == 4;
  const high = isIpv4 ? 0 : load<u64>(ip, 24);
  const low = isIpv4 ? MAPPED | ((<u64>load<u32>(ip, 16)) << 32) : load<u64>(ip, 32);
  return load<u32>(slotOf(port, high, low), ENTRY_DEVICE);
}

/**
 * Lists what leaves of the last batch of `count` frames, those that the engine made in their places
 * between them; returns how many departures.
 */
export function listDepartures(count: u32, flags: u32): u32 {
  let next = departures;
  let before: usize = 0;
  let made = emits;
  const madeEnd = emits + <usize>(emitCount() * FRAME_BYTES);
  for (let index: u32 = 0; index < count; index++) {
    const descriptor = frames + <usize>(index * FRAME_BYTES);
    for (; made < madeEnd && placeOf(made) == index << 1; made += FRAME_BYTES) {
      next = addMade(next, made);
      before = 0;
    }
    if (load<u16>(descriptor, FRAME_VERDICT) == VERDICT_FORWARD) {
      const isMerging = (flags & DEPARTURE_FLAG_MERGE) != 0 && before != 0;
      const isMerged =
        isMerging &&
        continues(before, descriptor) &&
        mergeDatagram(next - DEPARTURE_BYTES, descriptor);
      if (!isMerged) {
        const start = next;
        next = addDeparture(next, descriptor);
        before = next == start ? 0 : descriptor;
      }
    }
    for (; made < madeEnd && placeOf(made) == (index << 1) + 1; made += FRAME_BYTES) {
      next = addMade(next, made);
      before = 0;
    }
  }
  return <u32>(next - departures) / DEPARTURE_BYTES;
}

/** Adds a frame that the engine made: its checksums are complete, so its header is empty. */
function addMade(departure: usize, descriptor: usize): usize {
  memory.fill(<usize>(load<u32>(descriptor, FRAME_ADDRESS) - VNET_BYTES), 0, VNET_BYTES);
  return addDeparture(departure, descriptor);
}

/** True when two frames belong to one flow and leave the same way. */
function continues(before: usize, descriptor: usize): bool {
  return (
    load<u32>(before, FRAME_FLOW) == load<u32>(descriptor, FRAME_FLOW) &&
    load<u32>(before, FRAME_VERDICT) == load<u32>(descriptor, FRAME_VERDICT) &&
    load<u16>(before, FRAME_PORT_OUT) == load<u16>(descriptor, FRAME_PORT_OUT)
  );
}

/** Adds a frame if there is a device for it; returns where the list then ends. */
function addDeparture(departure: usize, descriptor: usize): usize {
  const frame = load<u32>(descriptor, FRAME_ADDRESS);
  const device = deviceOf(load<u16>(descriptor, FRAME_PORT_OUT), frame);
  if (device == 0) {
    countUp(counters + COUNTER_UNREACHABLE);
    return departure;
  }
  const bytes = load<u32>(descriptor, FRAME_CAPTURED_BYTES) + VNET_BYTES;
  store<u32>(departure, frame - VNET_BYTES, DEPARTURE_ADDRESS);
  store<u32>(departure, bytes, DEPARTURE_LENGTH);
  store<u32>(departure, device - 1, DEPARTURE_DEVICE);
  store<u32>(departure, 1, DEPARTURE_DATAGRAMS);
  return departure + DEPARTURE_BYTES;
}
