/**
 * Addresses and ports of the connections of a channel (tcp-channel.ts): always the same, or as a seed tells.
 * The latter have many bytes of all zeros and all ones, for sums of words carry there, and ends in either
 * order, for the engine keeps the smaller one first.
 */
import { addressText } from "../fixtures/bytes.ts";

export interface Ends {
  address: string;
  port: number;
}

export interface World {
  /** Where clients connect to, IPv4 and IPv6. */
  listeners: readonly [string, string];
  listenerPort: number;
  targets: readonly string[];
  targetPort: number;
  /** Addresses that targets see; none: they see the client's. */
  nodes: readonly string[];
  /** The client of a connection by its number. */
  clientOf(index: number, isIpv6: boolean): Ends;
}

export const FIXED: World = {
  listeners: ["192.0.2.80", "2001:db8:f::80"],
  listenerPort: 443,
  targets: ["100.64.0.1", "100.64.0.2", "2001:db8:0:3::1"],
  targetPort: 8080,
  nodes: ["198.19.255.1", "2001:db8:0:2::1"],
  clientOf: (index, isIpv6) => ({
    address: isIpv6 ? "2001:db8::9" : "10.0.0.9",
    port: 1024 + index,
  }),
};

const PRESERVED_SHARE = 0.25;
const EXTREME_SHARE = 0.3;

export function worldOf(random: () => number): World {
  const upTo = (end: number) => Math.floor(random() * end);
  const byte = () => (random() < EXTREME_SHARE ? upTo(2) * 255 : upTo(256));
  const port = () => (random() < EXTREME_SHARE ? 65_535 - upTo(256) : 1 + upTo(65_535));
  // Unicast: 1 to 126 and 128 to 223; 2000::/3.
  const first = (isIpv6: boolean) =>
    isIpv6 ? 0x20 + upTo(0x20) : ([1 + upTo(126), 128 + upTo(96)][upTo(2)] ?? 1);
  const address = (isIpv6: boolean) =>
    addressText(
      Uint8Array.from({ length: isIpv6 ? 16 : 4 }, (_, at) => (at === 0 ? first(isIpv6) : byte())),
    );
  const some = () =>
    [false, true].flatMap((isIpv6) => Array.from({ length: 1 + upTo(2) }, () => address(isIpv6)));
  return {
    listeners: [address(false), address(true)],
    listenerPort: port(),
    targets: some(),
    targetPort: port(),
    nodes: random() < PRESERVED_SHARE ? [] : some(),
    clientOf: (_, isIpv6) => ({ address: address(isIpv6), port: port() }),
  };
}
