/**
 * Where everything lies. `create()` in index.ts lays the regions out once, grows the memory once
 * and never again: no allocator, no garbage collector, and every view that the host made of the
 * memory stays valid. Regions begin on a cache line.
 *
 * Region sizes are computed in 64 bits, because a sum of them may pass 4 GiB.
 */
import {
  BATCH_COUNT_MAX,
  CAPACITIES_CHANGES_MAX,
  CAPACITY_BYTES,
  CAPACITY_CHANGE_BYTES,
  CAPACITY_COUNT_MAX,
  CONFIG_BYTES,
  COUNTERS_BYTES,
  FRAME_BYTES,
  IMAGE_CROSSES,
  IMAGE_MTU_MIN,
  IMAGE_SERVICES,
  LAYOUT_BYTES,
  PORT_BYTES,
  PORT_COUNT_MAX,
  SERVICE_BYTES,
  SERVICE_COUNT_MAX,
  TALLY_BYTES,
  TRAITS_BYTES,
  USAGE_BYTES,
} from "./abi";

export const CACHE_LINE_BYTES: u32 = 64;

/** Fixed-size regions lie in the module's own data segment: their addresses are constants. */
export const config: usize = memory.data(<i32>CONFIG_BYTES, 64);
export const layout: usize = memory.data(<i32>LAYOUT_BYTES, 64);
export const counters: usize = memory.data(<i32>COUNTERS_BYTES, 64);
export const frames: usize = memory.data(<i32>(FRAME_BYTES * BATCH_COUNT_MAX), 64);
/** Number of the record that each descriptor was made of, where workers share a capture. */
export const recordNumbers: usize = memory.data(<i32>(4 * BATCH_COUNT_MAX), 64);
/** The capture's clock at each of those records, in ms since its first one, as f64. */
export const recordTimes: usize = memory.data(<i32>(8 * BATCH_COUNT_MAX), 64);
export const ports: usize = memory.data(<i32>(PORT_BYTES * PORT_COUNT_MAX), 64);
export const ownServices: usize = memory.data(<i32>(SERVICE_BYTES * SERVICE_COUNT_MAX), 64);
export const usage: usize = memory.data(<i32>(USAGE_BYTES * SERVICE_COUNT_MAX), 64);
export const tallies: usize = memory.data(<i32>(TALLY_BYTES * SERVICE_COUNT_MAX), 64);
export const traits: usize = memory.data(<i32>(TRAITS_BYTES * SERVICE_COUNT_MAX), 64);

export const capacities: usize = memory.data(<i32>(CAPACITY_BYTES * CAPACITY_COUNT_MAX), 64);
export const capacityChanges: usize = memory.data(
  <i32>(CAPACITY_CHANGE_BYTES * (CAPACITIES_CHANGES_MAX + 1)),
  64,
);

/** Services in use: those of `setService`, or those of the network image. */
export let services: usize = ownServices;
/** The network image in use, 0 = none. */
export let image: usize = 0;

/** Longest IP packet that the packet path need not hold against the MTU of its service. */
export let plainBytesMax: u32 = 0xffff;

/** Whether this engine is one of several: new flows are proposed before they begin. */
export let asksFirst: bool = false;

export function askFirst(isOn: u32): void {
  asksFirst = isOn != 0;
}

/** Whether some service lets packets cross between IPv6 and IPv4. */
export let hasCrossings: bool = false;

/** Swaps the network image and its services in; 0 = none, and the services of `setService`. */
export function setImage(address: usize): void {
  image = address;
  services = address == 0 ? ownServices : <usize>load<u32>(address, IMAGE_SERVICES);
  const mtu = address == 0 ? 0 : load<u32>(address, IMAGE_MTU_MIN);
  hasCrossings = address != 0 && load<u32>(address, IMAGE_CROSSES) != 0;
  plainBytesMax = mtu == 0 ? 0xffff : mtu;
}

/** Next free byte; u64 so that running past 4 GiB shows instead of wrapping. */
let end: u64 = 0;

/** Starts the layout behind the module's static data. */
export function begin(): void {
  end = align(<u64>__heap_base);
}

/** Reserves `bytes` on a cache line and returns the address; checked by `commit`. */
export function reserve(bytes: u64): usize {
  const address = end;
  end = align(end + bytes);
  return <usize>address;
}

export function totalBytes(): u64 {
  return end;
}

/** Grows the memory to hold all that was reserved; false when that is more than there is. */
export function commit(): bool {
  if (end > 0xffff0000) return false;
  const pages = <i32>((end + 0xffff) >> 16);
  const missing = pages - memory.size();
  return missing <= 0 || memory.grow(missing) >= 0;
}

function align(address: u64): u64 {
  return (address + CACHE_LINE_BYTES - 1) & ~(<u64>CACHE_LINE_BYTES - 1);
}
