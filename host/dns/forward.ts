/**
 * Asks another resolver (RFC 5452): a socket with a port of its own and a fresh number for every
 * question, over UDP first, over TCP when the answer was cut off. Bounded: so many questions wait
 * at once, each for so long; beyond that the caller gets nothing and answers SERVFAIL.
 */

import { randomInt } from "node:crypto";
import { createSocket } from "node:dgram";
import { connect, isIPv6 } from "node:net";

export interface Upstream {
  address: string;
  port: number;
}

/** A message for another resolver; its response with the same number, or nothing in time. */
export type Forward = (message: Uint8Array) => Promise<Uint8Array | undefined>;

const WAITING_MAX = 256;
const TIMEOUT_MS = 2000;
const FLAG_TRUNCATED = 0x02;

/** Tries each upstream in turn. */
export function forwarder(upstreams: readonly Upstream[], timeoutMs = TIMEOUT_MS): Forward {
  let waiting = 0;
  return async (message) => {
    if (waiting >= WAITING_MAX) return undefined;
    waiting++;
    try {
      for (const upstream of upstreams) {
        const answer = await ask(message, upstream, timeoutMs);
        if (answer) return answer;
      }
      return undefined;
    } finally {
      waiting--;
    }
  };
}

async function ask(
  message: Uint8Array,
  upstream: Upstream,
  timeoutMs: number,
): Promise<Uint8Array | undefined> {
  const asked = Buffer.from(message);
  const own = asked.readUInt16BE(0);
  asked.writeUInt16BE(randomInt(65_536), 0);
  let response = await askUdp(asked, upstream, timeoutMs);
  if (response && (response[2] ?? 0) & FLAG_TRUNCATED) {
    response = (await askTcp(asked, upstream, timeoutMs)) ?? response;
  }
  response?.writeUInt16BE(own, 0);
  return response;
}

/** A response counts when it has the number and the question of what was asked. */
function isAnswerTo(asked: Buffer, response: Buffer): boolean {
  if (response.length < 12 || ((response[2] ?? 0) & 0x80) === 0) return false;
  if (response.readUInt16BE(0) !== asked.readUInt16BE(0)) return false;
  let end = 12;
  while (end < asked.length && asked[end] !== 0) end += (asked[end] ?? 0) + 1;
  const questionEnd = end + 5;
  return response.subarray(12, questionEnd).equals(asked.subarray(12, questionEnd));
}

function askUdp(asked: Buffer, upstream: Upstream, timeoutMs: number): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const socket = createSocket(isIPv6(upstream.address) ? "udp6" : "udp4");
    const end = (response?: Buffer) => {
      clearTimeout(timer);
      socket.removeAllListeners("message");
      socket.close();
      resolve(response);
    };
    const timer = setTimeout(end, timeoutMs);
    socket.on("error", () => end());
    socket.on("message", (response) => {
      if (isAnswerTo(asked, response)) end(response);
    });
    // Connected, so that only the upstream's datagrams arrive.
    socket.connect(upstream.port, upstream.address, () => socket.send(asked));
  });
}

function askTcp(asked: Buffer, upstream: Upstream, timeoutMs: number): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host: upstream.address, port: upstream.port });
    let received = Buffer.alloc(0);
    const end = (response?: Buffer) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(response);
    };
    const timer = setTimeout(end, timeoutMs);
    socket.on("error", () => end());
    socket.on("close", () => end());
    socket.on("connect", () => socket.write(framed(asked)));
    socket.on("data", (part) => {
      received = Buffer.concat([received, part]);
      if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return;
      const response = Buffer.from(received.subarray(2, 2 + received.readUInt16BE(0)));
      end(isAnswerTo(asked, response) ? response : undefined);
    });
  });
}

/** A message as it travels over TCP: behind its length (RFC 1035, 4.2.2). */
export function framed(message: Uint8Array): Buffer {
  const bytes = Buffer.alloc(2 + message.length);
  bytes.writeUInt16BE(message.length, 0);
  bytes.set(message, 2);
  return bytes;
}
