/** Connections of every kind for the gauntlet, as the numbers of a seed fall. */
import { pattern } from "../fixtures/bytes.ts";
import type { ProxyProtocolOptions } from "../host/engine/api.ts";
import type { ConnectionOptions } from "./tcp-channel.ts";

const MTUS = [576, 1280, 1500, 9000];

function oneOf<T>(random: () => number, items: readonly T[]): T {
  return items[Math.floor(random() * items.length)] as T;
}

/** A connection of every kind, as the numbers fall. */
export function connectionOptions(
  random: () => number,
  { placement }: ProxyProtocolOptions,
  headerBytes: number,
): ConnectionOptions {
  const isIpv6 = random() < 0.3;
  const mtu = oneOf(random, isIpv6 ? MTUS.slice(1) : MTUS);
  const loss = oneOf(random, [0, 0.01, 0.05, 0.2, 0.35]);
  // What is lost again and again takes long.
  const most = loss > 0.1 ? 4000 : 60_000;
  const bytes = () => oneOf(random, [0, 1, 2, 99, 100, 101, 1000, most >> 1, most]);
  const isServerFirst = placement === "on_first_ack" && random() < 0.3;
  // Who greets first cannot ask for what of the header its window left out: the client has nothing to repeat.
  const isNarrow = !isServerFirst && random() < 0.1;
  const toServer = pattern(isNarrow ? Math.min(bytes(), 200) : bytes(), Math.floor(random() * 256));
  const end = (peerHeader: number) => ({
    // Many at the wrap: the header, the first bytes or later ones cross it.
    isn: random() < 0.5 ? 2 ** 32 - Math.floor(random() * 400) - 1 : Math.floor(random() * 2 ** 32),
    mss: mtu - (isIpv6 ? 60 : 40),
    scale: Math.floor(random() * 8),
    hasSack: random() < 0.7,
    hasTimestamps: random() < 0.6,
    window: oneOf(random, [4096, 16_384, 65_535, 1 << 20]) + peerHeader,
    superSegments: random() < 0.2 ? Math.max(1, Math.floor(60_000 / mtu)) : 1,
    acksAtOnce: random() < 0.5,
    optionShift: Math.floor(random() * 4),
    sendsAfter: 0,
  });
  const sendsAfter = isServerFirst || random() < 0.5 ? headerBytes + 0 : 0;
  const server = { ...end(headerBytes), sendsAfter };
  // Takes a part of the header at a time, and acknowledges inside it.
  if (isNarrow) Object.assign(server, { window: headerBytes >> oneOf(random, [1, 2]), scale: 0 });
  const toClient = pattern(bytes(), 7);
  // A target that greets first waits for the header, its client for the greeting: neither says a word.
  const client = { ...end(0), sendsAfter: isServerFirst ? toClient.length : 0 };
  return {
    client,
    server,
    toServer,
    toClient,
    link: {
      loss,
      duplication: oneOf(random, [0, 0.02, 0.2]),
      delayMsMax: oneOf(random, [1, 5, 40]),
    },
    isIpv6,
    headerBytes,
  };
}
